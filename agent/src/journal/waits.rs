//! What is remembered about users' waits: since when, escalated or not, and what people said; and who is no longer held.

use std::collections::BTreeMap;

use super::{Journal, JournalError};
use crate::domain::{UserName, Wait};

/// Facts of this kind have the user's name after it.
const PREFIX: &str = "wait:";

impl Journal {
    /// The wait of one user.
    pub fn wait(&self, user: &UserName) -> Result<Wait, JournalError> {
        Ok(self.value(&key(user))?.map(|text| serde_json::from_str(&text)).transpose()?.unwrap_or_default())
    }

    /// Whether t3pin no longer holds this user, by order.
    pub fn is_released(&self, user: &UserName) -> Result<bool, JournalError> {
        Ok(self.value(&format!("released:{user}"))?.is_some())
    }

    /// Notes it, or that it is over.
    pub fn set_released(&self, user: &UserName, released: bool) -> Result<(), JournalError> {
        if self.is_released(user)? == released {
            Ok(())
        } else {
            self.put(&format!("released:{user}"), released.then_some("yes"))
        }
    }

    /// All waits there are.
    pub fn waits(&self) -> Result<BTreeMap<UserName, Wait>, JournalError> {
        let mut waits = BTreeMap::new();
        for (key, text) in &self.lock().facts {
            if let Some(user) = key.strip_prefix(PREFIX).and_then(|user| user.parse().ok()) {
                waits.insert(user, serde_json::from_str(text)?);
            }
        }
        Ok(waits)
    }

    /// Changes one user's wait, all at once, and returns what it is then. Writes only when something changes.
    pub fn change_wait(&self, user: &UserName, change: impl FnOnce(&mut Wait)) -> Result<Wait, JournalError> {
        let key = key(user);
        let mut inner = self.lock();
        let before: Wait = inner.facts.get(&key).map(|text| serde_json::from_str(text)).transpose()?.unwrap_or_default();
        let mut wait = before.clone();
        change(&mut wait);
        if wait == before {
            return Ok(wait);
        }
        let text = if wait == Wait::default() { None } else { Some(serde_json::to_string(&wait)?) };
        inner.put_all(&[(&key, text.as_deref())])?;
        Ok(wait)
    }
}

fn key(user: &UserName) -> String {
    format!("{PREFIX}{user}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::domain::{Said, Word};

    #[test]
    fn what_was_said_survives_reopening_and_goes_when_nothing_is_left_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.sqlite");
        let (alice, bob): (UserName, UserName) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let said = Said { word: Word::Later { until_ms: 7 }, at_ms: 1, uid: 1000, reason: Some("demo".to_owned()) };
        let journal = Journal::open(&path).unwrap();
        let changed = journal.change_wait(&alice, |wait| wait.user = Some(said)).unwrap();
        journal.change_wait(&bob, |wait| wait.since_ms = Some(3)).unwrap();
        drop(journal);
        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.wait(&alice).unwrap(), changed);
        assert_eq!(journal.waits().unwrap().len(), 2);
        journal.change_wait(&alice, |wait| *wait = Wait::default()).unwrap();
        assert_eq!(journal.waits().unwrap().keys().collect::<Vec<_>>(), [&bob]);
        assert_eq!(journal.wait(&alice).unwrap(), Wait::default());
    }
}
