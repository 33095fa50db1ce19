//! Is a server right? The pairing handshake from outside, as the user, and the rehearsal in a sandbox.
//!
//! What a report means is decided in `engine::judge`, not here.

use std::path::Path;

use crate::domain::{Account, BumpId, Descriptor, ProbeReport, RehearsalReport};
use crate::systemd::{Systemd, SystemdError};
use crate::worker::{LiveCopyReport, ProbeSpec, WorkerError};

/// Why a rehearsal gave no report.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// systemd refused the sandbox.
    #[error("the rehearsal sandbox could not be run: {0}")]
    Systemd(#[from] SystemdError),
    /// The sandbox ended without a usable report (killed by a limit, deadline).
    #[error("the rehearsal ended without a report ({0})")]
    NoReport(String),
}

/// Runs the pairing handshake as the user. A worker that gives no report is `Err`: inconclusive, never the version's fault.
pub async fn probe(account: &Account, spec: ProbeSpec) -> Result<ProbeReport, WorkerError> {
    let _ = (account, spec);
    unimplemented!()
}

/// Who answers at `address` right now (`127.0.0.1:3773`); one short try.
pub async fn describe(account: &Account, address: &str) -> Result<Option<Descriptor>, WorkerError> {
    let _ = (account, address);
    unimplemented!()
}

/// Runs the candidate named by `spec.cli` on the copy whose home directory is `copy_home`, in a sandbox: own network
/// namespace, the copy bound over the user's home, read-only system, limits, deadline.
pub async fn rehearse(
    systemd: &Systemd,
    account: &Account,
    bump: BumpId,
    copy_home: &Path,
    copied: &LiveCopyReport,
    spec: ProbeSpec,
) -> Result<RehearsalReport, RehearsalError> {
    let _ = (systemd, account, bump, copy_home, copied, spec);
    unimplemented!()
}
