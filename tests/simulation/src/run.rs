//! One schedule from its first round to its last: the agent's lives on the simulated host, one after the other, then a time in which
//! nothing goes wrong any more, and then the promises that are about how it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;

use t3pin::conduct::{self, Host, Ledger};
use t3pin::domain::{Instance, Place, Version, Wait};
use t3pin::engine::bump::cue::Cue;
use t3pin::engine::rollout::{HostView, InstanceView, Next, next};
use t3pin::engine::waits::Rules;
use t3pin::engine::{Bump, Event, Outcome, Phase, Undo};
use t3pin::simulated::{Vault, install};

use crate::host::{Agent, QUIET, ready};
use crate::machine::{Death, Died, Machine};
use crate::promises::{self, Broken};
use crate::schedule::{Order, Schedule};
use crate::t3::RELEASES;

/// Rounds of the agent's in which things go wrong.
const ROUNDS: u32 = 16;
/// Rounds afterwards in which nothing does.
const QUIET_ROUNDS: u32 = 8;
/// Between two rounds, in ms.
const BETWEEN: i64 = 210_000;
/// How long a soak is, in ms.
const SOAK: i64 = 600_000;

/// What came of a schedule.
#[derive(Debug)]
pub struct Seen {
    /// What was broken; empty is good.
    pub broken: Vec<Broken>,
    /// The transitions that were taken.
    pub visited: BTreeSet<(Phase, Cue)>,
    /// How many calls there were.
    pub calls: u64,
    /// What happened, if it was to be written down.
    pub trace: Vec<String>,
}

/// Runs a schedule.
pub fn run(schedule: &Schedule, traced: bool) -> Seen {
    let machine = Machine::new(schedule.stage, &schedule.faults, traced);
    install(Some(machine.clone()));
    let mut story =
        Story { machine: machine.clone(), pin: RELEASES[1].0, round: 0, boots: false, recovers: false, fault_free: false };
    while story.round < ROUNDS {
        story.live(ROUNDS);
    }
    story.heal(schedule.seed.is_multiple_of(2));
    while story.round < ROUNDS + QUIET_ROUNDS {
        story.live(ROUNDS + QUIET_ROUNDS);
    }
    story.lead_out_of_stuck();
    install(None);
    machine.with(|inner| {
        inner.check();
        for result in [promises::verdicts_are_just(inner), promises::ended_sanely(inner), promises::root_was_not_fooled(inner)] {
            if let Err(broken) = result {
                inner.broke(broken.promise, broken.what);
            }
        }
    });
    let trace = machine.take_trace();
    machine.with(|inner| Seen {
        broken: std::mem::take(&mut inner.broken),
        visited: std::mem::take(&mut inner.book.visited),
        calls: inner.calls,
        trace,
    })
}

struct Story {
    machine: Rc<Machine>,
    pin: &'static str,
    round: u32,
    /// After a power cut the servers are still to be started.
    boots: bool,
    /// The agent has died.
    recovers: bool,
    /// Nothing goes wrong any more.
    fault_free: bool,
}

impl Story {
    /// One life of the agent's, up to its death or to the round `until`.
    fn live(&mut self, until: u32) {
        let vault = match Vault::open(Path::new("/var/lib/t3pin")) {
            Ok(vault) => vault,
            Err(error) => return self.give_up(until, &error.to_string()),
        };
        let agent = Agent::new(&self.machine, vault);
        let lived = catch_unwind(AssertUnwindSafe(|| {
            if std::mem::take(&mut self.recovers) {
                self.machine.say(|| "-- the agent starts again".to_owned());
                self.recovers = true;
                ready(conduct::recover(&agent));
                self.recovers = false;
            }
            if std::mem::take(&mut self.boots) {
                self.machine.boot();
            }
            while self.round < until {
                let round = self.round;
                self.round += 1;
                self.machine.begin_round(round);
                self.one_round(&agent);
                self.machine.with(|inner| inner.now_ms += BETWEEN);
            }
        }));
        let Err(payload) = lived else { return };
        self.recovers = true;
        match payload.downcast::<Died>() {
            Ok(died) => {
                self.machine.say(|| format!("-- the agent dies: {:?}", died.0));
                self.boots |= matches!(died.0, Death::PowerCut(_));
                self.machine.after(died.0);
            }
            Err(panic) => {
                let what = panic.downcast_ref::<String>().cloned();
                let what = what.or_else(|| panic.downcast_ref::<&str>().map(|what| (*what).to_owned()));
                self.give_up(until, &format!("the agent panicked: {}", what.unwrap_or_default()));
            }
        }
    }

    fn give_up(&mut self, until: u32, why: &str) {
        self.round = until;
        if let Ok(mut inner) = self.machine.inner.try_borrow_mut() {
            inner.broke(7, why.to_owned());
        }
    }

