//! What the agent has done by systemd, by servers and by probes, on the simulated host. It stands where the agent's own `effects` stand,
//! and keeps to their order of calls; what is decided, and in which order things are written down and done, is the product's.

use std::io;
use std::rc::Rc;

use t3pin::conduct::{Busy, HandedOver, Host, data, host};
use t3pin::domain::{
    Activity, BusyReason, Descriptor, Paired, ProbeReport, ProbeStep, RehearsalReport, StepOutcome, StepRecord, UnixMs, UserName,
    Version, WorkMarks,
};
use t3pin::engine::waits::Hurry;
use t3pin::engine::{Blame, Bump, Event, Fault, SoakLook, judge};
use t3pin::simulated::{Retention, SystemdError, UnitState, Vault};

use crate::ledger::Books;
use crate::machine::{Inner, Machine};
use crate::promises;
use crate::schedule::HostError;
use crate::t3::{Database, Flaw, level};

/// How long somebody must have been quiet, in ms.
pub const QUIET: i64 = 60_000;

/// One life of the agent.
#[derive(Debug)]
pub struct Agent {
    machine: Rc<Machine>,
    ledger: Books,
    vault: Vault,
}

impl Agent {
    /// A new life.
    pub fn new(machine: &Rc<Machine>, vault: Vault) -> Self {
        Self { machine: machine.clone(), ledger: Books(machine.clone()), vault }
    }

    fn user(&self, name: &UserName) -> usize {
        self.machine.with(|inner| inner.users.iter().position(|user| user.account.user == *name)).unwrap_or_default()
    }

    fn of_unit(&self, unit: &str) -> usize {
        UserName::from_unit(unit).map_or(0, |name| self.user(&name))
    }

    fn systemd(&self, what: impl Fn() -> String) -> Result<(), SystemdError> {
        self.machine.host_call(&what).map_err(|error| match error {
            HostError::UnitFailed => SystemdError::Job { what: what(), result: "failed".to_owned() },
            HostError::Timeout | HostError::Unclear => SystemdError::Deadline { what: what(), seconds: 200 },
        })
    }

    /// A worker that looks at what the user does.
    pub fn activity(&self, user: usize) -> Activity {
        let told = self.machine.host_call(|| format!("look at user {user}"));
        self.machine.with(|inner| {
            let now_ms = inner.now_ms;
            let user = &mut inner.users[user];
            let unreadable = user.unreadable > 0;
            user.unreadable = user.unreadable.saturating_sub(1);
            user.untold = unreadable || told.is_err();
            if user.untold {
                return Activity::Unknown { why: "the database is locked".to_owned() };
            }
            if user.turn {
                let since_ms = Some(now_ms);
                let reasons = vec![BusyReason::Turn { thread: "t".to_owned(), title: None, since_ms, stale: false }];
                return Activity::Busy { reasons };
            }
            Activity::Idle { last_activity_ms: (user.wrote_ms > 0).then_some(user.wrote_ms) }
        })
    }

    /// Stops the unit, as systemd does; whoever orders it must have been allowed to.
    fn stop_now(&self, user: usize) {
        self.machine.with(|inner| {
            if let Err(broken) = promises::may_be_stopped(&inner.users[user]) {
                inner.broke(broken.promise, broken.what);
            }
            inner.stop_unit(user);
        });
    }

    /// The pairing handshake against a live server, with the command line of `version`.
    fn probe(&self, bump: &Bump, version: &Version) -> Result<ProbeReport, Fault> {
        let user = self.user(bump.instance.user());
        let environment = |reason: String| Fault { reason, blame: Blame::Environment };
        let unclear = match self.machine.host_call(|| format!("probe user {user} for {version}")) {
            Ok(()) => false,
            Err(HostError::Unclear) => true,
            Err(error) => return Err(environment(format!("the probe could not be run: {error:?}"))),
        };
        let report = self.machine.with(|inner| {
            if let Some(server) = inner.users[user].unit.server.as_ref()
                && server.version != version.to_string()
            {
                let what = format!("{version}'s command line was used on the data of a running {}", server.version);
                inner.broke(3, what);
            }
            probe(inner, user, version, unclear)
        });
        if report.first_problem().is_none() {
            self.machine.with(|inner| inner.users[user].unit.hand_over());
        }
        Ok(report)
    }

