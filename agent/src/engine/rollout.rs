//! Which bump is next, and why the others wait. Pure: the agent gathers a [`HostView`], [`next`] says what to do with it.
//!
//! The rules, in order: a frozen host changes nothing; every version is installed before anybody is rehearsed; **every**
//! user is rehearsed before the first one is touched; then one at a time, the canary first (the least active idle user);
//! the first failure that is the version's or the host's fault stops all others of that version.

use std::collections::{BTreeMap, BTreeSet};

use super::bump::Bump;
use super::fault::Blame;
use super::phase::{Outcome, Phase};
use super::waits::{Hurry, Rules, hurry, waits};
use crate::domain::{Activity, BumpId, BusyReason, Closed, DeferralOwner, UnixMs, UserName, Version, Wait};

/// What the host looks like right now, as far as the decisions need it.
#[derive(Debug, Clone, Default)]
pub struct HostView {
    /// The time.
    pub now_ms: UnixMs,
    /// The operator's freeze, with its reason.
    pub frozen: Option<String>,
    /// Usable versions.
    pub installed: BTreeSet<Version>,
    /// Versions that failed here, with the reason.
    pub quarantine: BTreeMap<Version, String>,
    /// Versions that could not be installed since the last enforcement, with the reason.
    pub uninstallable: BTreeMap<Version, String>,
    /// Why the disks have no room for all that is to be done, as it was last found out; nobody is touched then.
    pub cramped: Option<String>,
    /// When the operator last said that a version may be tried again.
    pub cleared: BTreeMap<Version, UnixMs>,
    /// When the pin was last enforced by order, or a rollout that had stopped was tried again unasked; what failed before then
    /// may be tried again.
    pub enforced_ms: UnixMs,
    /// The operator's rules for waiting.
    pub rules: Rules,
    /// The window, while it is closed.
    pub closed: Option<Closed>,
    /// The instances, sorted by user.
    pub instances: Vec<InstanceView>,
}

impl HostView {
    /// Marks the instance from inside of which the order that is being carried out was given.
    pub fn mark_caller(&mut self, user: Option<&UserName>) {
        for instance in &mut self.instances {
            instance.calls = user == Some(&instance.user);
        }
    }
}

/// One instance.
#[derive(Debug, Clone)]
pub struct InstanceView {
    /// Whose.
    pub user: UserName,
    /// What its binding points to.
    pub bound: Option<Version>,
    /// What it is to run.
    pub wanted: Version,
    /// Whether the unit was stopped by somebody (inactive and not failed).
    pub stopped: bool,
    /// The pin wants something else for it than when it was last enforced by order; nothing is begun unasked.
    pub unenforced: bool,
    /// Why it cannot be bumped at all (no port, foreign settings).
    pub problem: Option<String>,
    /// What else manages it, and how that is resolved; goes on by itself when it is gone.
    pub rivals: Option<String>,
    /// What was last seen of its activity; `None` when nobody looked.
    pub activity: Option<Activity>,
    /// When it was last seen to be at work, as far as that left no trace of its own (a job in a terminal).
    pub busy_until_ms: Option<UnixMs>,
    /// Its wait for the wanted version, and what people said about it.
    pub wait: Wait,
    /// The order that is being carried out was given from inside this instance.
    pub calls: bool,
    /// The bump that is open.
    pub open: Option<Bump>,
    /// The last bump that ended.
    pub last: Option<Bump>,
    /// The last bump to the wanted version that ended: others may have come after it.
    pub tried: Option<Bump>,
}

/// What is decided about one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It runs what it is to run, or is not ours to change.
    Keep(String),
    /// It is to be bumped, and may be now.
    Bump(String),
    /// It is to be bumped as soon as it is idle.
    Defer(String),
    /// It is not to be bumped now: freeze, quarantine, stopped rollout, a soak that is not over.
    HoldBack(String),
    /// It cannot be bumped until somebody changes something.
    Refuse(String),
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Install this version.
    Install(Version),
    /// This resting bump is no longer wanted.
    CallOff(BumpId, String),
    /// Plan a bump for this user.
    Plan {
        /// Whose.
        user: UserName,
        /// Version now.
        from: Version,
        /// Version then.
        to: Version,
        /// Why.
        reason: String,
    },
    /// Let this bump go on: to its rehearsal, or to the user.
    GoAhead(BumpId),
    /// Note that this bump waits: why, and who or what puts it off.
    PutOff(BumpId, String, DeferralOwner),
    /// Nothing more can be done now.
    Rest,
}

