//! What is known for the status without asking anybody again: what the agent does right now, and which version was last seen
//! to answer for which start of a unit.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::notify;
use crate::domain::{UnixMs, UserName, Version};

/// The board.
#[derive(Debug)]
pub struct Board {
    since_ms: UnixMs,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    state: &'static str,
    doing: String,
    running: BTreeMap<UserName, (String, Option<Version>)>,
    silent: BTreeMap<UserName, (String, Instant)>,
    uninstallable: BTreeMap<Version, String>,
    cramped: Option<String>,
}

impl Board {
    /// A board of an agent that started at `since_ms`.
    pub fn new(since_ms: UnixMs) -> Self {
        let now = Now {
            // Whoever asks before the first look at what was under way is not told that all is at rest.
            state: "recovering",
            doing: "starting".to_owned(),
            running: BTreeMap::new(),
            silent: BTreeMap::new(),
            uninstallable: BTreeMap::new(),
            cramped: None,
        };
        Self { since_ms, now: Mutex::new(now) }
    }

    /// When the agent started.
    pub fn since_ms(&self) -> UnixMs {
        self.since_ms
    }

    /// Notes what is being done (see `AgentStatus::state` for the words) and tells systemd.
    pub fn set_doing(&self, state: &'static str, doing: String) {
        notify::status(&doing);
        let mut now = self.lock();
        now.state = state;
        now.doing = doing;
    }

    /// What is being done: the word and the sentence.
    pub fn doing(&self) -> (&'static str, String) {
        let now = self.lock();
        (now.state, now.doing.clone())
    }

    /// Notes which version answered for the start `invocation` of a user's unit.
    pub fn saw_running(&self, user: &UserName, invocation: &str, version: Option<Version>) {
        self.lock().running.insert(user.clone(), (invocation.to_owned(), version));
    }

    /// Which version answered for the start `invocation`; `None` when nobody has looked since.
    pub fn running(&self, user: &UserName, invocation: &str) -> Option<Option<Version>> {
        self.lock().running.get(user).filter(|(seen, _)| seen == invocation).map(|(_, version)| version.clone())
    }

    /// For how long the start `invocation`, which does not answer at `now`, has been waited for; `None` when it has answered before.
    pub fn silent_for(&self, user: &UserName, invocation: &str, now: Instant) -> Option<Duration> {
        if matches!(self.running(user, invocation), Some(Some(_))) {
            return None;
        }
        let mut board = self.lock();
        let since = board.silent.entry(user.clone()).or_insert_with(|| (invocation.to_owned(), now));
        if since.0 != invocation {
            *since = (invocation.to_owned(), now);
        }
        Some(now.saturating_duration_since(since.1))
    }

    /// Notes that a version could not be installed.
    pub fn set_uninstallable(&self, version: &Version, reason: String) {
        self.lock().uninstallable.insert(version.clone(), reason);
    }

    /// Forgets it: another order to enforce tries again.
    pub fn clear_uninstallable(&self) {
        self.lock().uninstallable.clear();
    }

    /// Notes whether the disks have room for all that is to be done, and why not.
    pub fn set_cramped(&self, reason: Option<String>) {
        self.lock().cramped = reason;
    }

    /// Why the disks had no room for all, when they were last looked at.
    pub fn cramped(&self) -> Option<String> {
        self.lock().cramped.clone()
    }

    /// What could not be installed since the last order to enforce.
    pub fn uninstallable(&self) -> BTreeMap<Version, String> {
        self.lock().uninstallable.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn only_a_start_that_has_not_answered_yet_is_waited_for_and_each_from_its_own_first_look() {
        let (board, user, now) = (Board::new(0), "alice".parse().unwrap(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(board.silent_for(&user, "one", at(0)), Some(Duration::ZERO));
        assert_eq!(board.silent_for(&user, "one", at(9)), Some(Duration::from_secs(9)));
        assert_eq!(board.silent_for(&user, "two", at(10)), Some(Duration::ZERO), "it was started again");
        board.saw_running(&user, "two", None);
        assert_eq!(board.silent_for(&user, "two", at(12)), Some(Duration::from_secs(2)), "nobody has answered");
        board.saw_running(&user, "two", Some("0.0.25".parse().unwrap()));
        assert_eq!(board.silent_for(&user, "two", at(13)), None, "it has answered, and does not any more");
    }
}
