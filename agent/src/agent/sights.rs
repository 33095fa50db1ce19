//! What was last seen of the instances that wait, and what has moved since: so that nobody is looked at for nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::sweep;
use crate::domain::{Activity, Place, UnixMs, UserName};
use crate::engine::rollout::InstanceView;
use crate::engine::sight::{Sight, next_look, watches, watches_terminals};
use crate::state::{self, Stamp};

/// A look that is due later than this wakes nobody: the desk asks again before.
pub const NEAR_MS: i64 = 30_000;

/// All that was seen.
#[derive(Debug, Default)]
pub struct Sights {
    all: Mutex<BTreeMap<UserName, Seen>>,
    /// Somebody is watched who was not before.
    begun: Notify,
    /// A look has come closer.
    stirred: Notify,
}

/// What was seen of one instance.
#[derive(Debug, Clone)]
pub struct Seen {
    /// As in [`InstanceView`].
    pub stopped: bool,
    /// As in [`InstanceView`].
    pub problem: Option<String>,
    /// As in [`InstanceView`].
    pub rivals: Option<String>,
    /// Activity, when that was looked at.
    pub sight: Option<Sight>,
    /// Where to see whether something moves.
    pub watch: Option<Watch>,
    /// How long quiet has to be, in ms.
    pub quiet_ms: i64,
    /// When something else than activity makes another look due.
    pub until_ms: Option<UnixMs>,
    /// When it was looked.
    pub at_ms: UnixMs,
    /// The bump does not go on before this.
    pub earliest_ms: Option<UnixMs>,
}

/// What is watched of an instance between two looks.
#[derive(Debug, Clone)]
pub struct Watch {
    /// Where its data lies.
    pub place: Place,
    /// Where its processes are.
    pub control_group: String,
    /// How its data looked right before the look; `None` when that could not be told.
    pub stamp: Option<Stamp>,
    /// The inode of its control group: another one is another run of the server.
    pub group: Option<u64>,
    /// Whether its terminals are watched, too.
    pub terminals: bool,
}

/// What one sweep found of an instance.
#[derive(Debug)]
pub struct Found {
    /// As in [`Watch`].
    pub stamp: Option<Stamp>,
    /// As in [`Watch`].
    pub group: Option<u64>,
    /// Whether a job runs in a terminal; `None` when nobody looked.
    pub job: Option<bool>,
}

impl Sights {
    /// Puts what is known onto `view`; false when a look is due, or there never was one.
    pub fn recall(&self, view: &mut InstanceView, now_ms: UnixMs) -> bool {
        let all = self.lock();
        let Some(seen) = all.get(&view.user).filter(|seen| seen.due_ms().is_none_or(|due| now_ms < due)) else { return false };
        view.stopped = seen.stopped;
        view.problem.clone_from(&seen.problem);
        view.rivals.clone_from(&seen.rivals);
        view.activity = seen.sight.as_ref().map(|sight| sight.activity.clone());
        view.busy_until_ms = seen.sight.as_ref().and_then(|sight| sight.busy_until_ms);
        true
    }

    /// Notes a look that was made.
    pub fn note(&self, user: &UserName, mut seen: Seen) {
        let mut all = self.lock();
        if let (Some(old), Some(new)) = (all.get(user).and_then(|old| old.sight.as_ref()), seen.sight.as_mut()) {
            new.busy_until_ms = new.busy_until_ms.max(old.busy_until_ms);
            let again = !matches!(new.activity, Activity::Idle { .. }) && old.activity == new.activity;
            new.tries = if again { old.tries.saturating_add(1) } else { 0 };
        }
        if let (Some(watch), Some(sight)) = (seen.watch.as_mut(), seen.sight.as_mut()) {
            watch.terminals = watches_terminals(sight);
            if watch.terminals {
                sight.busy_until_ms = Some(sight.at_ms);
            }
        }
        all.insert(user.clone(), seen);
        self.begun.notify_one();
    }

    /// Forgets one user: the next survey looks.
    pub fn forget(&self, user: &UserName) {
        // What is known of jobs in terminals stays: their end left no trace.
        if let Some(seen) = self.lock().get_mut(user) {
            seen.until_ms = Some(UnixMs::MIN);
        }
        self.stirred.notify_one();
    }

