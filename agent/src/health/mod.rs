//! Is a server right? The pairing handshake from outside, as the user, and the rehearsal in a sandbox.
//!
//! What a report means is decided in `engine::judge`, not here.

mod rehearse;

use std::time::Duration;

pub use rehearse::{RehearsalError, rehearse};

use crate::domain::{Account, Descriptor, ProbeReport};
use crate::worker::{self, Answer, ProbeSpec, Task, WorkerError};

/// What the names of all rehearsal sandboxes begin with, for `Systemd::stop_left_over`.
pub const UNIT_PREFIX: &str = "t3pin-rehearse-";

/// What a handshake may take once the server has come up: three mints and two revocations that hang (30 s each), and the
/// requests between them.
const AFTER_START: Duration = Duration::from_secs(4 * 60);

/// The worker's own timeout is a second; the rest is for starting it on a busy host.
const DESCRIBE_DEADLINE: Duration = Duration::from_secs(5);

/// Runs the pairing handshake as the user. A worker that gives no report is `Err`: inconclusive, never the version's fault.
pub async fn probe(account: &Account, spec: ProbeSpec) -> Result<ProbeReport, WorkerError> {
    let deadline = Duration::from_millis(spec.start_ceiling_ms.max(spec.start_deadline_ms)) + AFTER_START;
    match worker::run(account, &Task::Probe(spec), deadline).await? {
        Answer::Probe(report) => Ok(report),
        _ => Err(nonsense(account)),
    }
}

/// Who answers at `address` right now (`127.0.0.1:3773`); one short try.
pub async fn describe(account: &Account, address: &str) -> Result<Option<Descriptor>, WorkerError> {
    match worker::run(account, &Task::Describe { address: address.to_owned() }, DESCRIBE_DEADLINE).await? {
        Answer::Descriptor(descriptor) => Ok(descriptor),
        _ => Err(nonsense(account)),
    }
}

fn nonsense(account: &Account) -> WorkerError {
    WorkerError::Nonsense { user: account.user.to_string(), what: "it answered something else than was asked".to_owned() }
}
