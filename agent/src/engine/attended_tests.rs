//! An attended try is for one user, once.

#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::domain::{Activity, AttendedTry, BumpId, Version, Wait};
use crate::engine::bump::sample;
use crate::engine::rollout::{Decision, Next, decide, next};
use crate::engine::{Blame, Bump, Fault, Outcome, Phase};

fn bad() -> Version {
    "0.0.25".parse().unwrap()
}

fn ended(user: &str, outcome: Outcome, blame: Blame, ended_ms: i64) -> Bump {
    let fault = Some(Fault { reason: "it broke".to_owned(), blame });
    Bump { phase: Phase::Closed(outcome), ended_ms: Some(ended_ms), fault, ..sample(BumpId(9), user) }
}

fn instance(user: &str, tried: Option<Bump>) -> InstanceView {
    InstanceView {
        user: user.parse().unwrap(),
        bound: Some("0.0.24".parse().unwrap()),
        wanted: bad(),
        stopped: false,
        unenforced: false,
        problem: None,
        rivals: None,
        activity: Some(Activity::Idle { last_activity_ms: None }),
        busy_until_ms: None,
        wait: Wait::default(),
        calls: false,
        open: None,
        last: tried.clone(),
        tried,
    }
}

/// alice's bump has condemned the version, bob was not tried.
fn quarantined(blame: Blame) -> HostView {
    let alice = instance("alice", Some(ended("alice", Outcome::RolledBack, blame, 6_000)));
    HostView {
        now_ms: 10_000,
        installed: ["0.0.24", "0.0.25"].iter().map(|v| v.parse().unwrap()).collect(),
        quarantine: [(bad(), "it broke (alice, b000009)".to_owned())].into(),
        enforced_ms: 5_000,
        instances: vec![alice, instance("bob", None)],
        ..HostView::default()
    }
}

fn word(user: &str, at_ms: UnixMs) -> AttendedTry {
    AttendedTry { user: user.parse().unwrap(), at_ms }
}

#[test]
fn the_user_who_was_named_is_tried_whatever_had_failed_and_nobody_else_is() {
    for blame in [Blame::Version, Blame::Environment, Blame::User, Blame::Operator] {
        for user in ["alice", "bob"] {
            let mut view = quarantined(blame);
            assert_eq!(next(&view), Next::Rest, "{blame:?}");
            view.attended.insert(bad(), word(user, 7_000));
            assert!(matches!(next(&view), Next::Plan { user: planned, .. } if planned.as_str() == user), "{blame:?} {user}");
            let other = view.instances.iter().find(|instance| instance.user.as_str() != user).unwrap();
            assert!(matches!(decide(&view, other), Decision::HoldBack(_)), "{blame:?} {user}");
        }
    }
}

#[test]
fn a_try_is_spent_by_its_end_whatever_that_was_and_a_freeze_holds_it_up() {
    let mut view = quarantined(Blame::Version);
    view.attended.insert(bad(), word("alice", 7_000));
    view.frozen = Some("a fair".to_owned());
    assert_eq!(next(&view), Next::Rest);
    view.frozen = None;
    for (outcome, blame) in
        [(Outcome::RolledBack, Blame::Version), (Outcome::Refused, Blame::Environment), (Outcome::Cancelled, Blame::User)]
    {
        view.instances[0].tried = Some(ended("alice", outcome, blame, 8_000));
        assert_eq!(next(&view), Next::Rest, "{outcome:?} {blame:?}");
    }
}

proptest! {
    #[test]
    fn no_word_counts_for_another_version_from_the_future_or_twice(at_ms in 0i64..20_000, ended_ms in prop::option::of(0i64..20_000), other: bool) {
        let mut view = quarantined(Blame::Version);
        view.instances[0].tried = ended_ms.map(|at| ended("alice", Outcome::RolledBack, Blame::Version, at));
        let version = if other { "0.0.26".parse().unwrap() } else { bad() };
        view.attended.insert(version, word("alice", at_ms));
        let counts = !other && at_ms <= view.now_ms && ended_ms.is_none_or(|ended| ended < at_ms);
        prop_assert_eq!(is_attended(&view, &view.instances[0]), counts);
        prop_assert!(!is_attended(&view, &view.instances[1]));
    }
}
