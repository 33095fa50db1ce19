//! The rounds: every `watch_interval` all instances are looked at, for as long as they live, and now and then what they stand on.
//!
//! A round is cheap: one table of the kernel's says who listens (no process is started, no server asked), and only who gives
//! cause is asked, besides some of all in turn. What a look means is decided by [`crate::engine::watch`]. Whoever has a bump under way is
//! looked after by that. Drift (something that is not as t3pin left it) is told, never mended unasked.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};

use super::effects::intruder_at;
use super::runs::Run;
use super::{Agent, now_ms};
use crate::api::types::RunOutcome;
use crate::domain::{Instance, UserName, Version};
use crate::engine::rollout::busy;
use crate::engine::watch::{self, CRASHES, Decision, Due, Look, WINDOW_MS, Watched};
use crate::engine::{Bump, Phase};
use crate::health;
use crate::host::{Listeners, global_t3, instances};
use crate::systemd::UnitState;
use crate::versions::Depth;

/// That many instances are asked at a time.
const AT_ONCE: usize = 8;
/// In that many rounds everybody is asked once, also without cause...
const TURNS: usize = 10;
/// ...or in more, where that would be more than so many in one: each costs a process.
const ASKED_IN_TURN: usize = 10;
/// A look at whether something is in flight may take this long; then it cannot be told, which means that something is.
const LOOK: Duration = Duration::from_secs(5);
/// A unit has its own `TimeoutStopSec=` and `TimeoutStartSec=`; this only guards against a stuck systemd.
const JOB: Duration = Duration::from_secs(200);
/// How often the versions in use are looked at.
const SEALS: Duration = Duration::from_secs(3600);

/// What the rounds have seen.
#[derive(Debug, Default)]
pub struct Rounds {
    known: Mutex<BTreeMap<UserName, Known>>,
    seals: Mutex<Seals>,
}

/// What is known of one instance.
#[derive(Debug, Default)]
struct Known {
    watched: Watched,
    /// The run of the unit that was last seen, since when that is known.
    run: Option<(String, Instant)>,
    /// When the unit had how many automatic restarts; the oldest first, within [`WINDOW_MS`].
    crashes: Vec<(Instant, u32)>,
    /// What was said of it in the log.
    told: Option<String>,
}

/// The versions in use, as they were last looked at.
#[derive(Debug, Default)]
struct Seals {
    at: Option<Instant>,
    turn: usize,
    changed: BTreeMap<Version, Vec<String>>,
}

/// What the rounds have to say about one instance.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Nobody can reach it, and what is done about it.
    pub unreachable: Option<String>,
    /// It keeps crashing.
    pub crashing: Option<String>,
}

impl Rounds {
    /// What is known of `user`.
    pub fn seen(&self, user: &UserName) -> Seen {
        let known = self.lock();
        let Some(known) = known.get(user) else { return Seen::default() };
        Seen {
            unreachable: known.watched.trouble.as_ref().map(|trouble| trouble.in_words(&user.unit())),
            crashing: crashing(&known.crashes),
        }
    }

    /// Sealed versions that are not what they were, with what is different.
    pub fn changed_versions(&self) -> BTreeMap<Version, Vec<String>> {
        self.seals().changed.clone()
    }

