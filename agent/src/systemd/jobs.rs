//! Starting and stopping units, and waiting for the job without losing its end.

use std::num::NonZeroUsize;
use std::time::Duration;

use futures_util::StreamExt;
use zbus::{MatchRule, MessageStream, OwnedObjectPath};

use super::bus::{MANAGER, MANAGER_INTERFACE, SERVICE, is_systemd_error, late, refused, within};
use super::{Systemd, SystemdError};

/// How long adding a match at the bus may take.
const MATCH_DEADLINE: Duration = Duration::from_secs(25);

impl Systemd {
    /// Starts `unit` and waits for the job. A unit that already runs is left alone. Clears a start limit first
    /// (`ResetFailedUnit`).
    pub async fn start(&self, unit: &str, deadline: Duration) -> Result<(), SystemdError> {
        // ResetFailedUnit also sets NRestarts to 0, which would blind whoever watches a unit that runs.
        if !matches!(self.unit(unit).await?.active_state.as_str(), "active" | "reloading") {
            self.reset_failed(unit).await?;
        }
        self.activate(unit, deadline).await
    }

    /// Starts a unit that need not be a service (a timer), and waits for the job.
    pub async fn activate(&self, unit: &str, deadline: Duration) -> Result<(), SystemdError> {
        let what = format!("starting {unit}");
        let mut jobs = self.watch_jobs(&what, unit).await?;
        let job: OwnedObjectPath = self.manager(&what, "StartUnit", &(unit, "replace")).await?;
        jobs.done(&what, &job, deadline).await
    }

    /// Restarts `unit` and waits for the job; one that does not run (any more) is left alone. One order: whoever gave it may die.
    pub async fn restart(&self, unit: &str, deadline: Duration) -> Result<(), SystemdError> {
        let what = format!("restarting {unit}");
        let mut jobs = self.watch_jobs(&what, unit).await?;
        let job: OwnedObjectPath = self.manager(&what, "TryRestartUnit", &(unit, "replace")).await?;
        jobs.done(&what, &job, deadline).await
    }

    /// Stops `unit` and waits for the job. A unit that does not run is fine. Works on a frozen unit (systemd thaws it).
    pub async fn stop(&self, unit: &str, deadline: Duration) -> Result<(), SystemdError> {
        match self.ready_to_stop(unit).await?.order().await? {
            Some(stopping) => stopping.done(deadline).await,
            None => Ok(()),
        }
    }

    /// Prepares a stop, so that nothing but the one call is left to do when it has to be quick.
    pub async fn ready_to_stop(&self, unit: &str) -> Result<ReadyToStop, SystemdError> {
        let what = format!("stopping {unit}");
        let jobs = self.watch_jobs(&what, unit).await?;
        Ok(ReadyToStop { systemd: self.clone(), unit: unit.to_owned(), what, jobs })
    }

    /// Forgets a failure and the start limit. A unit that is not loaded has neither.
    pub(super) async fn reset_failed(&self, unit: &str) -> Result<(), SystemdError> {
        match self.manager(&format!("clearing the failures of {unit}"), "ResetFailedUnit", &(unit,)).await {
            Err(error) if is_systemd_error(&error, "NoSuchUnit") => Ok(()),
            answer => answer,
        }
    }

    /// Begins to listen for ends of jobs of `unit`. Must come before the call that makes the job: a short job's end can
    /// overtake the reply that names it.
    pub(super) async fn watch_jobs(&self, what: &str, unit: &str) -> Result<JobWatch, SystemdError> {
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender(SERVICE)
            .path(MANAGER)
            .interface(MANAGER_INTERFACE)
            .member("JobRemoved")
            .arg(2, unit)
            .build()
            .map_err(|source| refused(what, source))?;
        let queue = NonZeroUsize::new(256);
        let stream = within(what, MATCH_DEADLINE, MessageStream::for_match_rule(rule, &self.connection, queue)).await?;
        Ok(JobWatch { stream })
    }
}

/// A stop that only has to be ordered.
pub struct ReadyToStop {
    systemd: Systemd,
    unit: String,
    what: String,
    jobs: JobWatch,
}

impl ReadyToStop {
    /// Orders it; a frozen unit is thawed by that. `None` when there is no such unit.
    pub async fn order(self) -> Result<Option<Stopping>, SystemdError> {
        match self.systemd.manager(&self.what, "StopUnit", &(self.unit.as_str(), "replace")).await {
            Err(error) if is_systemd_error(&error, "NoSuchUnit") => Ok(None),
            answer => Ok(Some(Stopping { what: self.what, jobs: self.jobs, job: answer? })),
        }
    }
}

/// A stop that was ordered.
pub struct Stopping {
    what: String,
    jobs: JobWatch,
    job: OwnedObjectPath,
}

impl Stopping {
    /// Waits for its end.
    pub async fn done(mut self, deadline: Duration) -> Result<(), SystemdError> {
        self.jobs.done(&self.what, &self.job, deadline).await
    }
}

/// Ends of jobs of one unit, from the moment it was made.
pub(super) struct JobWatch {
    stream: MessageStream,
}

impl JobWatch {
    /// Waits until `job` has ended, and says whether well.
    pub(super) async fn done(&mut self, what: &str, job: &OwnedObjectPath, deadline: Duration) -> Result<(), SystemdError> {
        match tokio::time::timeout(deadline, self.result(what, job)).await {
            Err(_) => Err(late(what, deadline)),
            Ok(Err(error)) => Err(error),
            Ok(Ok(result)) if result == "done" => Ok(()),
            Ok(Ok(result)) => Err(SystemdError::Job { what: what.to_owned(), result }),
        }
    }

    async fn result(&mut self, what: &str, job: &OwnedObjectPath) -> Result<String, SystemdError> {
        while let Some(signal) = self.stream.next().await {
            let signal = signal.map_err(|source| refused(what, source))?;
            let body = signal.body();
            let (_, ended, _, result): (u32, OwnedObjectPath, String, String) =
                body.deserialize().map_err(|source| refused(what, source))?;
            if ended == *job {
                return Ok(result);
            }
        }
        Err(refused(what, zbus::Error::Failure("the connection to the bus was closed".to_owned())))
    }
}