/// What is decided about `instance`, ignoring the order among instances.
pub fn decide(view: &HostView, instance: &InstanceView) -> Decision {
    let Some(bound) = &instance.bound else {
        return Decision::Keep(format!("not enrolled; `t3pin enroll {}` takes it over", instance.user));
    };
    if let Some(open) = instance.open.as_ref().filter(|open| !matches!(open.phase, Phase::Planned | Phase::Ready)) {
        return match open.phase {
            Phase::Soaking if open.to == instance.wanted => Decision::Keep(format!("runs {bound}, in its soak")),
            Phase::Soaking => Decision::Defer(format!("the soak of {} is not over", open.to)),
            Phase::Stuck => Decision::Refuse(format!("stuck; see `t3pin history {}`", instance.user)),
            _ => Decision::HoldBack("a bump is under way".to_owned()),
        };
    }
    if *bound == instance.wanted {
        return Decision::Keep(format!("runs {bound}, as pinned"));
    }
    let wanted = &instance.wanted;
    if let Some(problem) = &instance.problem {
        return Decision::Refuse(problem.clone());
    }
    if let Some(rivals) = &instance.rivals {
        return Decision::Refuse(format!(
            "{rivals}. The bump goes on by itself when that is gone; `t3pin unenroll {}` leaves the server to the other manager",
            instance.user
        ));
    }
    if instance.unenforced {
        return Decision::HoldBack("the pin was changed; waits for the next enforcement (`t3pin enforce`)".to_owned());
    }
    if let Some(reason) = &view.frozen {
        return Decision::HoldBack(format!("frozen by the operator: {reason}"));
    }
    if let Some(reason) = view.quarantine.get(wanted) {
        return Decision::HoldBack(format!(
            "{wanted} is quarantined: {}. `t3pin versions clear {wanted}` allows another try",
            reason.trim_end_matches('.')
        ));
    }
    if let Some(reason) = view.uninstallable.get(wanted) {
        return Decision::HoldBack(format!("{wanted} is not installed: {reason}"));
    }
    if let Some(reason) = &view.cramped {
        return Decision::HoldBack(format!(
            "{reason}. It is tried again by itself, ever more rarely; `t3pin enforce` tries at once"
        ));
    }
    if let Some(reason) = stopped_rollout(view, wanted) {
        return Decision::HoldBack(format!(
            "the rollout of {wanted} stopped: {}. It is tried again by itself, ever more rarely; `t3pin enforce` tries at once",
            reason.trim_end_matches('.')
        ));
    }
    if let Some(decision) = last_word(view, instance) {
        return decision;
    }
    if instance.stopped {
        return Decision::Keep(format!(
            "the server is stopped; it is left alone until somebody starts it (systemctl start {})",
            instance.user.unit()
        ));
    }
    let reason = format!("pinned to {wanted}, runs {bound}");
    match waits(view, instance) {
        Some(waits) => Decision::Defer(waits.reason),
        None => Decision::Bump(reason),
    }
}

/// What to do next. Calling it again after doing that leads, step by step, to `Rest`.
pub fn next(view: &HostView) -> Next {
    let decided: Vec<(&InstanceView, Decision)> = view.instances.iter().map(|i| (i, decide(view, i))).collect();
    let due = |decision: &Decision| matches!(decision, Decision::Bump(_) | Decision::Defer(_));
    for (instance, decision) in &decided {
        if let Some(open) = resting(instance)
            && let Some(reason) = outdated(view, instance, open, decision)
        {
            return Next::CallOff(open.id, reason);
        }
    }
    let candidates: Vec<_> = decided.iter().filter(|(_, decision)| due(decision)).collect();
    for (instance, _) in &candidates {
        if !view.installed.contains(&instance.wanted) {
            return Next::Install(instance.wanted.clone());
        }
    }
    for (instance, _) in &candidates {
        match (resting(instance), &instance.bound) {
            (None, Some(from)) if instance.open.is_none() => {
                let (user, to) = (instance.user.clone(), instance.wanted.clone());
                let reason = format!("pinned to {to}, runs {from}");
                return Next::Plan { user, from: from.clone(), to, reason };
            }
            (Some(open), _) if open.phase == Phase::Planned => return Next::GoAhead(open.id),
            _ => {}
        }
    }
    let mut ready: Vec<_> = candidates.iter().filter(|(_, decision)| matches!(decision, Decision::Bump(_))).collect();
    ready.sort_by_key(|(instance, _)| place_in_line(view, instance));
    if let Some(open) = ready.iter().find_map(|(instance, _)| resting(instance)) {
        return Next::GoAhead(open.id);
    }
    for (instance, decision) in &candidates {
        if let (Some(open), Decision::Defer(reason)) = (resting(instance), decision)
            && open.deferral.as_ref().is_none_or(|deferral| deferral.reason != *reason)
        {
            let owner = waits(view, instance).map_or(DeferralOwner::Activity, |waits| waits.owner);
            return Next::PutOff(open.id, reason.clone(), owner);
        }
    }
    Next::Rest
}