    fn marks(&self, user: usize) -> Option<WorkMarks> {
        self.machine.host_call(|| format!("count the work of user {user}")).ok()?;
        self.machine.with(|inner| {
            let userdata = inner.users[user].userdata();
            let mut database = Database::parse(&inner.disk.content(&format!("{userdata}/state.sqlite"))?)?;
            if let Some(log) = inner.disk.content(&format!("{userdata}/state.sqlite-wal")) {
                database.replay(&log);
            }
            // Whoever is told that there is no new work knows that there is no turn either.
            inner.users[user].untold = false;
            Some(WorkMarks { tables: [("rows".to_owned(), database.rows.len() as i64)].into() })
        })
    }

    /// A look during the soak.
    pub fn look_at(&self, bump: &Bump) -> SoakLook {
        let user = self.user(bump.instance.user());
        let told = self.machine.host_call(|| format!("look at the soak of user {user}"));
        let dim = self.machine.with(|inner| {
            let dim = inner.dim > 0;
            inner.dim = inner.dim.saturating_sub(1);
            dim
        });
        if dim || told.is_err() {
            return SoakLook::Unclear { reason: "systemd does not answer".to_owned() };
        }
        let (bad, unusable) = self.machine.with(|inner| {
            inner.sicken(user);
            let sick = inner.users[user].sick > 0;
            inner.users[user].sick = inner.users[user].sick.saturating_sub(1);
            let answers = inner.users[user].unit.server.as_ref().is_some_and(|server| server.answers);
            let pairs = inner.users[user].unit.server.as_ref().is_some_and(|server| server.pairs);
            (sick || !answers || !pairs, !answers)
        });
        if !bad {
            return SoakLook::Good;
        }
        let now = self.marks(user);
        let new_work = bump.marks.as_ref().zip(now.as_ref()).map(|(then, now)| then.gained(now));
        SoakLook::Bad { reason: "nobody can pair".to_owned(), unusable, new_work }
    }

    fn rehearse_one(&self, bump: &Bump, version: &Version) -> Result<RehearsalReport, Fault> {
        let place = &bump.instance.place;
        let copied = ready(self.vault.copy_live(place, bump.id, std::time::Duration::from_secs(3600))).map_err(data)?;
        let unclear = match self.machine.host_call(|| format!("sandbox for {version}")) {
            Ok(()) => false,
            Err(HostError::Unclear) => true,
            Err(error) => return Err(Fault { reason: format!("no sandbox: {error:?}"), blame: Blame::Environment }),
        };
        Ok(self.machine.with(|inner| {
            let flaw = inner.stage.flaw_of(&version.to_string(), true);
            // What a later release has migrated, an earlier one cannot be used with (T3-CONTRACT section 5).
            let too_new = copied.1.migration_level.is_some_and(|found| found > level(&version.to_string()));
            let step = |step, fails: bool| {
                let outcome = match (unclear, fails) {
                    (true, _) => StepOutcome::Inconclusive { reason: "the host is overloaded".to_owned() },
                    (false, true) => StepOutcome::Failed { reason: format!("{version} {flaw:?}"), contract_moved: false },
                    (false, false) => StepOutcome::Passed,
                };
                StepRecord { step, outcome, ms: 1 }
            };
            let steps = vec![
                step(ProbeStep::Environment, matches!(flaw, Flaw::Crashes | Flaw::Hangs)),
                step(ProbeStep::Version, flaw == Flaw::WrongVersion),
                step(ProbeStep::Exchange, flaw == Flaw::PairingMoved || too_new),
            ];
            RehearsalReport {
                probe: ProbeReport { steps, ..ProbeReport::default() },
                level_before: copied.1.migration_level,
                level_after: Some(level(&version.to_string())),
                start_ms: 1,
                total_ms: 1,
                sessions_lost: 0,
                lost: Paired::default(),
                work_lost: if flaw == Flaw::Wipes { 3 } else { 0 },
                intact: flaw != Flaw::Corrupts,
                output_tail: Vec::new(),
            }
        }))
    }

