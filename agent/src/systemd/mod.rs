//! systemd over D-Bus (org.freedesktop.systemd1(5)): units, jobs, the cgroup freezer, transient sandboxes.
//!
//! Every call has a deadline; a bus that does not answer is an error. A bus that is gone is the end of the process: [`Systemd::lost`].
//! Nothing here decides anything.

mod bus;
mod cgroup;
mod freezer;
mod frozen;
mod jobs;
#[cfg(test)]
mod machine_tests;
mod sandbox;
mod sandbox_properties;
mod units;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{OnceCell, watch};

pub use cgroup::{ControlGroup, is_member};
pub use freezer::Freeze;
pub use frozen::{FrozenNotes, release_frozen};

/// A connection to the system's service manager. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Systemd {
    connection: zbus::Connection,
    lost: Arc<watch::Sender<bool>>,
    search_path: Arc<OnceCell<Vec<String>>>,
}

/// Why a call to systemd failed.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// The bus could not be reached or refused the call.
    #[error("systemd refused {what}: {source}")]
    Bus {
        /// What was asked.
        what: String,
        /// Why not.
        source: Box<zbus::Error>,
    },
    /// No answer, or the job did not end, in time.
    #[error("{what} did not end within {seconds} s")]
    Deadline {
        /// What was asked.
        what: String,
        /// The deadline.
        seconds: u64,
    },
    /// The kernel did not do what systemd would not.
    #[error("{what} failed: {source}")]
    Kernel {
        /// What was tried.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The job ended, but not well (`failed`, `timeout`, `dependency`, `canceled`, `skipped`).
    #[error("{what} ended as \"{result}\"")]
    Job {
        /// What was asked.
        what: String,
        /// systemd's word for it.
        result: String,
    },
}

/// What systemd knows about a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitState {
    /// `loaded`, `not-found`, `masked`, ...
    pub load_state: String,
    /// `active`, `inactive`, `failed`, `activating`, `deactivating`, ...
    pub active_state: String,
    /// `running`, `dead`, `auto-restart`, ...
    pub sub_state: String,
    /// 0 when there is none.
    pub main_pid: u32,
    /// Automatic restarts since the last manual start.
    pub n_restarts: u32,
    /// Changes at every start; empty when never started.
    pub invocation_id: String,
    /// Control group, e.g. `/system.slice/system-t3\x2dserve.slice/t3-serve@alice.service`; empty when not running.
    pub control_group: String,
    /// `success`, `exit-code`, `signal`, `oom-kill`, ...
    pub result: String,
    /// The unit file.
    pub fragment_path: String,
    /// Drop-ins.
    pub drop_in_paths: Vec<String>,
    /// `enabled`, `disabled`, ...
    pub unit_file_state: String,
    /// `running`, `frozen`, `freezing`, `thawing`.
    pub freezer_state: String,
}

/// How a service's first `ExecStart=` is written: specifiers are put in, variables are not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartLine {
    /// Program and arguments.
    pub arguments: Vec<String>,
    /// `Environment=`, each `NAME=VALUE`.
    pub environment: Vec<String>,
}

/// A transient service unit used as a sandbox (systemd.exec(5), systemd.service(5)).
#[derive(Debug)]
pub struct Sandbox {
    /// Unit name, ending in `.service`.
    pub name: String,
    /// For `systemctl status` and the journal.
    pub description: String,
    /// Absolute program and arguments, all taken literally. Better without `;`, `$` and `"`: systemd 252 notes those in a way
    /// that is wrong when a daemon-reload falls into the moment before the program starts.
    pub exec: Vec<String>,
    /// `User=`; must be an unprivileged user.
    pub user: String,
    /// `Environment=`.
    pub environment: Vec<(String, String)>,
    /// `WorkingDirectory=`.
    pub working_directory: String,
    /// No network but a fresh loopback (`PrivateNetwork=`).
    pub private_network: bool,
    /// The only paths that can be written (`ReadWritePaths=`).
    pub read_write: Vec<String>,
    /// `BindPaths=`: source, destination.
    pub bind: Vec<(String, String)>,
    /// `LoadCredential=`: id, path.
    pub credentials: Vec<(String, String)>,
    /// `MemoryMax=` in bytes.
    pub memory_max: u64,
    /// `TasksMax=`.
    pub tasks_max: u64,
    /// `RuntimeMaxSec=`: the sandbox ends itself then, even when the agent is gone.
    pub deadline: Duration,
    /// Standard input; closed when `None`.
    pub stdin: Option<OwnedFd>,
    /// Standard output; the journal when `None`.
    pub stdout: Option<OwnedFd>,
    /// Standard error; the journal when `None`.
    pub stderr: Option<OwnedFd>,
}

/// How a sandbox ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxEnd {
    /// systemd's `Result`: `success`, `exit-code`, `signal`, `timeout`, `oom-kill`, ...
    pub result: String,
    /// Exit code, or signal number when killed.
    pub status: i32,
}
