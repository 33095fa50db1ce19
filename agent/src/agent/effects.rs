//! What the agent does for [`conduct`]: the four works and the two means, each call by itself. Every one can be repeated.

use std::time::Duration;

use super::{Agent, drive, now_ms};
use crate::conduct::{self, Busy, HandedOver, data, host, worker};
use crate::domain::{
    Instance, Paired, PairedLook, Place, ProbeReport, ProbeStep, StepOutcome, StepRecord, UnixMs, UserName, Version, WorkMarks,
};
use crate::engine::waits::Hurry;
use crate::engine::{Bump, Event, Fault};
use crate::health;
use crate::host::{Intruder, Listeners, intruder, killed_for_memory};
use crate::journal::Journal;
use crate::state::{StateError, Vault};
use crate::systemd::{ControlGroup, SystemdError, UnitState, is_member};
use crate::worker::{Answer, ProbeSpec, Task};

mod hand_over;
mod rehearse;

/// A look at activity may take this long; then it is unknown, which means busy.
const LOOK: Duration = Duration::from_secs(5);
/// How often the unit is looked at while it is probed.
const UNIT_LOOK: Duration = Duration::from_secs(1);
/// That many automatic restarts during one probe are a crash loop.
const RESTARTS: u32 = 2;
/// A unit has its own `TimeoutStopSec=` and `TimeoutStartSec=` (90 s by default); this only guards against a stuck systemd.
const JOB: Duration = Duration::from_secs(200);

impl conduct::Host for Agent {
    type Ledger = Journal;

    fn ledger(&self) -> &Journal {
        &self.journal
    }

    fn vault(&self) -> &Vault {
        &self.vault
    }

    fn now_ms(&self) -> UnixMs {
        now_ms()
    }

    fn note_doing(&self, bump: &Bump) {
        self.board.set_doing(drive::doing(bump), format!("{}: {}", bump.instance.user(), drive::words(bump)));
    }

    async fn unit(&self, unit: &str) -> Result<UnitState, SystemdError> {
        self.systemd.unit(unit).await
    }

    async fn hand_over(&self, bump: &Bump, state: &UnitState, busy: Busy<'_>) -> Result<HandedOver, Fault> {
        self.hand_over(bump, state, busy).await
    }

    async fn thaw(&self, unit: &str) -> Result<(), SystemdError> {
        self.systemd.thaw(unit).await
    }

    async fn start(&self, unit: &str) -> Result<(), SystemdError> {
        self.systemd.start(unit, JOB).await
    }

    async fn stop(&self, unit: &str) -> Result<(), SystemdError> {
        if let Some(user) = UserName::from_unit(unit) {
            self.mints.none_of(&user).await;
        }
        self.systemd.stop(unit, JOB).await
    }

    fn binding(&self, user: &UserName) -> std::io::Result<Option<Version>> {
        self.store.binding(user)
    }

    fn bind(&self, user: &UserName, version: &Version) -> std::io::Result<()> {
        self.store.bind(user, version)
    }

    fn quiet_ms(&self) -> i64 {
        i64::try_from(self.settings().quiet.as_millis()).unwrap_or(i64::MAX)
    }

    fn hurry(&self, user: &UserName) -> Hurry {
        self.hurry(user)
    }

    fn retention(&self) -> crate::state::Retention {
        let settings = self.settings();
        crate::state::Retention {
            keep: settings.keep_snapshots,
            max_age: settings.snapshots_max_age,
            max_bytes: settings.snapshots_max_bytes,
        }
    }

    async fn rehearse(&self, bump: &Bump) -> Result<Event, Fault> {
        self.rehearse(bump).await
    }

    async fn paired(&self, bump: &Bump) -> Option<Paired> {
        // What was used of the links that were handed out is known to this database and maybe to none after it.
        let user = bump.instance.user();
        self.mints.none_of(user).await;
        self.note_used(user, &bump.instance.place).await;
        Some(self.paired(&bump.instance.place, vec![], vec![], LOOK).await?.live)
    }

    async fn take_baseline(&self, bump: &Bump) -> Result<Event, Fault> {
        // Days may lie between the rehearsal and this. What it does not find in memory the start reads from the disk, as ever.
        let (store, to) = (self.store.clone(), bump.to.clone());
        tokio::task::spawn_blocking(move || match store.warm(&to) {
            Ok(bytes) => tracing::debug!(T3PIN_VERSION = %to, "{} MB of t3 {to} are read ahead", bytes / 1_000_000),
            Err(error) => tracing::debug!(T3PIN_VERSION = %to, "t3 {to} is not read ahead: {error}"),
        });
        let (report, _) = self.probe(bump, &bump.from, Duration::from_secs(10)).await?;
        Ok(Event::BaselineTaken { report })
    }

