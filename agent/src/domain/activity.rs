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
        /// When the row last moved, if known.
        since_ms: Option<UnixMs>,
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
