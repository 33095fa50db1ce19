//! Is this instance busy? Looks as the user (database) and as root (`/proc` of the unit's cgroup).
//!
//! Unreadable, locked, unknown schema, timed out: [`Activity::Unknown`], which counts as busy (promise 4).

mod proc_stat;
mod standstill;
mod terminal;

use std::io;
use std::time::Duration;

use crate::domain::{Activity, BusyReason, Place};
use crate::worker::{self, Answer, Task, WorkerError};

/// See `crate::fuzzing`.
#[cfg(feature = "fuzzing")]
pub fn fuzz_stat(line: &[u8]) {
    proc_stat::parse(line);
}

pub use standstill::{Server, deaf};

/// One look. `control_group` is the unit's (`UnitState::control_group`), for terminal jobs; empty skips them.
/// Never fails: what cannot be told is an answer.
pub async fn look(place: &Place, control_group: &str, deadline: Duration) -> Activity {
    let task = Task::Look { userdata: place.userdata() };
    let database = async {
        match worker::run(&place.account, &task, deadline).await {
            Ok(Answer::Activity(activity)) => activity,
            Ok(_) => Activity::Unknown { why: "the worker answered something else than was asked".to_owned() },
            Err(error) => unknown(&error),
        }
    };
    let (database, jobs) = tokio::join!(database, terminals(control_group, deadline));
    both(database, jobs)
}

/// Somebody posted at an instance, whose second look takes a few ms: what takes time is done before.
#[derive(Debug)]
pub struct Lookout {
    worker: worker::Lookout,
    control_group: String,
}

impl Lookout {
    /// Posts one. `control_group` as for [`look`].
    pub async fn post(place: &Place, control_group: &str) -> Result<Self, WorkerError> {
        Ok(Self { worker: worker::Lookout::post(place).await?, control_group: control_group.to_owned() })
    }

    /// One look within `time`. Never fails: what cannot be told is an answer, and the last one then.
    pub async fn look(&mut self, time: Duration) -> Activity {
        let database = async { self.worker.look(time).await.unwrap_or_else(|error| unknown(&error)) };
        let (database, jobs) = tokio::join!(database, terminals(&self.control_group, time));
        both(database, jobs)
    }
}

fn unknown(error: &WorkerError) -> Activity {
    Activity::Unknown { why: error.to_string() }
}

async fn terminals(control_group: &str, deadline: Duration) -> io::Result<Vec<BusyReason>> {
    if control_group.is_empty() {
        return Ok(Vec::new());
    }
    let group = control_group.to_owned();
    match tokio::time::timeout(deadline, tokio::task::spawn_blocking(move || terminal::jobs(&group))).await {
        Ok(Ok(jobs)) => jobs,
        Ok(Err(error)) => Err(io::Error::other(error)),
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
    }
}

/// The jobs in the terminals of a control group, right now: cheap, and on the caller's own thread. An error means that it
/// cannot be told.
pub fn terminal_jobs(control_group: &str) -> io::Result<Vec<BusyReason>> {
    terminal::jobs(control_group)
}

/// Puts the two looks together: any sign of work is busy, else anything unknown is unknown.
fn both(database: Activity, jobs: io::Result<Vec<BusyReason>>) -> Activity {
    match (database, jobs) {
        (Activity::Busy { mut reasons }, jobs) => {
            reasons.extend(jobs.unwrap_or_default());
            Activity::Busy { reasons }
        }
        (_, Ok(jobs)) if !jobs.is_empty() => Activity::Busy { reasons: jobs },
        (Activity::Idle { .. }, Err(error)) => {
            Activity::Unknown { why: format!("the terminals could not be looked at: {error}") }
        }
        (database, _) => database,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn job() -> BusyReason {
        BusyReason::TerminalJob { command: "make".to_owned() }
    }

    #[test]
    fn a_job_in_a_terminal_is_busy_whatever_the_database_says() {
        let turn = BusyReason::PendingInput { count: 1 };
        let (idle, unknown) = (Activity::Idle { last_activity_ms: None }, Activity::Unknown { why: "x".to_owned() });
        let busy = Activity::Busy { reasons: vec![job()] };
        assert_eq!(both(idle, Ok(vec![job()])), busy);
        assert_eq!(both(unknown, Ok(vec![job()])), busy);
        let reasons = vec![turn.clone(), job()];
        assert_eq!(both(Activity::Busy { reasons: vec![turn] }, Ok(vec![job()])), Activity::Busy { reasons });
    }

    #[test]
    fn terminals_that_cannot_be_seen_are_never_idle() {
        let idle = Activity::Idle { last_activity_ms: Some(1) };
        assert!(matches!(both(idle.clone(), Err(io::Error::other("x"))), Activity::Unknown { .. }));
        assert_eq!(both(idle.clone(), Ok(Vec::new())), idle);
    }
}
