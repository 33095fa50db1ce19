//! What was seen of a user's activity.

use serde::{Deserialize, Serialize};

use super::UnixMs;

/// What one look at an instance found. "Cannot tell" is its own answer and counts as busy (promise 4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "activity", rename_all = "kebab-case")]
pub enum Activity {
    /// Nothing in flight.
    Idle {
        /// The newest trace of work in the database; `None` when nobody ever worked here.
        last_activity_ms: Option<UnixMs>,
    },
    /// Work in flight; a restart would lose it.
    Busy {
        /// Every sign found, at least one.
        reasons: Vec<BusyReason>,
    },
    /// The signs could not be read (locked, unknown schema, unreadable, timed out).
    Unknown {
        /// What could not be read, for the operator.
        why: String,
    },
}

/// One sign of work in flight (T3-CONTRACT section 4, DESIGN section 7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "sign", rename_all = "kebab-case")]
pub enum BusyReason {
    /// A turn is in flight.
    Turn {
        /// Thread of the turn.
        thread: String,
        /// What its user calls the thread, if known.
        #[serde(default)]
        title: Option<String>,
        /// When anything of the thread last moved, if known.
        since_ms: Option<UnixMs>,
        /// Nothing has moved for so long that the row may be left over from a server that died; still counts as busy.
        #[serde(default)]
        stale: bool,
    },
    /// A thread waits for the user's approval.
    PendingApproval {
        /// How many wait.
        count: u64,
    },
    /// A thread waits for the user's input.
    PendingInput {
        /// How many wait.
        count: u64,
    },
    /// A job runs in the foreground of a terminal.
    TerminalJob {
        /// Name of the foreground process.
        command: String,
    },
    /// Somebody else than the server has the database open; it cannot be taken into custody under their hands.
    DatabaseOpen {
        /// Names and pids.
        holders: String,
    },
}

impl Activity {
    /// Marks the turns that have not moved for `stale_after_ms` at `now_ms`. One that does not say when is not stale.
    #[must_use]
    pub fn with_stale_marked(mut self, now_ms: UnixMs, stale_after_ms: i64) -> Self {
        if let Self::Busy { reasons } = &mut self {
            for reason in reasons {
                if let BusyReason::Turn { since_ms: Some(since), stale, .. } = reason {
                    *stale = now_ms.saturating_sub(*since) >= stale_after_ms;
                }
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_stale_only_when_it_is_known_not_to_have_moved_for_long() {
        let turn = |since_ms, stale| BusyReason::Turn { thread: "t".to_owned(), title: None, since_ms, stale };
        let seen = Activity::Busy { reasons: vec![turn(Some(1000), false), turn(Some(1001), false), turn(None, false)] };
        let marked = Activity::Busy { reasons: vec![turn(Some(1000), true), turn(Some(1001), false), turn(None, false)] };
        assert_eq!(seen.with_stale_marked(6000, 5000), marked);
        let idle = Activity::Idle { last_activity_ms: Some(0) };
        assert_eq!(idle.clone().with_stale_marked(6000, 5000), idle);
    }
}
