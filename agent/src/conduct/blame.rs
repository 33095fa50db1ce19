//! Whose fault it is that something could not be done.

use std::io;

use crate::engine::{Blame, Fault};
use crate::state::StateError;
use crate::systemd::SystemdError;
use crate::worker::files::is_of_the_name;
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
        StateError::BadPath { .. }
        | StateError::Held { .. }
        | StateError::NoSpace { .. }
        | StateError::Full { .. }
        | StateError::Mismatch { .. }
        | StateError::Hangs { .. } => Blame::User,
        StateError::Io { source, .. } if is_of_the_name(source) => Blame::User,
        StateError::Io { .. } => Blame::Environment,
        StateError::Worker(error) => of_worker(error),
    };
    Fault { reason: error.to_string(), blame }
}

/// The worker did not do it.
pub fn worker(error: WorkerError) -> Fault {
    Fault { reason: error.to_string(), blame: of_worker(&error) }
}

/// A worker has the user's ids. That it was ended, stands still or waits for a file system may be that user's doing, and holds up nobody
/// else.
fn of_worker(error: &WorkerError) -> Blame {
    match error {
        WorkerError::Io { .. } => Blame::Environment,
        WorkerError::Task(task) if task.kind == TaskErrorKind::Other => Blame::Environment,
        WorkerError::Task(_)
        | WorkerError::Deadline { .. }
        | WorkerError::Late { .. }
        | WorkerError::Nonsense { .. }
        | WorkerError::Stalled { .. }
        | WorkerError::Lingers { .. } => Blame::User,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::worker::files::FileError;

    #[test]
    fn what_a_user_does_to_their_files_and_workers_is_the_users_fault() {
        let user = || "alice".to_owned();
        let failed = |kind: io::ErrorKind| FileError::Io { context: "opening x".to_owned(), source: kind.into() };
        for error in [
            WorkerError::Nonsense { user: user(), what: "signal: 9 (SIGKILL)".to_owned() },
            WorkerError::Deadline { user: user(), seconds: 5 },
            WorkerError::Lingers { user: user() },
            WorkerError::Task(failed(io::ErrorKind::PermissionDenied).into()),
        ] {
            assert_eq!(data(StateError::from(error)).blame, Blame::User);
        }
        assert_eq!(data(failed(io::ErrorKind::NotFound).into()).blame, Blame::User);
        let broken = || FileError::Io { context: "reading x".to_owned(), source: io::Error::from_raw_os_error(5) };
        assert_eq!(data(broken().into()).blame, Blame::Environment, "EIO is the disk's");
        assert_eq!(worker(WorkerError::Task(broken().into())).blame, Blame::Environment);
        let unreachable = WorkerError::Io { user: user(), source: io::ErrorKind::ConnectionRefused.into() };
        assert_eq!(worker(unreachable).blame, Blame::Environment);
    }
}