    fn rehearse_both(&self, bump: &Bump) -> Result<(RehearsalReport, Option<RehearsalReport>), Fault> {
        ready(self.vault.preflight(&bump.instance.place)).map_err(data)?;
        let report = self.rehearse_one(bump, &bump.to)?;
        if !judge::needs_control(&report) {
            return Ok((report, None));
        }
        let control = self.rehearse_one(bump, &bump.from)?;
        Ok((report, Some(control)))
    }
}

/// What a probe of the live server finds.
fn probe(inner: &Inner, user: usize, version: &Version, unclear: bool) -> ProbeReport {
    let unit = &inner.users[user].unit;
    let server = unit.server.as_ref().filter(|_| !unit.frozen);
    let full = inner.disk.free < 1000;
    let mut steps = Vec::new();
    let mut step = |step, good: bool, cannot_tell: bool| {
        let outcome = match (good, cannot_tell) {
            (_, true) => StepOutcome::Inconclusive { reason: "no space left, or overloaded".to_owned() },
            (true, _) => StepOutcome::Passed,
            (false, _) => StepOutcome::Failed { reason: format!("{step:?} of {version} fails"), contract_moved: false },
        };
        steps.push(StepRecord { step, outcome, ms: 1 });
        good && !cannot_tell
    };
    let descriptor = server.filter(|server| server.answers).map(|server| Descriptor {
        server_version: server.says.parse().ok(),
        environment_id: format!("environment-{}", inner.users[user].name()),
    });
    let _ = step(ProbeStep::Unit, server.is_some(), false)
        && step(ProbeStep::Environment, descriptor.is_some(), unclear)
        && step(ProbeStep::Version, server.is_some_and(|server| server.says == version.to_string()), false)
        && step(ProbeStep::Mint, true, full)
        && step(ProbeStep::Exchange, server.is_some_and(|server| server.pairs), false)
        && step(ProbeStep::Dispatch, !inner.stage.proxy_down, false);
    ProbeReport { steps, descriptor, endpoint: None, ms: 1 }
}

/// What is awaited here is always there: nothing in the simulation waits.
pub fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}

impl Host for Agent {
    type Ledger = Books;

    fn ledger(&self) -> &Books {
        &self.ledger
    }

    fn vault(&self) -> &Vault {
        &self.vault
    }

    fn now_ms(&self) -> UnixMs {
        self.machine.with(|inner| inner.now_ms)
    }

    fn note_doing(&self, bump: &Bump) {
        self.machine.with(|inner| {
            if let Err(broken) = promises::nothing_spreads(&inner.book, bump) {
                inner.broke(broken.promise, broken.what);
            }
        });
    }

    async fn unit(&self, unit: &str) -> Result<UnitState, SystemdError> {
        self.systemd(|| format!("state of {unit}"))?;
        let user = self.of_unit(unit);
        Ok(self.machine.with(|inner| {
            let unit = &inner.users[user].unit;
            UnitState {
                load_state: "loaded".to_owned(),
                active_state: match (&unit.server, unit.failed) {
                    (Some(_), _) => "active",
                    (None, true) => "failed",
                    (None, false) => "inactive",
                }
                .to_owned(),
                main_pid: u32::from(unit.server.is_some()),
                n_restarts: unit.restarts,
                invocation_id: unit.invocation.to_string(),
                control_group: format!("/t3/{user}"),
                ..UnitState::default()
            }
        }))
    }