/// Whether it is worth another look by and by: what is in the way may go away without anybody's word.
pub fn comes_back(view: &HostView, instance: &InstanceView) -> bool {
    match decide(view, instance) {
        Decision::Defer(_) | Decision::Bump(_) => true,
        Decision::Refuse(_) => instance.rivals.is_some(),
        Decision::Keep(_) | Decision::HoldBack(_) => false,
    }
}

/// When the last of those failures ended that hold somebody up and that another try may mend: a fault of the host's, a rehearsal that could not
/// tell, an install that did not work, no room for all. `None` when there is nothing to try again. Never for a version that is quarantined.
pub fn halted_ms(view: &HostView) -> Option<UnixMs> {
    if view.frozen.is_some() {
        return None;
    }
    view.instances.iter().filter_map(|instance| halted(view, instance)).max()
}

fn halted(view: &HostView, instance: &InstanceView) -> Option<UnixMs> {
    let wanted = &instance.wanted;
    let may_come = instance.bound.as_ref().is_some_and(|bound| bound != wanted) && !instance.unenforced && !instance.stopped;
    if !may_come || instance.problem.is_some() || view.quarantine.contains_key(wanted) {
        return None;
    }
    let all = view.instances.iter().flat_map(|instance| instance.last.iter().chain(&instance.tried));
    let stops = all.filter(|last| last.to == *wanted && stops_rollout(view, last));
    let own = instance.tried.iter().filter(|last| {
        since_enforced(view, last)
            && !cleared_since(view, last)
            && last.fault.as_ref().is_some_and(|fault| fault.blame == Blame::User)
    });
    let failed = stops.chain(own).filter_map(|last| last.ended_ms).max();
    failed.or_else(|| (view.uninstallable.contains_key(wanted) || view.cramped.is_some()).then_some(view.enforced_ms))
}

/// The instances in the order in which they would be bumped: canary first.
pub fn order(view: &HostView) -> Vec<&InstanceView> {
    let mut instances: Vec<_> = view.instances.iter().collect();
    instances.sort_by_key(|instance| place_in_line(view, instance));
    instances
}

/// The one from which the order came is last: whoever gave it may want to see the rest. Who was asked for by name is first.
fn place_in_line(view: &HostView, instance: &InstanceView) -> (bool, std::cmp::Reverse<Hurry>, Option<UnixMs>, UserName) {
    let hurry = hurry(&instance.wait, view.now_ms, &view.rules);
    (instance.calls, std::cmp::Reverse(hurry), last_activity(instance), instance.user.clone())
}

/// Why `activity` keeps an instance from being restarted now; `None` when it is idle and has been quiet for long enough.
/// "Cannot tell" counts as busy (promise 4). The text does not change while nothing changes.
pub fn busy(activity: &Activity, now_ms: UnixMs, quiet_ms: i64) -> Option<String> {
    match activity {
        Activity::Busy { reasons } => Some(reasons.iter().map(in_words).collect::<Vec<_>>().join("; ")),
        Activity::Unknown { why } => Some(format!("cannot tell whether it is busy: {why}")),
        Activity::Idle { last_activity_ms: Some(last) } if lately(*last, now_ms, quiet_ms) => {
            Some(format!("somebody worked here a moment ago; waits for {} of quiet", span(quiet_ms)))
        }
        Activity::Idle { .. } => None,
    }
}

/// Whether somebody worked less than `quiet_ms` ago. A trace from far in the future says nothing: the clock was set back, and
/// nobody shall wait until it is there again.
pub fn lately(last_ms: UnixMs, now_ms: UnixMs, quiet_ms: i64) -> bool {
    now_ms.saturating_sub(last_ms) < quiet_ms && last_ms.saturating_sub(now_ms) <= quiet_ms
}

fn resting(instance: &InstanceView) -> Option<&Bump> {
    instance.open.as_ref().filter(|open| matches!(open.phase, Phase::Planned | Phase::Ready))
}