    /// Notes that `user` was found at work right after a look had said otherwise: the next look is not made at once.
    pub fn doubt(&self, user: &UserName, reason: &str, now_ms: UnixMs) {
        if let Some(sight) = self.lock().get_mut(user).and_then(|seen| seen.sight.as_mut()) {
            sight.activity = Activity::Unknown { why: format!("it was idle, and a moment later: {reason}") };
            (sight.at_ms, sight.moved_ms) = (now_ms, None);
        }
    }

    /// Forgets everybody.
    pub fn forget_all(&self) {
        for seen in self.lock().values_mut() {
            seen.until_ms = Some(UnixMs::MIN);
        }
    }

    /// Does without those for whom nothing is to be done.
    pub fn keep_only(&self, waiting: impl Fn(&UserName) -> bool) {
        self.lock().retain(|user, _| waiting(user));
    }

    /// When the next look is due: whose is, and when.
    pub fn next_due(&self) -> Option<UnixMs> {
        self.lock().values().filter_map(Seen::due_ms).min()
    }

    /// Whose look is due; also everybody's whose last one was later than now, because the clock was set back and tells nothing of
    /// what was computed before.
    pub fn due(&self, now_ms: UnixMs) -> Vec<UserName> {
        let all = self.lock();
        let is_due = |seen: &Seen| seen.at_ms > now_ms || seen.due_ms().is_some_and(|due| due <= now_ms);
        all.iter().filter(|(_, seen)| is_due(seen)).map(|(user, _)| user.clone()).collect()
    }

    /// When one user was last looked at, and before when nothing can come of it, as far as that is known.
    pub fn times(&self, user: &UserName) -> Option<(UnixMs, Option<UnixMs>)> {
        let all = self.lock();
        let seen = all.get(user)?;
        Some((seen.at_ms, seen.earliest_ms))
    }

    /// What else manages a user's server, as far as that was seen.
    pub fn rivals(&self, user: &UserName) -> Option<String> {
        self.lock().get(user)?.rivals.clone()
    }

    /// Whether nobody was looked at yet.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Resolves when a look has come closer than [`NEAR_MS`]; who asks [`Sights::next_due`] that often needs no other call.
    pub async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// Resolves when somebody has been looked at since.
    pub async fn begun(&self) {
        self.begun.notified().await;
    }

    /// What is to be watched.
    pub fn watched(&self) -> Vec<(UserName, Watch)> {
        let all = self.lock();
        all.iter()
            .filter(|(_, seen)| seen.sight.as_ref().is_some_and(watches))
            .filter_map(|(user, seen)| Some((user.clone(), seen.watch.clone()?)))
            .collect()
    }

    /// Takes up what a sweep found.
    pub fn compare(&self, user: &UserName, before: &Watch, found: &Found, now_ms: UnixMs) {
        let mut all = self.lock();
        let Some(seen) = all.get_mut(user) else { return };
        let (Some(watch), Some(sight)) = (&seen.watch, &mut seen.sight) else { return };
        // It has been looked at meanwhile.
        if watch.stamp != before.stamp {
            return;
        }
        if found.group != watch.group {
            seen.until_ms = Some(now_ms);
        }
        if found.job == Some(true) {
            sight.busy_until_ms = Some(now_ms);
        }
        let moved = found.stamp != watch.stamp || (watch.terminals && found.job == Some(false));
        if moved && sight.moved_ms.is_none() {
            sight.moved_ms = Some(now_ms);
        }
        if seen.due_ms().is_some_and(|due| due < now_ms.saturating_add(NEAR_MS)) {
            self.stirred.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<UserName, Seen>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// How an instance is right now.
    pub async fn of(place: Place, control_group: &str) -> Self {
        let (stamp, group) = (state::stamp_soon(&place).await.ok(), sweep::group(control_group));
        Self { place, control_group: control_group.to_owned(), stamp, group, terminals: false }
    }
}

impl Seen {
    fn due_ms(&self) -> Option<UnixMs> {
        let look = self.sight.as_ref().and_then(|sight| next_look(sight, self.quiet_ms));
        look.into_iter().chain(self.until_ms).min()
    }
}
