//! The values of t3pin: versions, users, instances, verdicts, snapshots, deferrals.
//!
//! Nothing here does I/O, reads a clock or knows any other module of the house. Everything that can cross a
//! process boundary (journal, worker pipe, socket) derives serde. Times are milliseconds since the Unix epoch (UTC),
//! sizes are bytes.

mod activity;
mod attended;
mod deferral;
mod ids;
mod instance;
mod kept_id;
mod paired;
mod pairing;
mod probe;
mod rehearsal;
mod rival;
mod snapshot;
mod user;
mod version;

pub use activity::{Activity, BusyReason};
pub use attended::AttendedTry;
pub use deferral::{Closed, Deferral, DeferralOwner, Said, Wait, Word};
pub use ids::BumpId;
pub use instance::{Account, Instance, Place};
pub use kept_id::KeptId;
pub use paired::{Device, KEPT, Paired, PairedLook, Reissue};
pub use pairing::{PairingError, PairingLabel, PairingTtl};
pub use probe::{Descriptor, ProbeReport, ProbeStep, StepOutcome, StepRecord, Verdict};
pub use rehearsal::RehearsalReport;
pub use rival::{LauncherState, OwnService, Rivals, StrayServer};
pub use snapshot::{
    ATTACHMENTS, Attachments, EntryKind, Lying, REBUILT, STATE_ENTRIES, Salvage, SeedMethod, SeedReport, Snapshot, SnapshotId,
    StateEntry, WorkMarks, copied_entries,
};
pub use user::{UserName, UserNameError};
pub use version::{Version, VersionError};

/// Milliseconds since the Unix epoch, UTC.
pub type UnixMs = i64;