/// Why a resting bump must not go on: it no longer leads from what is bound to what is wanted, or must not be done.
fn outdated(view: &HostView, instance: &InstanceView, open: &Bump, decision: &Decision) -> Option<String> {
    if instance.wanted != open.to || instance.bound.as_ref() != Some(&open.from) {
        return Some(format!("no longer wanted: the pin is {} now", instance.wanted));
    }
    let forbidden = view.quarantine.contains_key(&open.to) || stopped_rollout(view, &open.to).is_some();
    let age = view.now_ms.saturating_sub(open.planned_ms);
    match decision {
        // The next bump of the same kind rehearses first, and then goes on at once.
        Decision::Bump(_) if open.phase == Phase::Ready && age > view.rules.rehearsal_keeps_ms => {
            Some(format!("its rehearsal is {} old; it is rehearsed again", span(age)))
        }
        Decision::HoldBack(reason) | Decision::Refuse(reason) if forbidden => Some(reason.clone()),
        _ => None,
    }
}

/// Why nobody gets `version` any more until the next enforcement: a bump to it failed for a fault of the host's.
fn stopped_rollout(view: &HostView, version: &Version) -> Option<String> {
    let ended = view.instances.iter().flat_map(|instance| instance.last.iter().chain(&instance.tried));
    ended.filter(|last| last.to == *version && stops_rollout(view, last)).find_map(|last| {
        let fault = last.fault.as_ref()?;
        Some(format!("{} ({})", fault.reason, last.instance.user()))
    })
}

/// Whether a bump that ended stops everybody's until the next try.
fn stops_rollout(view: &HostView, last: &Bump) -> bool {
    since_enforced(view, last) && last.fault.as_ref().is_some_and(|fault| fault.blame == Blame::Environment)
}

/// Whether a bump ended after the last order to enforce. Times in the future are from before the clock was set back, so that
/// neither they nor what is measured by them can hold anybody back until they come round again.
fn since_enforced(view: &HostView, last: &Bump) -> bool {
    let order = if view.enforced_ms > view.now_ms { 0 } else { view.enforced_ms };
    last.ended_ms.is_some_and(|ended| (order..=view.now_ms).contains(&ended))
}

/// Whether the operator allowed the version again after the bump had ended; a word from the future does not count.
fn cleared_since(view: &HostView, last: &Bump) -> bool {
    let cleared = view.cleared.get(&last.to).filter(|at| **at <= view.now_ms);
    let ended = last.ended_ms.filter(|at| *at <= view.now_ms);
    cleared > ended.as_ref()
}

/// What the last bump to the wanted version means for another try.
fn last_word(view: &HostView, instance: &InstanceView) -> Option<Decision> {
    let last = instance.tried.as_ref()?;
    let fault = last.fault.as_ref()?;
    if cleared_since(view, last) {
        return None;
    }
    match (last.phase, fault.blame) {
        (Phase::Closed(Outcome::RolledBack), Blame::Operator) => {
            Some(Decision::HoldBack(format!("{}; `t3pin versions clear {}` allows it again", fault.reason, instance.wanted)))
        }
        (_, Blame::User) if since_enforced(view, last) => Some(Decision::Refuse(fault.reason.clone())),
        _ => None,
    }
}

fn last_activity(instance: &InstanceView) -> Option<UnixMs> {
    match &instance.activity {
        Some(Activity::Idle { last_activity_ms }) => *last_activity_ms,
        _ => Some(UnixMs::MAX),
    }
}

fn in_words(reason: &BusyReason) -> String {
    match reason {
        BusyReason::Turn { thread, title, since_ms, stale } => {
            let thread = match title {
                Some(title) if title != thread => format!("\"{title}\" ({thread})"),
                _ => thread.clone(),
            };
            match since_ms.filter(|_| *stale).and_then(|since| jiff::Timestamp::from_millisecond(since).ok()) {
                Some(since) => format!(
                    "a turn in thread {thread} says that it is in flight, but has not moved since {since:.0}: it is stale, and only --force passes over it"
                ),
                None => format!("a turn is in flight in thread {thread}"),
            }
        }
        BusyReason::PendingApproval { count } => format!("{count} approval(s) wait for the user"),
        BusyReason::PendingInput { count } => format!("{count} question(s) wait for the user"),
        BusyReason::TerminalJob { command } => format!("{command} runs in a terminal"),
        BusyReason::DatabaseOpen { holders } => format!("the database is open in {holders}, which is not the server"),
    }
}

fn span(ms: i64) -> String {
    match ms {
        ms if ms >= 48 * 3_600_000 => format!("{} days", ms / 86_400_000),
        ms if ms >= 60_000 => format!("{} min", ms / 60_000),
        ms => format!("{} s", ms.div_euclid(1000).max(1)),
    }
}

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;
