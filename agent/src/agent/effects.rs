//! Having the engine's actions done by the four works, and reporting back. Every action can be repeated.

use std::time::Duration;

use super::{Agent, now_ms};
use crate::domain::{Activity, Instance, ProbeReport, ProbeStep, StepOutcome, StepRecord, Version, WorkMarks};
use crate::engine::{Action, Blame, Bump, Event, Fault, rollout};
use crate::health;
use crate::state::StateError;
use crate::systemd::{SystemdError, UnitState};
use crate::worker::{Answer, ProbeSpec, Task, TaskErrorKind, WorkerError};

mod rehearse;

/// A look at activity may take this long; then it is unknown, which means busy.
const LOOK: Duration = Duration::from_secs(5);
/// A look while the user's server is frozen may take this long: nobody shall feel it.
const FROZEN_LOOK: Duration = Duration::from_millis(700);
/// Copying, hashing and checking a database of some GB takes minutes, not hours.
const DATA: Duration = Duration::from_secs(3600);
/// How often the unit is looked at while it is probed.
const UNIT_LOOK: Duration = Duration::from_secs(1);
/// That many automatic restarts during one probe are a crash loop.
const RESTARTS: u32 = 2;
/// A unit has its own `TimeoutStopSec=` and `TimeoutStartSec=` (90 s by default); this only guards against a stuck systemd.
const JOB: Duration = Duration::from_secs(200);

impl Agent {
    /// Does `action` for `bump` and says what came of it.
    pub async fn perform(&self, bump: &Bump, action: &Action) -> Event {
        let done = match action {
            Action::Rehearse => self.rehearse(bump).await,
            Action::TakeBaseline => self.baseline(bump).await,
            Action::Seed => self.seed(bump).await,
            Action::Quiesce { force } => self.quiesce(bump, *force).await,
            Action::Secure => self.secure(bump).await,
            Action::Switch => self.switch(bump).await,
            Action::Start { version } => self.start(bump, version).await,
            Action::Verify { version } => self.verify(bump, version).await,
            Action::Archive => self.archive(bump).await,
            Action::Stop => self.stop(bump).await,
            Action::Restore { keep_salvage, unarchive } => self.restore(bump, *keep_salvage, *unarchive).await,
            Action::Tidy => self.tidy(bump).await,
        };
        let event = done.unwrap_or_else(Event::ActionFailed);
        if matches!((action, &event), (Action::Seed | Action::Quiesce { .. }, Event::FoundBusy { .. } | Event::ActionFailed(_))) {
            self.drop_seed(bump).await;
        }
        event
    }

    /// A copy made beside a server that was not stopped after all: it is out of date, and only takes room.
    async fn drop_seed(&self, bump: &Bump) {
        self.vault.discard_seed(bump.id).await;
        if let Err(error) = self.vault.discard_work(&bump.instance.place, bump.id).await {
            tracing::warn!(T3PIN_USER = %bump.instance.user(), T3PIN_BUMP = %bump.id, "the copy could not be removed: {error}");
        }
    }

    async fn baseline(&self, bump: &Bump) -> Result<Event, Fault> {
        let (report, _) = self.probe(bump, &bump.from, Duration::from_secs(10)).await?;
        Ok(Event::BaselineTaken { report })
    }

    /// DESIGN "seeded". What comes of it is of no use when the user has become busy meanwhile: see [`Agent::perform`].
    async fn seed(&self, bump: &Bump) -> Result<Event, Fault> {
        let later = self.vault.seed(&bump.instance.place, bump.id, DATA).await.map_err(data)?;
        if let Some(why) = &later {
            tracing::warn!(
                T3PIN_USER = %bump.instance.user(), T3PIN_BUMP = %bump.id,
                "the data is copied while the server is stopped, which takes longer: {why}"
            );
        }
        Ok(Event::Seeded { later })
    }

