//! Conducting bumps: in which order things are written down, done, and taken up again after a crash.
//!
//! What is to happen is decided by `engine`, which does nothing; who does it is a [`Host`], which decides nothing. Here is
//! only the order between the two, the same for the agent on a real host and for the project's simulation of one: every
//! phase is in the [`Ledger`] before its [`deeds`] begin ([`drive`]), data is held before a server is stopped and let go of
//! before one is started, and what was under way is taken up again at every start ([`recover`]).

mod blame;
mod deeds;
mod drive;
mod recovery;

use std::fmt::Display;
use std::io;

use crate::domain::{Activity, Paired, UnixMs, UserName, Version};
use crate::engine::waits::Hurry;
use crate::engine::{Bump, Event, Fault};
use crate::state::{Retention, Vault};
use crate::systemd::{SystemdError, UnitState};

pub use blame::{data, host, io_fault, worker};
pub use drive::{Entered, drive};
pub use recovery::{recover, take_up};

/// The only truth after a crash. What a call that returned `Ok` wrote is on disk; one that failed may have written all or
/// nothing.
pub trait Ledger {
    /// Why it could not be read or written.
    type Error: Display;

    /// Writes the bump as it is now, and the event that made it so.
    fn record(&self, bump: &Bump, event: Option<&Event>, now_ms: UnixMs) -> Result<(), Self::Error>;
    /// Notes that a version failed here. The first reason stays.
    fn add_quarantine(&self, version: &Version, reason: &str, now_ms: UnixMs) -> Result<(), Self::Error>;
    /// Notes that a bump to `version`, planned at `planned_ms`, has soaked well: if that was after the version was quarantined, the
    /// quarantine is lifted.
    fn vindicate(&self, version: &Version, planned_ms: UnixMs, now_ms: UnixMs) -> Result<(), Self::Error>;
    /// All bumps that are not over, oldest first.
    fn open_bumps(&self) -> Result<Vec<Bump>, Self::Error>;
    /// The open bump of a user.
    fn open_bump(&self, user: &UserName) -> Result<Option<Bump>, Self::Error>;
    /// Whether it knows of every bump that is under way. One that was damaged may not, until the disk was looked at.
    fn is_complete(&self) -> bool {
        true
    }
}

/// Says why an instance with this activity must not be stopped at this time, if so.
pub type Busy<'a> = &'a (dyn Fn(&Activity, UnixMs) -> Option<String> + Send + Sync);

/// What came of a hand-over.
#[derive(Debug)]
pub enum HandedOver {
    /// The unit is stopped.
    Stopped {
        /// When that was ordered.
        at_ms: UnixMs,
        /// How long it stood still before, to be looked at; `None` when it could not be frozen.
        still_ms: Option<u64>,
    },
    /// The unit runs on.
    Busy {
        /// What was seen.
        activity: Activity,
        /// In words.
        reason: String,
    },
}

/// Who does it. Every call may be repeated after a crash.
#[allow(async_fn_in_trait)] // Only ever used with the one type, never as an object.
pub trait Host {
    /// See [`Ledger`].
    type Ledger: Ledger;

    /// Where it is written down.
    fn ledger(&self) -> &Self::Ledger;
    /// Users' data.
    fn vault(&self) -> &Vault;
    /// The time.
    fn now_ms(&self) -> UnixMs;
    /// A bump is worked on, for whoever asks what is being done.
    fn note_doing(&self, bump: &Bump);

    /// How a unit is.
    async fn unit(&self, unit: &str) -> Result<UnitState, SystemdError>;
    /// Stops the unit of `bump`, which runs as `state` says, unless `busy` has something against what is seen of it: the last
    /// look and the stop are one, as far as the host can do that. Its data is held from before the stop on, and only then.
    async fn hand_over(&self, bump: &Bump, state: &UnitState, busy: Busy<'_>) -> Result<HandedOver, Fault>;
    /// Thaws it; fine when it is not frozen.
    async fn thaw(&self, unit: &str) -> Result<(), SystemdError>;
    /// Starts a unit and waits for the job; fine when it runs.
    async fn start(&self, unit: &str) -> Result<(), SystemdError>;
    /// Stops a unit and waits for the job; fine when it does not run.
    async fn stop(&self, unit: &str) -> Result<(), SystemdError>;

    /// Which version a user is bound to.
    fn binding(&self, user: &UserName) -> io::Result<Option<Version>>;
    /// Binds a user to an installed version, atomically, synced.
    fn bind(&self, user: &UserName, version: &Version) -> io::Result<()>;

    /// How long an instance must have been quiet before it is stopped unasked, in ms.
    fn quiet_ms(&self) -> i64;
    /// Whether somebody entitled to it said that this user's bump shall not wait.
    fn hurry(&self, user: &UserName) -> Hurry;
    /// How long snapshots of a user's are kept.
    fn retention(&self) -> Retention;

    /// `Action::Rehearse`.
    async fn rehearse(&self, bump: &Bump) -> Result<Event, Fault>;
    /// Who is paired with the server of `bump`; `None` when it cannot be told, which keeps nothing from going on.
    async fn paired(&self, bump: &Bump) -> Option<Paired>;
    /// `Action::TakeBaseline`.
    async fn take_baseline(&self, bump: &Bump) -> Result<Event, Fault>;
    /// `Action::Verify`.
    async fn verify(&self, bump: &Bump, version: &Version) -> Result<Event, Fault>;
}