    /// Takes up what a look at a sealed version found.
    pub fn note_seal(&self, version: &Version, differences: Vec<String>) {
        let mut seals = self.seals();
        if differences.is_empty() {
            seals.changed.remove(version);
            return;
        }
        tracing::error!(
            T3PIN_VERSION = %version,
            "t3 {version} was changed after it was sealed: {}. Whoever is bound to it runs what was never rehearsed; t3pin changes nothing about it",
            differences.join(", ")
        );
        seals.changed.insert(version.clone(), differences);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<UserName, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seals(&self) -> MutexGuard<'_, Seals> {
        self.seals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a unit's automatic restarts are a crash loop.
fn crashing(crashes: &[(Instant, u32)]) -> Option<String> {
    let (first, last) = (crashes.first()?.1, crashes.last()?.1);
    let grown = last.saturating_sub(first);
    (grown >= CRASHES).then(|| format!("the server keeps crashing: {grown} automatic restarts within {} min", WINDOW_MS / 60_000))
}

impl Agent {
    /// One round. On the desk: it may restart somebody.
    pub async fn round(&self) {
        let users = self.users().await;
        self.rounds.lock().retain(|user, _| users.contains(user));
        let listeners = tokio::task::spawn_blocking(Listeners::read).await.map_err(std::io::Error::other).flatten();
        let listeners = listeners.unwrap_or_else(|error| {
            tracing::warn!("who listens on this host cannot be told ({error}); every server is asked in place of that");
            Listeners::default()
        });
        let mut asked = vec![];
        let turns = TURNS.max(users.len().div_ceil(ASKED_IN_TURN));
        let turn = {
            let mut seals = self.rounds.seals();
            seals.turn = (seals.turn + 1) % turns;
            seals.turn
        };
        for (place, user) in users.iter().enumerate() {
            let Some(instance) = self.in_our_care(user) else {
                // Its bump, or somebody's hands, look after it now: nothing that was seen before counts.
                if let Some(known) = self.rounds.lock().get_mut(user) {
                    (known.watched.bad, known.watched.trouble) = (0, None);
                }
                continue;
            };
            let gives_cause =
                !listens(&listeners, &instance) || self.rounds.lock().get(user).is_some_and(|known| known.watched.bad > 0);
            if gives_cause || place % turns == turn {
                asked.push(instance);
            }
        }
        let looks: Vec<_> = asked.iter().map(|instance| self.look_in_on(instance, &listeners)).collect();
        let looks: Vec<(Look, Option<UnitState>)> = stream::iter(looks).buffered(AT_ONCE).collect().await;
        for (instance, (look, unit)) in asked.iter().zip(looks) {
            self.take_up_look(instance, &look, unit.as_ref()).await;
        }
        self.look_at_seals().await;
    }

    /// The instance of `user`, when nobody else looks after it: bound, no bump under way or in its soak, not held.
    fn in_our_care(&self, user: &UserName) -> Option<Instance> {
        let resting = |bump: &Bump| matches!(bump.phase, Phase::Planned | Phase::Ready);
        let bound = self.store.binding(user).ok().flatten().is_some();
        let ours = self.journal.open_bump(user).ok()?.as_ref().is_none_or(resting);
        let held = self.vault.held().map_or(true, |held| held.iter().any(|(whose, _)| whose == user));
        (bound && ours && !held).then(|| instances::of(&self.env, user).ok()).flatten()
    }

    /// One look at one instance, whatever it costs.
    async fn look_in_on(&self, instance: &Instance, listeners: &Listeners) -> (Look, Option<UnitState>) {
        let Ok(unit) = self.systemd.unit(&instance.unit).await else { return (Look::Unclear, None) };
        if unit.active_state != "active" || unit.freezer_state == "frozen" {
            return (Look::Unclear, Some(unit));
        }
        let runs = self.known_run(instance.user(), &unit.invocation_id);
        let answer = health::describe(&instance.place.account, &instance.probe_address()).await;
        let look = match answer {
            Ok(Some(descriptor)) => {
                self.board.saw_running(instance.user(), &unit.invocation_id, descriptor.server_version);
                Look::Well
            }
            Ok(None) => silence(instance, listeners, &unit.control_group, runs).await,
            Err(_) => Look::Unclear,
        };
        (look, Some(unit))
    }

    /// For how long this run of a unit is known.
    fn known_run(&self, user: &UserName, invocation: &str) -> Duration {
        let mut all = self.rounds.lock();
        let known = all.entry(user.clone()).or_default();
        match &known.run {
            Some((seen, since)) if seen == invocation => since.elapsed(),
            _ => {
                known.run = Some((invocation.to_owned(), Instant::now()));
                Duration::ZERO
            }
        }
    }

    async fn take_up_look(&self, instance: &Instance, look: &Look, unit: Option<&UnitState>) {
        let (user, now) = (instance.user(), now_ms());
        // A ledger that cannot be read allows no restart.
        let Ok(restarts) = self.journal.restarts(user) else { return };
        let grace = i64::try_from(self.settings().start_deadline.as_millis()).unwrap_or(i64::MAX).saturating_mul(2);
        let due = {
            let mut all = self.rounds.lock();
            let known = all.entry(user.clone()).or_default();
            known.watched.restarts = restarts;
            if let Some(unit) = unit {
                note_crashes(&mut known.crashes, unit.n_restarts);
            }
            watch::step(&mut known.watched, look, grace, now)
        };
        if due == Due::LookAtActivity
            && let Some(unit) = unit
        {
            let activity = self.activity(&instance.place, &unit.control_group, LOOK).await;
            // Nobody can reach it: what was done there lately is over, and needs no quiet.
            let busy = busy(&activity, now, 0);
            let (decision, restarts) = {
                let mut all = self.rounds.lock();
                let known = all.entry(user.clone()).or_default();
                let decision = watch::decide(&mut known.watched, look, busy, now);
                (decision, known.watched.restarts.clone())
            };
            if let Decision::Restart { reason } = decision {
                self.restart_for(instance, &reason, &restarts, &unit.invocation_id).await;
            }
        }
        self.tell_trouble(user);
    }

    /// Restarts a server that nobody can reach, on the ledger first; not when it was started anew meanwhile.
    async fn restart_for(&self, instance: &Instance, reason: &str, restarts: &watch::Restarts, invocation: &str) {
        let (user, unit) = (instance.user(), instance.unit.as_str());
        if let Err(error) = self.journal.set_restarts(user, restarts) {
            return tracing::error!(T3PIN_USER = %user, "{unit} is not restarted, because that could not be noted: {error}");
        }
        self.mints.none_of(user).await;
        if !self.systemd.unit(unit).await.is_ok_and(|now| now.active_state == "active" && now.invocation_id == invocation) {
            return;
        }
        let nth = restarts.recent(now_ms());
        tracing::warn!(T3PIN_USER = %user, "{reason}; nothing is in flight there, and it is restarted ({nth} of at most {} within half an hour)", watch::RESTARTS);
        match self.systemd.restart(unit, JOB).await {
            Ok(()) => {}
            Err(error) => tracing::error!(T3PIN_USER = %user, "{unit} could not be restarted: {error}"),
        }
    }

    /// One line in the log whenever what is wrong changes.
    fn tell_trouble(&self, user: &UserName) {
        let mut all = self.rounds.lock();
        let Some(known) = all.get_mut(user) else { return };
        let trouble = known.watched.trouble.as_ref().map(|trouble| trouble.in_words(&user.unit()));
        let trouble = trouble.or_else(|| crashing(&known.crashes));
        if known.told == trouble {
            return;
        }
        match &trouble {
            Some(trouble) => tracing::error!(T3PIN_USER = %user, "{user}: {trouble}"),
            None => tracing::info!(T3PIN_USER = %user, "{user}'s server is well again"),
        }
        known.told = trouble;
    }

    /// A glance at the versions in use, when one is due: one after the other, and on a thread that may wait.
    async fn look_at_seals(&self) {
        let due = {
            let mut seals = self.rounds.seals();
            let due = seals.at.is_none_or(|at| at.elapsed() >= SEALS);
            if due {
                seals.at = Some(Instant::now());
            }
            due
        };
        if !due {
            return;
        }
        let users = self.store.bound_users().unwrap_or_default();
        let mut versions: Vec<Version> = users.iter().filter_map(|user| self.store.binding(user).ok().flatten()).collect();
        versions.sort();
        versions.dedup();
        for version in versions {
            let (store, of) = (self.store.clone(), version.clone());
            match tokio::task::spawn_blocking(move || store.verify(&of, Depth::Glance)).await {
                Ok(Ok(differences)) => self.rounds.note_seal(&version, differences),
                Ok(Err(error)) => self.rounds.note_seal(&version, vec![error.to_string()]),
                Err(error) => tracing::error!("a look at t3 {version} has failed: {error}"),
            }
        }
        if let Some(path) = global_t3() {
            let path = path.display();
            tracing::warn!(
                "{path} is in everybody's PATH: who runs it and has a server moves the server's data to its version. Remove it"
            );
        }
    }
}

/// What it means that nobody has answered. `control_group` is the unit's, which is known to run for the time `runs`.
async fn silence(instance: &Instance, listeners: &Listeners, control_group: &str, runs: Duration) -> Look {
    let port = instance.port;
    if let Some(other) = intruder_at(instance, listeners.clone(), control_group).await {
        let reason = format!("the unit runs, but port {port} belongs to {other}, which does not answer as t3 does");
        return Look::Displaced { reason };
    }
    let reason = match listeners.on(port) {
        [] => format!("the unit runs, but nobody listens on port {port}"),
        _ => format!("the unit runs and listens on port {port}, but does not answer"),
    };
    Look::Unreachable { reason, runs_ms: i64::try_from(runs.as_millis()).unwrap_or(i64::MAX) }
}

impl Agent {
    /// Reads `version`, or all that are installed, from end to end.
    pub async fn verify_versions(&self, version: Option<Version>, run: &Run) {
        let installed = match self.store.list() {
            Ok(installed) => installed.into_iter().map(|installed| installed.version).collect(),
            Err(error) => return run.end(RunOutcome::Refused, format!("the version store cannot be read: {error}")),
        };
        let versions: Vec<Version> = version.map_or(installed, |version| vec![version]);
        let (mut whole, mut changed) = (0, vec![]);
        for version in versions {
            run.say(format!("t3 {version} is read"));
            let (store, of) = (self.store.clone(), version.clone());
            let read = tokio::task::spawn_blocking(move || store.verify(&of, Depth::Content)).await;
            match read.map_err(std::io::Error::other).flatten() {
                Ok(differences) => {
                    match differences.is_empty() {
                        true => whole += 1,
                        false => {
                            changed.push(format!("t3 {version} was changed after it was sealed: {}", differences.join(", ")))
                        }
                    }
                    self.rounds.note_seal(&version, differences);
                }
                Err(error) => changed.push(error.to_string()),
            }
        }
        match changed.is_empty() {
            true => run.end(RunOutcome::Done, format!("{whole} version(s) read from end to end: all as they were sealed")),
            false => run.end(RunOutcome::Refused, changed.join(". ")),
        }
    }
}

/// Whether somebody of the instance's listens on its port, and takes up what comes.
fn listens(listeners: &Listeners, instance: &Instance) -> bool {
    listeners.on(instance.port).iter().any(|listener| listener.uid == instance.place.account.uid && listener.backlog == 0)
}

/// Keeps what is needed to tell how much the number has grown lately.
fn note_crashes(crashes: &mut Vec<(Instant, u32)>, restarts: u32) {
    let window = Duration::from_millis(WINDOW_MS.unsigned_abs());
    if crashes.last().is_some_and(|(_, last)| *last > restarts) {
        crashes.clear();
    }
    crashes.retain(|(at, _)| at.elapsed() <= window);
    if crashes.last().is_none_or(|(_, last)| *last != restarts) || crashes.len() < 2 {
        crashes.push((Instant::now(), restarts));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn restarts_that_grow_are_a_crash_loop_until_somebody_starts_it_anew() {
        let mut crashes = vec![];
        for restarts in [7, 7, 7, 8, 9] {
            note_crashes(&mut crashes, restarts);
            assert_eq!(crashing(&crashes), None, "{restarts}: what was before the first look is old");
        }
        note_crashes(&mut crashes, 10);
        assert!(crashing(&crashes).unwrap().contains("3 automatic restarts"));
        note_crashes(&mut crashes, 0);
        assert_eq!(crashing(&crashes), None);
    }
}
