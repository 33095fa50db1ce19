//! Holds: `holds/USER` exists while a user's data is in our hands, and no server may start on it.

use super::vault_dirs::own_uid;
use super::{StateError, Vault};
use crate::domain::{BumpId, UserName};
use crate::worker::files::Dir;

impl Vault {
    fn holds(&self) -> Result<Dir, StateError> {
        Ok(Dir::open(&self.root.join("holds"))?)
    }

    pub(super) fn put_hold(&self, user: &UserName, bump: BumpId) -> Result<(), StateError> {
        Ok(self.holds()?.write_synced(user.as_str(), bump.to_string().as_bytes())?)
    }

    pub(super) fn lift_hold(&self, user: &UserName) -> Result<(), StateError> {
        let holds = self.holds()?;
        holds.unlink(user.as_str())?;
        Ok(holds.sync()?)
    }

    pub(super) fn list_holds(&self) -> Result<Vec<(UserName, BumpId)>, StateError> {
        let holds = self.holds()?;
        let mut found = Vec::new();
        for name in holds.names(100_000)? {
            // Half-written drafts begin with a dot, which no user name does.
            let Ok(user) = name.parse::<UserName>() else { continue };
            let content = holds.read(&name, own_uid(), 64)?.unwrap_or_default();
            match std::str::from_utf8(&content).unwrap_or_default().trim().parse() {
                Ok(bump) => found.push((user, bump)),
                Err(why) => {
                    let path = holds.path().join(&name);
                    return Err(StateError::Mismatch {
                        path,
                        why: format!("does not say for which bump the data is held: {why}"),
                    });
                }
            }
        }
        Ok(found)
    }
}
