//! The rules of waiting.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::domain::{BusyReason, Closed};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

fn view(now_ms: UnixMs, rules: Rules) -> HostView {
    HostView { now_ms, rules, ..HostView::default() }
}

fn instance(activity: Option<Activity>, wait: Wait) -> InstanceView {
    InstanceView {
        user: "alice".parse().unwrap(),
        bound: Some("0.0.24".parse().unwrap()),
        wanted: "0.0.25".parse().unwrap(),
        stopped: false,
        unenforced: false,
        problem: None,
        rivals: None,
        activity,
        busy_until_ms: None,
        wait,
        calls: false,
        open: None,
        last: None,
        tried: None,
    }
}

fn said(word: Word) -> Option<Said> {
    Some(Said { word, at_ms: 0, uid: 1000, reason: None })
}

fn busy_now() -> Option<Activity> {
    Some(Activity::Busy { reasons: vec![BusyReason::PendingInput { count: 1 }] })
}

fn rules() -> Rules {
    Rules {
        quiet_ms: HOUR,
        user_limit_ms: 7 * DAY,
        escalate_after_ms: 7 * DAY,
        force_after_ms: None,
        rehearsal_keeps_ms: 3 * DAY,
    }
}

#[test]
fn now_skips_quiet_and_window_and_never_work_unless_forced() {
    let mut view = view(100 * DAY, rules());
    view.closed = Some(Closed { opens_ms: 101 * DAY, opens: "tonight".to_owned() });
    let recent = Some(Activity::Idle { last_activity_ms: Some(100 * DAY - 1) });
    let now = |force| Wait { user: said(Word::Now { force }), ..Wait::default() };
    assert_eq!(waits(&view, &instance(recent.clone(), Wait::default())).unwrap().owner, DeferralOwner::Window);
    assert_eq!(waits(&view, &instance(recent, now(false))), None);
    assert_eq!(waits(&view, &instance(busy_now(), now(false))).unwrap().owner, DeferralOwner::Activity);
    let unknown = Some(Activity::Unknown { why: "locked".to_owned() });
    assert_eq!(waits(&view, &instance(unknown, now(false))).unwrap().owner, DeferralOwner::Activity);
    assert_eq!(waits(&view, &instance(busy_now(), now(true))), None);
}

#[test]
fn an_operators_word_is_above_the_users() {
    let later = |days| said(Word::Later { until_ms: days * DAY });
    let now = || said(Word::Now { force: false });
    let owner = |user, operator| {
        let wait = Wait { user, operator, ..Wait::default() };
        waits(&view(100 * DAY, rules()), &instance(Some(Activity::Idle { last_activity_ms: None }), wait))
            .map(|waits| waits.owner)
    };
    assert_eq!(owner(later(101), None), Some(DeferralOwner::User));
    assert_eq!(owner(later(101), now()), None);
    assert_eq!(owner(now(), later(101)), Some(DeferralOwner::Operator));
    assert_eq!(owner(later(102), later(99)), Some(DeferralOwner::User), "an operator's word that has run out is none");
    assert_eq!(owner(later(99), None), None);
}

#[test]
fn a_job_in_a_terminal_that_has_just_ended_counts_for_quiet() {
    let mut seen = instance(Some(Activity::Idle { last_activity_ms: None }), Wait::default());
    seen.busy_until_ms = Some(100 * DAY - HOUR / 2);
    let found = waits(&view(100 * DAY, rules()), &seen).unwrap();
    assert_eq!((found.owner, found.until_ms), (DeferralOwner::Activity, Some(100 * DAY + HOUR / 2)));
    seen.busy_until_ms = Some(100 * DAY - HOUR);
    assert_eq!(waits(&view(100 * DAY, rules()), &seen), None);
}

#[test]
fn what_was_put_off_for_too_long_is_escalated_once_and_forced_only_by_order() {
    let wait = Wait { since_ms: Some(0), ..Wait::default() };
    assert!(!is_overdue(&wait, 7 * DAY - 1, &rules()));
    assert!(is_overdue(&wait, 7 * DAY, &rules()));
    assert!(!is_overdue(&Wait { escalated_ms: Some(1), ..wait.clone() }, 9 * DAY, &rules()));
    assert!(waits(&view(1000 * DAY, rules()), &instance(busy_now(), wait.clone())).is_some(), "nobody said so");
    let forcing = Rules { force_after_ms: Some(10 * DAY), ..rules() };
    let recent = |now: i64| Some(Activity::Idle { last_activity_ms: Some(now - 1) });
    assert!(waits(&view(9 * DAY - 1, forcing.clone()), &instance(recent(9 * DAY - 1), wait.clone())).is_some());
    assert_eq!(waits(&view(9 * DAY, forcing.clone()), &instance(recent(9 * DAY), wait.clone())), None, "any idle moment");
    assert!(waits(&view(10 * DAY - 1, forcing.clone()), &instance(busy_now(), wait.clone())).is_some(), "but only those");
    assert_eq!(waits(&view(10 * DAY, forcing.clone()), &instance(busy_now(), wait.clone())), None);
    let mut closed = view(10 * DAY, forcing);
    closed.closed = Some(Closed { opens_ms: 11 * DAY, opens: "tonight".to_owned() });
    assert_eq!(waits(&closed, &instance(busy_now(), wait)).unwrap().owner, DeferralOwner::Window, "not at noon");
}

