//! Whose fault it is that something could not be done.

use std::io;

use crate::engine::{Blame, Fault};
use crate::state::StateError;
use crate::systemd::SystemdError;
use crate::worker::{TaskErrorKind, WorkerError};

/// systemd did not do it: the host's fault.
pub fn host(error: SystemdError) -> Fault {
    Fault { reason: error.to_string(), blame: Blame::Environment }
}

/// The disk did not do it.
pub fn io_fault(what: &str, error: &io::Error) -> Fault {
    Fault { reason: format!("{what}: {error}"), blame: Blame::Environment }
}

/// Whose fault a trouble with the data is: what lies in the user's hands is the user's, the rest the host's. Never the version's.
pub fn data(error: StateError) -> Fault {
    let blame = match &error {
        StateError::BadPath { .. } | StateError::Held { .. } | StateError::NoSpace { .. } | StateError::Full { .. } => {
            Blame::User
        }
        StateError::Worker(WorkerError::Task(task)) => match task.kind {
            TaskErrorKind::Other => Blame::Environment,
            TaskErrorKind::NoSpace | TaskErrorKind::BadPath | TaskErrorKind::Corrupt | TaskErrorKind::Locked => Blame::User,
        },
        _ => Blame::Environment,
    };
    Fault { reason: error.to_string(), blame }
}

/// The worker could not be asked.
pub fn worker(error: WorkerError) -> Fault {
    Fault { reason: error.to_string(), blame: Blame::Environment }
}
