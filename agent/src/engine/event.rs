//! What happened, as the engine is told.

use serde::{Deserialize, Serialize};

use super::fault::Fault;
use crate::domain::{Activity, Paired, ProbeReport, RehearsalReport, Salvage, Snapshot, UnixMs, WorkMarks};

/// Something that happened to a bump.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The rollout lets the bump go on from where it rests.
    GoAhead,
    /// The bump is put off.
    PutOff {
        /// Why, for people.
        reason: String,
        /// Who or what put it off.
        owner: crate::domain::DeferralOwner,
    },
    /// The bump is no longer wanted (pin changed, instance gone, version quarantined).
    CalledOff {
        /// Why.
        reason: String,
    },
    /// An entitled person wants the old version and the old data back.
    RollbackAsked {
        /// Even when the instance is active.
        force: bool,
        /// Why, for the history.
        reason: String,
    },
    /// The agent was started again and found this bump open.
    AgentRestarted,
    /// It is stuck, and the way back is tried again unasked.
    TriedAgain,
    /// The last action could not be done.
    ActionFailed(Fault),
    /// See `Action::Rehearse`.
    Rehearsed {
        /// The new version on the copy.
        report: Box<RehearsalReport>,
        /// The old version on a copy, run only when the new one did not pass.
        control: Option<Box<RehearsalReport>>,
    },
    /// See `Action::TakeBaseline`.
    BaselineTaken {
        /// The old version, live.
        report: ProbeReport,
    },
    /// See `Action::Seed`.
    Seeded {
        /// Why the copy can only be made when the server is stopped; `None` when it is made.
        later: Option<String>,
    },
    /// See `Action::Quiesce`: the unit is stopped.
    Quiesced {
        /// When the stop was ordered.
        stopped_ms: UnixMs,
        /// How long the server stood still before, in ms; `None` when it was not frozen.
        #[serde(default)]
        still_ms: Option<u64>,
        /// Who was paired just before; `None` when it cannot be told.
        #[serde(default)]
        paired: Option<Paired>,
    },
    /// See `Action::Quiesce`: the unit runs on, unharmed.
    FoundBusy {
        /// What was seen.
        activity: Activity,
        /// In words.
        reason: String,
    },
    /// See `Action::Secure`.
    Secured {
        /// What the archived snapshot will be.
        snapshot: Snapshot,
    },
    /// See `Action::Switch`.
    Switched,
    /// See `Action::Start`.
    Started,
    /// See `Action::Verify`.
    Probed {
        /// What the probe saw.
        report: ProbeReport,
        /// When the server first answered; `None` if it never did.
        answered_ms: Option<UnixMs>,
        /// How much work the data holds now, at the hand-over; `None` when it cannot be told.
        marks: Option<WorkMarks>,
        /// Who of those that were paired before is not paired any more; `None` when it cannot be told.
        #[serde(default)]
        lost: Option<Paired>,
    },
    /// A look at an instance in its soak.
    Looked(SoakLook),
    /// See `Action::Archive`.
    Archived,
    /// See `Action::Stop`.
    Stopped,
    /// See `Action::Restore`.
    Restored {
        /// What was set aside.
        salvage: Option<Salvage>,
    },
    /// See `Action::Tidy`.
    Tidied,
}

/// One look during the soak.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "look", rename_all = "kebab-case")]
pub enum SoakLook {
    /// Runs and answers.
    Good,
    /// Something is wrong.
    Bad {
        /// What.
        reason: String,
        /// Down, crash loop, no listener: nobody can work.
        unusable: bool,
        /// Rows of work that a rollback would put into salvage; `None` when it cannot be told.
        new_work: Option<u64>,
    },
    /// Could not be told (environment).
    Unclear {
        /// Why.
        reason: String,
    },
}
