//! Why a bump that is to be done waits, until when, and what hurries it. Pure.
//!
//! In this order: what people said (an operator's word above the user's), the window, work in flight or not long enough ago.
//! A bump that was put off for too long is escalated: people are told. It is forced only where the operator has said so, and
//! then in steps: shortly before, any moment without work in flight will do; only at the end is work interrupted.

use super::rollout::{HostView, InstanceView, busy, lately};
use crate::domain::{Activity, DeferralOwner, Said, UnixMs, Wait, Word};

/// The part of `force_after`, counted from its end, in which quiet is no longer asked for: one in so many.
const LAST_PART: i64 = 10;

/// The operator's rules for waiting; times in ms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// How long an instance must have been quiet.
    pub quiet_ms: i64,
    /// So long after it began to wait may users put off their own bump.
    pub user_limit_ms: i64,
    /// After so long it is escalated.
    pub escalate_after_ms: i64,
    /// After so long it is done even at work; `None`: never.
    pub force_after_ms: Option<i64>,
    /// A rehearsal older than this is repeated before its bump goes on.
    pub rehearsal_keeps_ms: i64,
}

impl Default for Rules {
    /// No quiet, no limits.
    fn default() -> Self {
        Self {
            quiet_ms: 0,
            user_limit_ms: i64::MAX,
            escalate_after_ms: i64::MAX,
            force_after_ms: None,
            rehearsal_keeps_ms: i64::MAX,
        }
    }
}

/// Why a bump waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// In words. They do not change while nothing changes.
    pub reason: String,
    /// Who or what puts it off.
    pub owner: DeferralOwner,
    /// Before this it does not go on, as far as that is known; work in flight ends when it ends.
    pub until_ms: Option<UnixMs>,
}

/// How much of what usually holds a bump back counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hurry {
    /// All of it.
    None,
    /// Work in flight, but not quiet.
    Idle,
    /// Nothing: work in flight is interrupted.
    Force,
}

/// Why the bump of `instance` waits now; `None` when it may go on. An instance whose activity nobody looked at waits for what
/// else there is.
pub fn waits(view: &HostView, instance: &InstanceView) -> Option<Waits> {
    let (now, rules, wait) = (view.now_ms, &view.rules, &instance.wait);
    if let Some(later) = later(wait, now, rules) {
        return Some(later);
    }
    let asked = asked_now(wait);
    if let (None, Some(closed)) = (asked, &view.closed) {
        return Some(Waits {
            reason: format!("outside of the hours for changes, which begin at {}", closed.opens),
            owner: DeferralOwner::Window,
            until_ms: Some(closed.opens_ms),
        });
    }
    let quiet_ms = match hurry(wait, now, rules) {
        Hurry::None => rules.quiet_ms,
        Hurry::Idle => 0,
        Hurry::Force => return None,
    };
    let activity = instance.activity.as_ref()?;
    let reason = busy(activity, now, quiet_ms).or_else(|| {
        let last = instance.busy_until_ms.filter(|last| lately(*last, now, quiet_ms))?;
        busy(&Activity::Idle { last_activity_ms: Some(last) }, now, quiet_ms)
    })?;
    let until_ms = match activity {
        Activity::Idle { last_activity_ms } => {
            (*last_activity_ms).max(instance.busy_until_ms).map(|last| last.saturating_add(quiet_ms))
        }
        Activity::Busy { .. } | Activity::Unknown { .. } => None,
    };
    Some(Waits { reason, owner: DeferralOwner::Activity, until_ms })
}

/// What hurries a bump at `now_ms`.
pub fn hurry(wait: &Wait, now_ms: UnixMs, rules: &Rules) -> Hurry {
    let asked = match asked_now(wait) {
        Some(true) => Hurry::Force,
        Some(false) => Hurry::Idle,
        None => Hurry::None,
    };
    let overdue = match (wait.since_ms, rules.force_after_ms) {
        (Some(since), Some(after)) if now_ms >= since.saturating_add(after) => Hurry::Force,
        (Some(since), Some(after)) if now_ms >= since.saturating_add(after - after / LAST_PART) => Hurry::Idle,
        _ => Hurry::None,
    };
    asked.max(overdue)
}

/// Until when users may put off their own bump at most.
pub fn user_limit(wait: &Wait, now_ms: UnixMs, rules: &Rules) -> UnixMs {
    wait.since_ms.unwrap_or(now_ms).saturating_add(rules.user_limit_ms)
}

/// Whether operators are to be told now that this takes too long.
pub fn is_overdue(wait: &Wait, now_ms: UnixMs, rules: &Rules) -> bool {
    wait.escalated_ms.is_none() && wait.since_ms.is_some_and(|since| now_ms >= since.saturating_add(rules.escalate_after_ms))
}

/// The next time at which this wait has to be looked at again whatever the instance does, because a rule begins to hold.
pub fn next_rule(wait: &Wait, now_ms: UnixMs, rules: &Rules) -> Option<UnixMs> {
    let since = wait.since_ms?;
    let escalates = wait.escalated_ms.is_none().then(|| since.saturating_add(rules.escalate_after_ms));
    let forces = rules.force_after_ms.map(|after| [after - after / LAST_PART, after]).into_iter().flatten();
    let times = escalates.into_iter().chain(forces.map(|after| since.saturating_add(after)));
    times.filter(|at| *at > now_ms).min()
}

/// Somebody said "later", and that holds.
fn later(wait: &Wait, now_ms: UnixMs, rules: &Rules) -> Option<Waits> {
    let until = |said: &Option<Said>| match said.as_ref()?.word {
        Word::Later { until_ms } => Some(until_ms),
        Word::Now { .. } => None,
    };
    let why = |said: &Option<Said>| {
        said.as_ref().and_then(|said| said.reason.as_ref()).map_or(String::new(), |reason| format!(": {reason}"))
    };
    if let Some(until_ms) = until(&wait.operator).filter(|until| now_ms < *until) {
        let reason = format!("put off by an operator until {}{}", stamp(until_ms), why(&wait.operator));
        return Some(Waits { reason, owner: DeferralOwner::Operator, until_ms: Some(until_ms) });
    }
    // An operator's "now" is above the user's "later".
    if operator_says_now(wait) {
        return None;
    }
    let until_ms = until(&wait.user)?.min(user_limit(wait, now_ms, rules));
    let reason = format!("put off by the user until {}{}", stamp(until_ms), why(&wait.user));
    (now_ms < until_ms).then_some(Waits { reason, owner: DeferralOwner::User, until_ms: Some(until_ms) })
}

fn operator_says_now(wait: &Wait) -> bool {
    matches!(wait.operator.as_ref().map(|said| said.word), Some(Word::Now { .. }))
}

/// Whether somebody said "now", and whether at any price. What was said "later" is looked at before this.
fn asked_now(wait: &Wait) -> Option<bool> {
    let force = |said: &Option<Said>| match said.as_ref()?.word {
        Word::Now { force } => Some(force),
        Word::Later { .. } => None,
    };
    force(&wait.operator).max(force(&wait.user))
}

/// A time for people who may be anywhere: UTC, to the minute.
fn stamp(ms: UnixMs) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map_or_else(|_| "the end of time".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

#[cfg(test)]
#[path = "waits_tests.rs"]
mod tests;