    /// What the agent does again and again.
    fn one_round(&mut self, agent: &Agent) {
        ready(conduct::take_up(agent));
        for bump in self.bumps(|bump| bump.phase == Phase::Soaking) {
            let look = agent.look_at(&bump);
            ready(conduct::drive(agent, bump, Event::Looked(look), &|_| ()));
        }
        while let Some((user, order)) = self.machine.with(|inner| inner.orders.pop_front()) {
            self.machine.say(|| format!("-- order {order:?} for user {user}"));
            self.follow(agent, user, order);
        }
        if self.machine.with(|inner| inner.stage.twice) && self.round == ROUNDS / 2 {
            self.enforce(RELEASES[2].0);
        }
        self.advance(agent);
        self.forget_force();
    }

    fn bumps(&self, wanted: impl Fn(&Bump) -> bool) -> Vec<Bump> {
        self.machine.with(|inner| inner.book.all().filter(|bump| wanted(bump)).cloned().collect())
    }

    /// A word that work in flight does not count is good for what it was given for.
    fn forget_force(&self) {
        self.machine.with(|inner| {
            for user in &mut inner.users {
                let asked = inner.book.all().any(|bump| {
                    bump.instance.user().as_str() == user.name()
                        && matches!(bump.phase, Phase::RollingBack(Undo::Quiesced { force: true, .. }))
                });
                user.forced &= asked;
            }
        });
    }

    fn enforce(&mut self, pin: &'static str) {
        self.pin = pin;
        self.machine.with(|inner| inner.book.enforced_ms = inner.now_ms);
    }

    fn follow(&mut self, agent: &Agent, user: usize, order: Order) {
        let newest = if self.machine.with(|inner| inner.stage.twice) && self.round > ROUNDS / 2 { 2 } else { 1 };
        match order {
            Order::Rollback => self.take_back(agent, user, false),
            Order::ForcedRollback => self.take_back(agent, user, true),
            Order::Freeze => self.machine.with(|inner| inner.book.frozen = true),
            Order::Thaw => self.machine.with(|inner| inner.book.frozen = false),
            Order::OldPin => self.enforce(RELEASES[0].0),
            Order::NewPin => self.enforce(RELEASES[newest].0),
            Order::NowByForce => self.machine.with(|inner| inner.users[user].forced = true),
            Order::Clear => self.machine.with(|inner| {
                let now_ms = inner.now_ms;
                if let Ok(version) = RELEASES[1].0.parse() {
                    inner.book.clear(&version, now_ms);
                }
            }),
        }
    }

    /// `t3pin rollback`, in the order of the agent's own: the old data out of the archive before anything is stopped.
    fn take_back(&self, agent: &Agent, user: usize, force: bool) {
        let name = self.machine.with(|inner| inner.users[user].account.user.clone());
        let mine = |bump: &Bump| *bump.instance.user() == name;
        for bump in self.bumps(|bump| mine(bump) && matches!(bump.phase, Phase::Planned | Phase::Ready)) {
            let reason = "a rollback was asked for".to_owned();
            ready(conduct::drive(agent, bump, Event::CalledOff { reason }, &|_| ()));
        }
        let open = self.bumps(|bump| mine(bump) && matches!(bump.phase, Phase::Soaking | Phase::Stuck)).pop();
        let bound = self.machine.binding(name.as_str());
        let led_here = |bump: &&Bump| {
            mine(bump)
                && bump.phase == Phase::Closed(Outcome::Done)
                && Some(bump.to.to_string()) == bound
                && bump.snapshot.is_some()
        };
        let Some(bump) = open.or_else(|| self.machine.with(|inner| inner.book.ended().find(led_here).cloned())) else { return };
        if let (true, Some(snapshot)) = (bump.archived, &bump.snapshot)
            && let Err(error) = agent.vault().unarchive(&bump.instance.place, snapshot.id, bump.id)
        {
            self.machine.say(|| format!("   refused: {error}"));
            if bump.phase != Phase::Stuck {
                agent.vault().archive(&bump.instance.place, bump.id).ok();
            }
            return;
        }
        self.machine.with(|inner| inner.users[user].forced |= force);
        let bump = ready(conduct::drive(agent, bump, Event::RollbackAsked { force, reason: "by order".to_owned() }, &|_| ()));
        if bump.phase == Phase::Closed(Outcome::Done) && bump.archived {
            agent.vault().archive(&bump.instance.place, bump.id).ok();
        }
    }

