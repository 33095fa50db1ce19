//! Workers that were killed and do not end.
//!
//! What waits in the kernel for a file system that never answers cannot be killed (FUSE, once its server has taken the request; a dead
//! file server), and any user may mount such a one in place of their data; and what a debugger of theirs holds is not gone before the
//! debugger lets go. So nobody waits for the end of a worker without measure, and while one of a user's is left, no more are started for
//! that user.

use std::time::Duration;

use super::process::Process;
use super::spawn::WorkerError;
use super::tally::Tally;
use crate::domain::UserName;

/// What was killed ends in milliseconds, on a busy host in some seconds.
const END: Duration = Duration::from_secs(5);

/// How many of whose are left.
static LEFT: Tally = Tally::new();

/// [`WorkerError::Lingers`] while one of `user`'s is left.
pub fn refuse(user: &UserName) -> Result<(), WorkerError> {
    if LEFT.has(user) { Err(lingers(user)) } else { Ok(()) }
}

/// What is said when a worker could not be ended.
pub fn lingers(user: &UserName) -> WorkerError {
    WorkerError::Lingers { user: user.to_string() }
}

/// Ends `worker` and what it started, and waits until it has ended: no zombie is kept, and what it had open is closed. False when it did
/// not end in time; it is then watched until it does.
pub async fn end(user: &UserName, mut worker: Process) -> bool {
    worker.kill();
    if tokio::time::timeout(END, worker.ended()).await.is_ok() {
        return true;
    }
    tracing::warn!(T3PIN_USER = %user, "{}", lingers(user));
    let one = LEFT.count(user);
    tokio::spawn(async move {
        worker.ended().await.ok();
        drop(one);
    });
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_started_until_all_have_ended() {
        let (alice, bob) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let (one, other) = (LEFT.count(&alice), LEFT.count(&alice));
        drop(one);
        assert!(matches!(refuse(&alice), Err(WorkerError::Lingers { .. })));
        assert!(refuse(&bob).is_ok(), "another user's are");
        drop(other);
        assert!(refuse(&alice).is_ok());
    }
}
