//! When the watch has restarted whose server: the cap on restarts holds over restarts of the agent, too.

use super::{Journal, JournalError};
use crate::domain::UserName;
use crate::engine::watch::Restarts;

impl Journal {
    /// The restarts of one user's server that are remembered.
    pub fn restarts(&self, user: &UserName) -> Result<Restarts, JournalError> {
        Ok(self.value(&key(user))?.map(|text| serde_json::from_str(&text)).transpose()?.unwrap_or_default())
    }

    /// Remembers them; before the restart that is the last of them.
    pub fn set_restarts(&self, user: &UserName, restarts: &Restarts) -> Result<(), JournalError> {
        self.put(&key(user), Some(&serde_json::to_string(restarts)?))
    }
}

fn key(user: &UserName) -> String {
    format!("restarts:{user}")
}