    /// Does what is next until nothing more can be done now.
    fn advance(&self, agent: &Agent) {
        for _ in 0..24 {
            let view = self.survey(agent);
            let bump = |id| self.machine.with(|inner| inner.book.get(id).cloned());
            let (bump, event) = match next(&view) {
                Next::Rest | Next::Install(_) => return,
                Next::Plan { user, from, to, reason } => {
                    let (id, now_ms) = self.machine.with(|inner| (inner.book.new_id(), inner.now_ms));
                    let account =
                        self.machine.with(|inner| inner.users.iter().find(|u| u.account.user == user).map(|u| u.account.clone()));
                    let Some(account) = account else { return };
                    let (unit, place) = (user.unit(), Place::of(account));
                    let instance = Instance { place, unit, host: "127.0.0.1".to_owned(), port: 3773 };
                    let bump = Bump::planned(id, instance, from, to, reason, SOAK, now_ms);
                    if agent.ledger().record(&bump, None, now_ms).is_err() {
                        return;
                    }
                    continue;
                }
                Next::GoAhead(id) => (bump(id), Event::GoAhead),
                Next::PutOff(id, reason, owner) => (bump(id), Event::PutOff { reason, owner }),
                Next::CallOff(id, reason) => (bump(id), Event::CalledOff { reason }),
            };
            let Some(bump) = bump else { return };
            let before = bump.clone();
            let after = ready(conduct::drive(agent, bump, event, &|_| ()));
            if after == before || after.deferral.is_some() {
                return;
            }
        }
    }

    fn survey(&self, agent: &Agent) -> HostView {
        let users = self.machine.with(|inner| inner.users.iter().map(|user| user.deleted).collect::<Vec<_>>());
        let activities: BTreeMap<usize, _> =
            users.iter().enumerate().filter(|(_, deleted)| !**deleted).map(|(user, _)| (user, agent.activity(user))).collect();
        self.machine.with(|inner| {
            let wanted: Option<Version> = self.pin.parse().ok();
            let instances = activities.into_iter().filter_map(|(at, activity)| {
                let (user, book) = (&inner.users[at], &inner.book);
                let name = &user.account.user;
                let mine = |bump: &&Bump| bump.instance.user() == name;
                let wanted = wanted.clone()?;
                Some(InstanceView {
                    user: name.clone(),
                    bound: inner.binding(name.as_str()).and_then(|version| version.parse().ok()),
                    stopped: user.unit.server.is_none() && !user.unit.failed,
                    unenforced: false,
                    problem: None,
                    rivals: None,
                    activity: Some(activity),
                    busy_until_ms: None,
                    wait: Wait::default(),
                    calls: false,
                    open: book.all().find(|bump| mine(bump) && !bump.is_closed()).cloned(),
                    last: book.ended().find(mine).cloned(),
                    tried: book.ended().find(|bump| mine(bump) && bump.to == wanted).cloned(),
                    wanted,
                })
            });
            HostView {
                now_ms: inner.now_ms,
                frozen: inner.book.frozen.then(|| "by order".to_owned()),
                installed: RELEASES.iter().filter_map(|(version, _)| version.parse().ok()).collect(),
                quarantine: inner
                    .book
                    .quarantine()
                    .iter()
                    .filter_map(|(version, why)| Some((version.parse().ok()?, why.clone())))
                    .collect(),
                uninstallable: BTreeMap::new(),
                cramped: None,
                cleared: inner.book.cleared.clone(),
                enforced_ms: inner.book.enforced_ms,
                rules: Rules { quiet_ms: QUIET, ..Rules::default() },
                closed: None,
                instances: instances.collect(),
            }
        })
    }

    /// From now on nothing goes wrong; what was broken is whole again. With or without a new life of the agent's.
    fn heal(&mut self, reborn: bool) {
        self.fault_free = true;
        self.recovers |= reborn;
        self.machine.with(|inner| {
            inner.say(|| "-- all is whole again".to_owned());
            inner.forget_faults();
            for user in 0..inner.users.len() {
                inner.home_back(user);
            }
        });
    }

    /// What is stuck was left by something that is mended now: an order leads out of it.
    fn lead_out_of_stuck(&mut self) {
        let Ok(vault) = Vault::open(Path::new("/var/lib/t3pin")) else { return };
        let agent = Agent::new(&self.machine, vault);
        for bump in self.bumps(|bump| bump.phase == Phase::Stuck) {
            let users = |inner: &mut crate::machine::Inner| {
                let user = inner.users.iter().position(|user| user.account.user == *bump.instance.user())?;
                (!inner.users[user].trapped && !inner.users[user].deleted).then_some(user)
            };
            let Some(user) = self.machine.with(users) else { continue };
            self.take_back(&agent, user, true);
            if self.bumps(|now| now.id == bump.id && now.phase == Phase::Stuck).pop().is_some() {
                self.machine.with(|inner| inner.broke(7, format!("{} stays stuck although all is whole", bump.id)));
            }
        }
    }
}
