//! The new pairing links that were handed out for lost sessions: their names, and for which session. Never a credential.

use super::{Journal, JournalError};
use crate::domain::{Reissue, UserName};

/// Keys of a user's links begin with this.
const REISSUED: &str = "reissued/";

impl Journal {
    /// The links that a user was given. What cannot be read was given to nobody.
    pub fn reissues(&self, user: &UserName) -> Result<Vec<Reissue>, JournalError> {
        let said = self.value(&format!("{REISSUED}{user}"))?;
        Ok(said.and_then(|said| serde_json::from_str(&said).ok()).unwrap_or_default())
    }

    /// Remembers them; writes only when they change.
    pub fn set_reissues(&self, user: &UserName, given: &[Reissue]) -> Result<(), JournalError> {
        if self.reissues(user)? == given {
            return Ok(());
        }
        let text = if given.is_empty() { None } else { Some(serde_json::to_string(given)?) };
        self.put(&format!("{REISSUED}{user}"), text.as_deref())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::domain::BumpId;

    #[test]
    fn links_are_remembered_per_user_across_a_restart_and_nonsense_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.sqlite");
        let (alice, bob): (UserName, UserName) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let given = [Reissue {
            bump: BumpId(1),
            session: "s".to_owned(),
            links: vec!["l".to_owned()],
            at_ms: 1,
            until_ms: 2,
            done: false,
        }];
        Journal::open(&path).unwrap().set_reissues(&alice, &given).unwrap();
        let journal = Journal::open(&path).unwrap();
        assert_eq!((journal.reissues(&alice).unwrap(), journal.reissues(&bob).unwrap()), (given.to_vec(), vec![]));
        journal.put("reissued/bob", Some("{")).unwrap();
        assert_eq!(journal.reissues(&bob).unwrap(), vec![]);
        journal.set_reissues(&alice, &[]).unwrap();
        assert_eq!(journal.reissues(&alice).unwrap(), vec![]);
    }
}