    /// DESIGN "quiesced": check, freeze, check again while nothing can move, and stop only if still idle.
    async fn quiesce(&self, bump: &Bump, force: bool) -> Result<Event, Fault> {
        let (place, unit) = (&bump.instance.place, bump.instance.unit.as_str());
        let state = self.systemd.unit(unit).await.map_err(host)?;
        let runs = matches!(state.active_state.as_str(), "active" | "activating" | "reloading" | "deactivating");
        // Going back on an order only asks that no work is lost; going forward also asks for quiet.
        let forward = bump.phase == crate::engine::Phase::Quiesced;
        let quiet = if forward { i64::try_from(self.settings().quiet.as_millis()).unwrap_or(i64::MAX) } else { 0 };
        let busy =
            |activity: Activity| rollout::busy(&activity, now_ms(), quiet).map(|reason| Event::FoundBusy { activity, reason });
        let mut frozen = false;
        if runs && !force {
            if let Some(found) = busy(self.activity(place, &state.control_group, LOOK).await) {
                return Ok(found);
            }
            match self.systemd.freeze(unit).await {
                Ok(()) => frozen = true,
                Err(error) => tracing::warn!(
                    T3PIN_USER = %bump.instance.user(),
                    "{unit} cannot be frozen ({error}): a turn that starts within the next milliseconds would not be seen"
                ),
            }
            if let Some(found) = busy(self.activity(place, &state.control_group, FROZEN_LOOK).await) {
                self.systemd.thaw(unit).await.map_err(host)?;
                return Ok(found);
            }
        }
        let stopped_ms = now_ms();
        let stopped = match self.vault.hold(bump.instance.user(), bump.id) {
            Ok(()) => self.systemd.stop(unit, JOB).await.map_err(host),
            Err(error) => Err(data(error)),
        };
        if frozen && stopped.is_err() {
            self.systemd.thaw(unit).await.map_err(host)?;
        }
        stopped.map(|()| Event::Quiesced { stopped_ms })
    }

    async fn secure(&self, bump: &Bump) -> Result<Event, Fault> {
        let place = &bump.instance.place;
        let secured = self.vault.secure(place, bump.id, &bump.from, now_ms(), DATA).await;
        if secured.is_err()
            && let Err(error) = self.vault.discard_work(place, bump.id).await
        {
            // The old version is started next, and may need the room that a half-made copy takes.
            tracing::warn!(T3PIN_USER = %bump.instance.user(), T3PIN_BUMP = %bump.id, "the copy could not be removed: {error}");
        }
        let (_, snapshot) = secured.map_err(data)?;
        Ok(Event::Secured { snapshot })
    }

    async fn switch(&self, bump: &Bump) -> Result<Event, Fault> {
        self.vault.switch_in(&bump.instance.place, bump.id).await.map_err(data)?;
        self.store.bind(bump.instance.user(), &bump.to).map_err(|e| io(&format!("the binding to {}", bump.to), &e))?;
        Ok(Event::Switched)
    }

