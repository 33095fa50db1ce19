//! Running a sandbox to its end: made, watched, read, and removed in every case.

use std::num::NonZeroUsize;
use std::time::Duration;

use futures_util::StreamExt;
use zbus::{MatchRule, MessageStream, OwnedObjectPath, Variant};

use super::bus::{SERVICE, is_systemd_error, late, refused, within};
use super::sandbox_properties::{Property, properties};
use super::{Sandbox, SandboxEnd, Systemd, SystemdError};

/// No auxiliary units come with ours.
type Auxiliary = Vec<(String, Vec<(String, Variant<'static>)>)>;
/// Name, job mode, properties, auxiliary units.
type Request<'a> = (&'a str, &'static str, Vec<Property>, Auxiliary);
/// Exit statuses from here on are systemd's own (systemd.exec(5), "Process exit codes").
const FIRST_SETUP_STATUS: i32 = 200;
const COLLECT_TRIES: usize = 20;
const COLLECT_PAUSE: Duration = Duration::from_millis(50);
/// systemd ends a sandbox at its deadline; this much later we stop waiting for that.
const GRACE: Duration = Duration::from_secs(30);
/// Making the cage may wait for a busy disk.
const START_DEADLINE: Duration = Duration::from_secs(90);
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Signals wake us; a lost one costs no more than this.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

impl Systemd {
    /// Runs `sandbox` to its end and removes it. Dropping the future, or the deadline, stops it (a deadline is reported as
    /// result `timeout`). When it returns no process of the sandbox is left.
    ///
    /// # Errors
    /// [`SystemdError::Job`] when the cage or the program could not be set up, with systemd's exit status
    /// (systemd.exec(5), "Process exit codes": 203 is the program, 217 the user, 226 the mounts, 243 a credential).
    pub async fn run_sandbox(&self, sandbox: Sandbox) -> Result<SandboxEnd, SystemdError> {
        let (name, deadline) = (sandbox.name.clone(), sandbox.deadline);
        let what = format!("running the sandbox {name}");
        // One of the same name can only be left over from a run that nobody waits for any more.
        self.stop_left_over(&name).await?;
        let guard = Guard { systemd: self.clone(), name: Some(name.clone()) };
        let end = self.run_guarded(&what, sandbox, deadline).await;
        guard.finish(end.is_ok()).await;
        end
    }

    async fn run_guarded(&self, what: &str, sandbox: Sandbox, deadline: Duration) -> Result<SandboxEnd, SystemdError> {
        let name = sandbox.name.clone();
        let mut jobs = self.watch_jobs(what, &name).await?;
        let job: OwnedObjectPath = {
            // Our copies of the descriptors must be closed at the end of this block, or readers never see the end of a pipe.
            let request = (name.as_str(), "fail", properties(sandbox), Auxiliary::new());
            self.start_transient(what, &request).await?
        };
        let path: OwnedObjectPath = self.manager(what, "GetUnit", &(name.as_str(),)).await?;
        let mut changes = self.watch_changes(what, &path).await?;
        match jobs.done(what, &job, START_DEADLINE).await {
            // A program that fails at once can end before systemd has noted its start; that is its own end, read below.
            Err(SystemdError::Job { result, .. }) => {
                let (end, status) = (self.unit_at(what, &path).await?.result, self.main_status(what, &path).await?);
                let own = match end.as_str() {
                    "exit-code" => status < FIRST_SETUP_STATUS,
                    "signal" | "core-dump" | "oom-kill" => true,
                    _ => false,
                };
                if !own {
                    let what = format!("setting up the sandbox {name} (result {end}, status {status})");
                    return Err(SystemdError::Job { what, result });
                }
            }
            other => other?,
        }
        match tokio::time::timeout(deadline + GRACE, self.ended(what, &path, &mut changes)).await {
            Ok(end) => end,
            Err(_) => Err(late(what, deadline)),
        }
    }

    /// A former unit of that name, just stopped, may still wait for systemd to collect it.
    async fn start_transient(&self, what: &str, request: &Request<'_>) -> Result<OwnedObjectPath, SystemdError> {
        for _ in 0..COLLECT_TRIES {
            match self.manager(what, "StartTransientUnit", request).await {
                Err(error) if is_systemd_error(&error, "UnitExists") => tokio::time::sleep(COLLECT_PAUSE).await,
                answer => return answer,
            }
        }
        self.manager(what, "StartTransientUnit", request).await
    }

    async fn ended(&self, what: &str, path: &OwnedObjectPath, changes: &mut MessageStream) -> Result<SandboxEnd, SystemdError> {
        loop {
            let state = self.unit_at(what, path).await?;
            if matches!(state.active_state.as_str(), "inactive" | "failed") {
                return Ok(SandboxEnd { result: state.result, status: self.main_status(what, path).await? });
            }
            match tokio::time::timeout(LOOK_AGAIN, changes.next()).await {
                Ok(Some(Err(source))) => return Err(refused(what, source)),
                Ok(None) => return Err(refused(what, zbus::Error::Failure("the connection to the bus was closed".to_owned()))),
                Ok(Some(Ok(_))) | Err(_) => {}
            }
        }
    }

    async fn watch_changes(&self, what: &str, path: &OwnedObjectPath) -> Result<MessageStream, SystemdError> {
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender(SERVICE)
            .path(path.as_str())
            .interface("org.freedesktop.DBus.Properties")
            .member("PropertiesChanged")
            .build()
            .map_err(|source| refused(what, source))?;
        within(what, STOP_DEADLINE, MessageStream::for_match_rule(rule, &self.connection, NonZeroUsize::new(256))).await
    }

    /// Stops the sandbox if it still runs, and lets systemd forget it.
    async fn remove_sandbox(&self, name: &str) -> Result<(), SystemdError> {
        self.stop(name, STOP_DEADLINE).await?;
        match self.manager(&format!("letting go of {name}"), "UnrefUnit", &(name,)).await {
            // Never made, or gone already: nothing to let go of.
            Err(error) if is_systemd_error(&error, "NoSuchUnit") || is_systemd_error(&error, "NotReferenced") => Ok(()),
            answer => answer,
        }
    }
}

/// Removes the sandbox when the future that runs it is dropped.
struct Guard {
    systemd: Systemd,
    name: Option<String>,
}

impl Guard {
    async fn finish(mut self, ended: bool) {
        let Some(name) = self.name.clone() else { return };
        if let Err(error) = self.systemd.remove_sandbox(&name).await {
            tracing::warn!(unit = name, ended, %error, "a sandbox could not be removed; its own deadline ends it");
        }
        self.name = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (Some(name), Ok(runtime)) = (self.name.take(), tokio::runtime::Handle::try_current()) else { return };
        let systemd = self.systemd.clone();
        runtime.spawn(async move {
            if let Err(error) = systemd.remove_sandbox(&name).await {
                tracing::warn!(unit = name, %error, "an abandoned sandbox could not be stopped; its own deadline ends it");
            }
        });
    }
}
