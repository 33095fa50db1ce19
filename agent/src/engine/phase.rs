//! Where a bump stands: its phases, the steps of its rollback, where it rests and how it ends.

use serde::{Deserialize, Serialize};

/// The phases of DESIGN section 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Nothing was done yet; waits for the rollout.
    Planned,
    /// The new version on a copy, in the sandbox.
    Rehearsed,
    /// Rehearsed well; waits for its turn, or for the user to be idle.
    Ready,
    /// The probe on the running old version.
    Baselined,
    /// Frozen, looked at again, held, stopped.
    Quiesced,
    /// Copied, original in custody.
    Secured,
    /// Copy in place, binding to the new version.
    Switched,
    /// Let go and started.
    Started,
    /// Probed from outside.
    Verified,
    /// In use, and watched.
    Soaking,
    /// Custody becomes an archived snapshot.
    Settled,
    /// On the way back.
    RollingBack(Undo),
    /// Could neither be finished nor undone; both copies are in place.
    Stuck,
    /// Tidying up before the end.
    Closing(Outcome),
    /// Over.
    Closed(Outcome),
}

/// The steps of a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undo {
    /// Asked for by a person: as careful with activity as a bump.
    Quiesced {
        /// Even when active.
        force: bool,
        /// Where it goes on when the instance is busy.
        rest: Rest,
    },
    /// The new version stopped.
    Stopped,
    /// The original back, binding to the old version.
    Restored,
    /// The old version started.
    Restarted,
    /// The old version probed.
    Rechecked,
}

/// Where a bump rests when nothing is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rest {
    /// In its soak.
    Soaking,
    /// Done.
    Done,
    /// Stuck.
    Stuck,
}

/// How a bump ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The instance runs the new version.
    Done,
    /// The instance runs the old version on the old data.
    RolledBack,
    /// The rehearsal failed; the user was not touched.
    Refused,
    /// Called off; the user was not touched.
    Cancelled,
}