    async fn start(&self, bump: &Bump, version: &Version) -> Result<Event, Fault> {
        let unit = bump.instance.unit.as_str();
        let bound = self.store.binding(bump.instance.user()).map_err(|e| io("the binding", &e))?;
        if bound.as_ref() != Some(version) {
            self.store.bind(bump.instance.user(), version).map_err(|e| io(&format!("the binding to {version}"), &e))?;
        }
        self.vault.release(bump.instance.user()).map_err(data)?;
        self.systemd.thaw(unit).await.map_err(host)?;
        match self.systemd.start(unit, JOB).await {
            Ok(()) => Ok(Event::Started),
            Err(error @ SystemdError::Job { .. }) if *version == bump.to => {
                Err(Fault { reason: format!("{version} could not be started: {error}"), blame: Blame::Version })
            }
            Err(error) => Err(host(error)),
        }
    }

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
        Ok(Event::Probed { report, answered_ms, marks })
    }

    async fn archive(&self, bump: &Bump) -> Result<Event, Fault> {
        let (vault, place, id, keep) = (self.vault.clone(), bump.instance.place.clone(), bump.id, self.settings().keep_snapshots);
        let gone = blocking(move || {
            vault.archive(&place, id)?;
            vault.retain(&place.account.user, keep)
        })
        .await?;
        for snapshot in gone {
            tracing::info!(T3PIN_USER = %snapshot.user, "snapshot {} of {} removed by retention", snapshot.id, snapshot.version);
        }
        Ok(Event::Archived)
    }

    async fn stop(&self, bump: &Bump) -> Result<Event, Fault> {
        self.vault.hold(bump.instance.user(), bump.id).map_err(data)?;
        self.systemd.thaw(&bump.instance.unit).await.map_err(host)?;
        self.systemd.stop(&bump.instance.unit, JOB).await.map_err(host)?;
        Ok(Event::Stopped)
    }

    async fn restore(&self, bump: &Bump, keep_salvage: bool, unarchive: bool) -> Result<Event, Fault> {
        self.vault.discard_seed(bump.id).await;
        let place = &bump.instance.place;
        if let (true, Some(snapshot)) = (unarchive, &bump.snapshot) {
            let (vault, place, snapshot) = (self.vault.clone(), place.clone(), snapshot.clone());
            blocking(move || vault.unarchive(&place, &snapshot)).await?;
        }
        let salvage = self.vault.restore(place, bump.id, keep_salvage).await.map_err(data)?;
        self.store.bind(bump.instance.user(), &bump.from).map_err(|e| io(&format!("the binding to {}", bump.from), &e))?;
        Ok(Event::Restored { salvage })
    }

    async fn tidy(&self, bump: &Bump) -> Result<Event, Fault> {
        self.vault.discard_seed(bump.id).await;
        self.vault.release(bump.instance.user()).map_err(data)?;
        self.vault.discard_work(&bump.instance.place, bump.id).await.map_err(data)?;
        Ok(Event::Tidied)
    }

    /// The pairing handshake against `version`, and the unit's steadiness meanwhile.
    pub async fn probe(&self, bump: &Bump, version: &Version, deadline: Duration) -> Result<(ProbeReport, UnitState), Fault> {
        let unit = bump.instance.unit.as_str();
        let before = self.systemd.unit(unit).await.map_err(host)?;
        let known = bump.baseline.as_ref().and_then(|report| report.descriptor.as_ref());
        let expect_environment_id = known.map(|descriptor| descriptor.environment_id.clone());
        let spec = self.probe_spec(&bump.instance, version, deadline, expect_environment_id);
        // A server that keeps crashing keeps touching its database, which a probe takes for a migration at work: it is given up
        // as soon as the unit shows it. Dropping the probe ends its worker.
        let mut report = tokio::select! {
            report = health::probe(&bump.instance.place.account, spec) => report.map_err(worker)?,
            () = self.gives_up(unit, &before) => ProbeReport::default(),
        };
        let after = self.systemd.unit(unit).await.map_err(host)?;
        let outcome = steadiness(&before, &after);
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
            base_dir: instance.place.base_dir.clone(),
            expect_version: version.clone(),
            expect_environment_id: environment_id,
            pair_endpoints: settings.pair_endpoints.clone(),
            dispatch: settings.dispatch_url.clone().map(|url| (url, settings.dispatch_header.clone())),
            request_timeout_ms: ms(settings.request_timeout),
            start_deadline_ms: ms(deadline),
            start_ceiling_ms: ms(settings.start_ceiling.max(deadline)),
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
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(data),
        Err(error) => Err(Fault { reason: format!("the work on the data was broken off: {error}"), blame: Blame::Environment }),
    }
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

/// systemd did not do it: the host's fault.
fn host(error: SystemdError) -> Fault {
    Fault { reason: error.to_string(), blame: Blame::Environment }
}

fn io(what: &str, error: &std::io::Error) -> Fault {
    Fault { reason: format!("{what}: {error}"), blame: Blame::Environment }
}

/// Whose fault a trouble with the data is: what lies in the user's hands is the user's, the rest the host's. Never the version's.
fn data(error: StateError) -> Fault {
    let blame = match &error {
        StateError::BadPath { .. } | StateError::Held { .. } | StateError::NoSpace { .. } => Blame::User,
        StateError::Worker(WorkerError::Task(task)) => match task.kind {
            TaskErrorKind::Other => Blame::Environment,
            TaskErrorKind::NoSpace | TaskErrorKind::BadPath | TaskErrorKind::Corrupt | TaskErrorKind::Locked => Blame::User,
        },
        _ => Blame::Environment,
    };
    Fault { reason: error.to_string(), blame }
}

fn worker(error: WorkerError) -> Fault {
    Fault { reason: error.to_string(), blame: Blame::Environment }
}