    async fn hand_over(&self, bump: &Bump, _state: &UnitState, busy: Busy<'_>) -> Result<HandedOver, Fault> {
        let (user, name) = (self.user(bump.instance.user()), bump.instance.user());
        let activity = self.activity(user);
        if let Some(reason) = busy(&activity, self.now_ms()) {
            return Ok(HandedOver::Busy { activity, reason });
        }
        self.vault.hold(name, bump.id).map_err(data)?;
        self.systemd(|| format!("freeze user {user}")).map_err(host)?;
        self.machine.with(|inner| inner.users[user].unit.frozen = inner.users[user].unit.server.is_some());
        let activity = self.activity(user);
        if let Some(reason) = busy(&activity, self.now_ms()) {
            self.machine.with(|inner| inner.users[user].unit.thaw());
            self.vault.release(name).map_err(data)?;
            return Ok(HandedOver::Busy { activity, reason });
        }
        let stopped = self.systemd(|| format!("stop user {user}, which stands still"));
        self.machine.with(|inner| inner.users[user].unit.thaw());
        stopped.map_err(host)?;
        let at_ms = self.now_ms();
        self.stop_now(user);
        Ok(HandedOver::Stopped { at_ms, still_ms: Some(1) })
    }

    async fn thaw(&self, unit: &str) -> Result<(), SystemdError> {
        let user = self.of_unit(unit);
        self.machine.with(|inner| inner.users[user].unit.thaw());
        Ok(())
    }

    async fn start(&self, unit: &str) -> Result<(), SystemdError> {
        let user = self.of_unit(unit);
        self.systemd(|| format!("start user {user}"))?;
        let started = self.machine.with(|inner| inner.start_unit(user));
        started.map_err(|_| SystemdError::Job { what: format!("starting {unit}"), result: "failed".to_owned() })
    }

    async fn stop(&self, unit: &str) -> Result<(), SystemdError> {
        let user = self.of_unit(unit);
        self.systemd(|| format!("stop user {user}"))?;
        self.stop_now(user);
        Ok(())
    }

    fn binding(&self, user: &UserName) -> io::Result<Option<Version>> {
        Ok(self.machine.binding(user.as_str()).and_then(|version| version.parse().ok()))
    }

    fn bind(&self, user: &UserName, version: &Version) -> io::Result<()> {
        Ok(self.machine.bind(user.as_str(), &version.to_string())?)
    }

    fn quiet_ms(&self) -> i64 {
        QUIET
    }

    fn hurry(&self, user: &UserName) -> Hurry {
        let user = self.user(user);
        if self.machine.with(|inner| inner.users[user].forced) { Hurry::Force } else { Hurry::None }
    }

    fn retention(&self) -> Retention {
        Retention { keep: self.machine.with(|inner| inner.stage.keep), max_age: None, max_bytes: None }
    }

    async fn rehearse(&self, bump: &Bump) -> Result<Event, Fault> {
        let rehearsed = self.rehearse_both(bump);
        self.vault.discard_work(&bump.instance.place, bump.id).await.ok();
        let (report, control) = rehearsed?;
        Ok(Event::Rehearsed { report: Box::new(report), control: control.map(Box::new) })
    }

    async fn paired(&self, _: &Bump) -> Option<Paired> {
        None
    }

    async fn take_baseline(&self, bump: &Bump) -> Result<Event, Fault> {
        Ok(Event::BaselineTaken { report: self.probe(bump, &bump.from)? })
    }

    async fn verify(&self, bump: &Bump, version: &Version) -> Result<Event, Fault> {
        let user = self.user(bump.instance.user());
        let report = self.probe(bump, version)?;
        let answered_ms = report.passed(ProbeStep::Environment).then(|| self.now_ms());
        let marks = if *version == bump.to { self.marks(user) } else { None };
        Ok(Event::Probed { report, answered_ms, marks, lost: None })
    }
}

impl Inner {
    /// What only shows after a while.
    fn sicken(&mut self, user: usize) {
        let Some(server) = self.users[user].unit.server.as_mut() else { return };
        match self.stage.flaw_of(&server.version, false) {
            Flaw::DiesLater => self.crash_server(user),
            Flaw::FailsLater => server.pairs = false,
            _ => {}
        }
    }
}