fn any_said() -> impl Strategy<Value = Option<Said>> {
    let word = prop_oneof![
        (0..60 * DAY).prop_map(|until_ms| Word::Later { until_ms }),
        any::<bool>().prop_map(|force| Word::Now { force }),
    ];
    proptest::option::of(word.prop_map(|word| Said { word, at_ms: 0, uid: 1000, reason: None }))
}

fn any_wait() -> impl Strategy<Value = Wait> {
    (proptest::option::of(0..30 * DAY), any_said(), any_said()).prop_map(|(since_ms, user, operator)| Wait {
        since_ms,
        escalated_ms: None,
        user,
        operator,
    })
}

fn any_activity() -> impl Strategy<Value = Activity> {
    prop_oneof![
        proptest::option::of(0..40 * DAY).prop_map(|last_activity_ms| Activity::Idle { last_activity_ms }),
        Just(Activity::Busy { reasons: vec![BusyReason::PendingInput { count: 1 }] }),
        Just(Activity::Unknown { why: "locked".to_owned() }),
    ]
}

fn any_rules() -> impl Strategy<Value = Rules> {
    (0..2 * DAY, 0..10 * DAY, proptest::option::of(10 * DAY..40 * DAY)).prop_map(|(quiet_ms, user_limit_ms, force_after_ms)| {
        Rules { quiet_ms, user_limit_ms, escalate_after_ms: 7 * DAY, force_after_ms, rehearsal_keeps_ms: 3 * DAY }
    })
}

proptest! {
    /// Promise 4: work in flight is interrupted only when a person said `--force`, or the operator configured it and it is time.
    #[test]
    fn work_in_flight_is_never_interrupted_unasked(wait in any_wait(), rules in any_rules(), now in 30 * DAY..60 * DAY, activity in any_activity()) {
        let forced = |said: &Option<Said>| matches!(said.as_ref().map(|said| said.word), Some(Word::Now { force: true }));
        let entitled = forced(&wait.user)
            || forced(&wait.operator)
            || rules.force_after_ms.zip(wait.since_ms).is_some_and(|(after, since)| now >= since + after);
        if waits(&view(now, rules), &instance(Some(activity.clone()), wait)).is_none() {
            let idle = matches!(activity, Activity::Idle { .. });
            prop_assert!(entitled || idle);
        }
    }

    /// A user cannot put off their own bump beyond the limit, however often they say so.
    #[test]
    fn users_cannot_put_it_off_for_ever(since in 0..30 * DAY, until in 0..1000 * DAY, rules in any_rules(), now in 30 * DAY..60 * DAY) {
        let wait = Wait { since_ms: Some(since), user: said(Word::Later { until_ms: until }), ..Wait::default() };
        let idle = Some(Activity::Idle { last_activity_ms: None });
        let found = waits(&view(now, rules.clone()), &instance(idle, wait));
        prop_assert_eq!(found.is_some(), now < until.min(since + rules.user_limit_ms));
    }

    /// While an operator says "later", nothing at all goes on, whatever else was said or configured.
    #[test]
    fn an_operators_later_holds_to_its_end(mut wait in any_wait(), rules in any_rules(), now in 0..60 * DAY, more in 1..DAY, activity in any_activity()) {
        wait.operator = said(Word::Later { until_ms: now + more });
        let found = waits(&view(now, rules.clone()), &instance(Some(activity.clone()), wait.clone()));
        prop_assert_eq!(found.map(|waits| waits.owner), Some(DeferralOwner::Operator));
        let after = waits(&view(now + more, rules), &instance(Some(activity), wait));
        prop_assert_ne!(after.map(|waits| waits.owner), Some(DeferralOwner::Operator));
    }

    /// An idle instance whose `until` is told goes on at that time, unless something else comes between: the agent need not
    /// look before, and must not look later.
    #[test]
    fn what_is_told_as_the_end_of_quiet_is_its_end(rules in any_rules(), last in 0..40 * DAY, seen in proptest::option::of(0..40 * DAY), now in 0..40 * DAY) {
        let mut quiet = instance(Some(Activity::Idle { last_activity_ms: Some(last) }), Wait::default());
        quiet.busy_until_ms = seen;
        if let Some(Waits { until_ms: Some(until), .. }) = waits(&view(now, rules.clone()), &quiet) {
            prop_assert!(waits(&view(until - 1, rules.clone()), &quiet).is_some());
            prop_assert_eq!(waits(&view(until, rules), &quiet), None);
        }
    }

    /// Between one rule and the next the answer stays the same, so a look in between is not needed.
    #[test]
    fn rules_begin_to_hold_when_they_are_said_to(wait in any_wait(), rules in any_rules(), now in 0..60 * DAY, part in 0.0f64..1.0) {
        let next = next_rule(&wait, now, &rules).unwrap_or(now + 60 * DAY);
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
        let between = now + ((next - now - 1) as f64 * part) as i64;
        prop_assert_eq!(is_overdue(&wait, now, &rules), is_overdue(&wait, between, &rules));
        prop_assert_eq!(hurry(&wait, now, &rules), hurry(&wait, between, &rules));
    }
}
