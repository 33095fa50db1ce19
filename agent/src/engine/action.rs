//! What the engine wants done.

use serde::{Deserialize, Serialize};

use crate::domain::Version;

/// One effect on the host. Every action can be repeated: doing it again after a crash half-way finishes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// Disk preflight, live copy, the new version on it in the sandbox; on failure the old version too, as a control.
    /// Answers `Rehearsed`.
    Rehearse,
    /// The probe on the running old version. Answers `BaselineTaken`.
    TakeBaseline,
    /// The copy for the new version, made and checked beside the running server; what is written from then on stays within reach.
    /// Answers `Seeded`.
    Seed,
    /// Freeze, look again, hold the data and stop the unit only if still idle (or `force`); else thaw.
    /// Answers `Quiesced` or `FoundBusy`; a unit that does not run any more is `Quiesced`, never busy.
    Quiesce {
        /// Stop it even when it is active (an operator's explicit order).
        force: bool,
    },
    /// The copy brought up to the last write, the original into custody. Answers `Secured`.
    Secure,
    /// The copy in place, binding to the new version. Answers `Switched`.
    Switch,
    /// Let go of the data and start the unit on the binding, which is `version`. Answers `Started`.
    Start {
        /// What the binding points to now.
        version: Version,
    },
    /// The pairing handshake against `version`. Answers `Probed`.
    Verify {
        /// Which version must answer.
        version: Version,
    },
    /// Make the verified snapshot from custody, apply retention. Answers `Archived`.
    Archive,
    /// Stop the unit, whatever it does; hold the data. Answers `Stopped`.
    Stop,
    /// The original back into place, binding to the old version. Answers `Restored`.
    Restore {
        /// The new version ran, so what lies in place is salvaged and not removed.
        keep_salvage: bool,
        /// Custody was archived: the original comes from the snapshot.
        unarchive: bool,
    },
    /// Remove work copies; let go of the data. Answers `Tidied`.
    Tidy,
}