    async fn verify(&self, bump: &Bump, version: &Version) -> Result<Event, Fault> {
        self.verify(bump, version).await
    }
}

impl Agent {
    async fn verify(&self, bump: &Bump, version: &Version) -> Result<Event, Fault> {
        let begun = now_ms();
        let (report, state) = self.probe(bump, version, self.settings().start_deadline).await?;
        let answered_ms = report
            .steps
            .iter()
            .find(|record| record.step == ProbeStep::Environment && record.outcome == StepOutcome::Passed)
            .map(|record| begun.saturating_add_unsigned(record.ms));
        let answered = report.descriptor.as_ref().and_then(|descriptor| descriptor.server_version.clone());
        self.board.saw_running(bump.instance.user(), &state.invocation_id, answered);
        let marks = if *version == bump.to { self.marks(bump).await } else { None };
        let lost = match (&bump.paired, *version == bump.to) {
            (Some(before), true) => {
                let now = self.paired(&bump.instance.place, before.sessions(), vec![], LOOK).await;
                now.map(|now| before.lost(&now))
            }
            _ => None,
        };
        Ok(Event::Probed { report, answered_ms, marks, lost })
    }

    /// The pairing handshake against `version`, and the unit's steadiness meanwhile.
    pub async fn probe(&self, bump: &Bump, version: &Version, deadline: Duration) -> Result<(ProbeReport, UnitState), Fault> {
        let unit = bump.instance.unit.as_str();
        let (killed, before) = (killed_for_memory(), self.systemd.unit(unit).await.map_err(host)?);
        let known = bump.baseline.as_ref().and_then(|report| report.descriptor.as_ref());
        let expect_environment_id = known.map(|descriptor| descriptor.environment_id.clone());
        let mut spec = self.probe_spec(&bump.instance, version, deadline, expect_environment_id);
        spec.control_group = ControlGroup::named(&before.control_group).ok().map(|group| group.directory().to_owned());
        // A server that keeps crashing keeps touching its database, which a probe takes for a migration at work: it is given up
        // as soon as the unit shows it. Dropping the probe ends its worker.
        let mut report = tokio::select! {
            report = health::probe(&bump.instance.place.account, spec) => report.map_err(worker)?,
            () = self.gives_up(unit, &before) => ProbeReport::default(),
        };
        let after = self.systemd.unit(unit).await.map_err(host)?;
        let steady = steadiness(&before, &after);
        let outcome = if steady == StepOutcome::Passed && report.first_problem().is_none() {
            steady
        } else {
            let intruder = Listeners::read().ok();
            let intruder = match intruder {
                Some(listeners) => intruder_at(&bump.instance, listeners, &after.control_group).await,
                None => None,
            };
            let killed = killed_for_memory() > killed && killed.is_some();
            of_host(bump.instance.port, intruder.as_ref(), killed && steady != StepOutcome::Passed).unwrap_or(steady)
        };
        // First in line: a server that keeps restarting is the cause of whatever else went wrong.
        report.steps.insert(0, StepRecord { step: ProbeStep::Unit, outcome, ms: 0 });
        Ok((report, after))
    }

    /// Resolves when `unit` has ended for good, or has been restarted more often than a slow start can explain.
    async fn gives_up(&self, unit: &str, before: &UnitState) {
        loop {
            tokio::time::sleep(UNIT_LOOK).await;
            let Ok(now) = self.systemd.unit(unit).await else { continue };
            let ended = matches!(now.active_state.as_str(), "failed" | "inactive");
            if ended || now.n_restarts >= before.n_restarts.saturating_add(RESTARTS) {
                return;
            }
        }
    }

    /// What a probe of `instance` needs to know.
    pub fn probe_spec(
        &self,
        instance: &Instance,
        version: &Version,
        deadline: Duration,
        environment_id: Option<String>,
    ) -> ProbeSpec {
        let settings = self.settings();
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        ProbeSpec {
            address: instance.probe_address(),
            cli: self.store.cli(version),
            node: settings.node.clone(),
            base_dir: instance.place.base_dir.clone(),
            expect_version: version.clone(),
            expect_environment_id: environment_id,
            pair_endpoints: settings.pair_endpoints.clone(),
            dispatch: settings.dispatch_url.clone().map(|url| (url, settings.dispatch_header.clone())),
            request_timeout_ms: ms(settings.request_timeout),
            start_deadline_ms: ms(deadline),
            start_ceiling_ms: ms(settings.start_ceiling.max(deadline)),
            control_group: None,
        }
    }

    /// Who is paired, which of `sessions` live and which of `links` were used; `None` when it cannot be told.
    pub async fn paired(&self, place: &Place, sessions: Vec<String>, links: Vec<String>, time: Duration) -> Option<PairedLook> {
        let task = Task::Paired { userdata: place.userdata(), sessions, links };
        match crate::worker::run(&place.account, &task, time).await {
            Ok(Answer::Paired(look)) => Some(look),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(T3PIN_USER = %place.account.user, "who is paired with {}'s server could not be told: {error}", place.account.user);
                None
            }
        }
    }

    /// How much work the user's data holds; `None` when it cannot be told.
    pub async fn marks(&self, bump: &Bump) -> Option<WorkMarks> {
        let place = &bump.instance.place;
        match crate::worker::run(&place.account, &Task::Marks { userdata: place.userdata() }, LOOK).await {
            Ok(Answer::Marks { marks, .. }) => Some(marks),
            other => {
                tracing::warn!(T3PIN_USER = %bump.instance.user(), "how much work the data holds could not be told: {other:?}");
                None
            }
        }
    }
}

/// Reads and writes of a user's whole data take their time: not on the threads that answer the socket.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StateError> + Send + 'static,
) -> Result<T, Fault> {
    crate::state::blocking(work).await.map_err(data)
}

/// Who else than the server has its port. `control_group` is the unit's.
pub(super) async fn intruder_at(instance: &Instance, listeners: Listeners, control_group: &str) -> Option<Intruder> {
    let (instance, group) = (instance.clone(), control_group.to_owned());
    let look = move || intruder(&listeners, &instance, |pid| is_member(pid, &group));
    tokio::task::spawn_blocking(look).await.ok().flatten()
}

/// What of the host explains a server that does not do well, whatever its version: somebody else has its port, or it has ended while
/// the kernel killed for memory.
fn of_host(port: u16, intruder: Option<&Intruder>, ended_for_memory: bool) -> Option<StepOutcome> {
    let reason = match intruder {
        Some(intruder) => format!("port {port} belongs to {intruder}"),
        None if ended_for_memory => "the server ended, and the kernel has killed for memory meanwhile".to_owned(),
        None => return None,
    };
    Some(StepOutcome::Inconclusive { reason })
}

/// Whether the unit ran through the probe without a restart.
fn steadiness(before: &UnitState, after: &UnitState) -> StepOutcome {
    let failed = |reason: String| StepOutcome::Failed { reason, contract_moved: false };
    if after.active_state != "active" {
        return failed(format!("the unit is {} ({}, {})", after.active_state, after.sub_state, after.result));
    }
    if after.n_restarts > before.n_restarts || after.invocation_id != before.invocation_id {
        return failed(format!(
            "the server restarts again and again ({} restarts; last result {})",
            after.n_restarts, after.result
        ));
    }
    StepOutcome::Passed
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::domain::{BumpId, Verdict};
    use crate::engine::bump::sample;
    use crate::engine::judge::verdict;

    #[test]
    fn what_of_the_host_explains_a_failure_condemns_nobody() {
        let step = |step, outcome| StepRecord { step, outcome, ms: 0 };
        let failed = || StepOutcome::Failed { reason: "0.0.1 answers".to_owned(), contract_moved: false };
        let before = ProbeReport {
            steps: vec![step(ProbeStep::Unit, StepOutcome::Passed), step(ProbeStep::Version, StepOutcome::Passed)],
            ..ProbeReport::default()
        };
        let seen = |unit| ProbeReport {
            steps: vec![step(ProbeStep::Unit, unit), step(ProbeStep::Version, failed())],
            ..ProbeReport::default()
        };
        assert!(matches!(verdict(Some(&before), &seen(StepOutcome::Passed)), Verdict::Unhealthy { .. }));
        let mut listeners = Listeners::default();
        listeners.take("heading\n 0: 0100007F:0EBD 00000000:0000 0A 0:0 00:0 0 0 0 12 1 0\n");
        let stranger = intruder(&listeners, &sample(BumpId(1), "alice").instance, |_| false);
        for (intruder, killed) in [(stranger.as_ref(), false), (None, true)] {
            let unit = of_host(3773, intruder, killed).unwrap();
            assert!(matches!(verdict(Some(&before), &seen(unit)), Verdict::Inconclusive { .. }), "{intruder:?} {killed}");
        }
        assert_eq!(of_host(3773, None, false), None);
    }
}
