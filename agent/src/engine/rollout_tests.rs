//! The rules of the rollout.

#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::domain::BumpId;
use crate::engine::Fault;
use crate::engine::bump::sample;

fn idle(last_activity_ms: Option<i64>) -> Option<Activity> {
    Some(Activity::Idle { last_activity_ms })
}

fn instance(user: &str, activity: Option<Activity>) -> InstanceView {
    InstanceView {
        user: user.parse().unwrap(),
        bound: Some("0.0.24".parse().unwrap()),
        wanted: "0.0.25".parse().unwrap(),
        stopped: false,
        unenforced: false,
        problem: None,
        rivals: None,
        activity,
        busy_until_ms: None,
        wait: Wait::default(),
        calls: false,
        open: None,
        last: None,
        tried: None,
    }
}

fn view(instances: Vec<InstanceView>) -> HostView {
    HostView {
        now_ms: 10_000_000,
        installed: ["0.0.24", "0.0.25"].iter().map(|v| v.parse().unwrap()).collect(),
        rules: Rules { quiet_ms: 900_000, ..Rules::default() },
        enforced_ms: 5_000_000,
        instances,
        ..HostView::default()
    }
}

fn with_open(mut instance: InstanceView, id: u32, phase: Phase) -> InstanceView {
    let mut bump = sample(BumpId(id), instance.user.as_str());
    bump.phase = phase;
    instance.open = Some(bump);
    instance
}

fn with_last(mut instance: InstanceView, outcome: Outcome, blame: Blame, ended_ms: i64) -> InstanceView {
    let mut bump = sample(BumpId(9), instance.user.as_str());
    bump.phase = Phase::Closed(outcome);
    bump.ended_ms = Some(ended_ms);
    bump.fault = Some(Fault { reason: "it broke".to_owned(), blame });
    instance.last = Some(bump.clone());
    instance.tried = Some(bump);
    instance
}

#[test]
fn the_version_is_installed_before_anything_else() {
    let mut view = view(vec![instance("alice", idle(None))]);
    view.installed.clear();
    assert_eq!(next(&view), Next::Install("0.0.25".parse().unwrap()));
}

#[test]
fn every_user_is_rehearsed_before_the_first_is_touched_even_the_busy_one() {
    let busy = Some(Activity::Busy { reasons: vec![BusyReason::PendingInput { count: 1 }] });
    let ready = with_open(instance("alice", idle(None)), 1, Phase::Ready);
    let planned = with_open(instance("bob", busy.clone()), 2, Phase::Planned);
    assert_eq!(next(&view(vec![ready.clone(), planned])), Next::GoAhead(BumpId(2)));
    assert!(matches!(next(&view(vec![ready, instance("bob", busy)])), Next::Plan { .. }));
}

#[test]
fn the_canary_is_the_least_active_idle_user() {
    let alice = with_open(instance("alice", idle(Some(9_000_000))), 1, Phase::Ready);
    let bob = with_open(instance("bob", idle(Some(1_000_000))), 2, Phase::Ready);
    let carol = with_open(instance("carol", idle(None)), 3, Phase::Ready);
    assert_eq!(next(&view(vec![alice.clone(), bob.clone(), carol])), Next::GoAhead(BumpId(3)));
    assert_eq!(next(&view(vec![alice, bob])), Next::GoAhead(BumpId(2)));
}

#[test]
fn the_busy_the_recently_active_and_the_unreadable_wait_with_a_reason_that_is_noted_once() {
    for activity in [
        Activity::Busy { reasons: vec![BusyReason::Turn { thread: "t".to_owned(), title: None, since_ms: None, stale: false }] },
        Activity::Idle { last_activity_ms: Some(9_900_000) },
        Activity::Unknown { why: "locked".to_owned() },
    ] {
        let mut waiting = with_open(instance("alice", Some(activity)), 1, Phase::Ready);
        let Next::PutOff(id, reason, _) = next(&view(vec![waiting.clone()])) else { panic!("not put off") };
        assert_eq!(id, BumpId(1));
        let deferral =
            crate::domain::Deferral { reason, owner: crate::domain::DeferralOwner::Activity, since_ms: 0, last_look_ms: 0 };
        waiting.open.as_mut().unwrap().deferral = Some(deferral);
        assert_eq!(next(&view(vec![waiting])), Next::Rest);
    }
}

#[test]
fn a_quarantined_version_goes_to_nobody_and_waiting_bumps_to_it_are_called_off() {
    let waiting = with_open(instance("alice", idle(None)), 1, Phase::Ready);
    let mut view = view(vec![waiting, instance("bob", idle(None))]);
    view.quarantine.insert("0.0.25".parse().unwrap(), "crashes".to_owned());
    assert!(matches!(next(&view), Next::CallOff(BumpId(1), _)));
    view.instances[0].open = None;
    assert_eq!(next(&view), Next::Rest);
}

#[test]
fn a_fault_of_the_host_stops_the_others_until_the_next_enforcement() {
    let failed = with_last(instance("alice", idle(None)), Outcome::RolledBack, Blame::Environment, 6_000_000);
    let waiting = with_open(instance("bob", idle(None)), 2, Phase::Ready);
    let mut view = view(vec![failed, waiting]);
    assert!(matches!(next(&view), Next::CallOff(BumpId(2), _)));
    view.enforced_ms = 7_000_000;
    assert!(matches!(next(&view), Next::Plan { .. }));
}

#[test]
fn what_the_host_stopped_and_what_could_not_be_told_is_to_be_tried_again_and_nothing_else() {
    let ended = |blame| with_last(instance("alice", idle(None)), Outcome::Refused, blame, 6_000_000);
    let halted = |instance: InstanceView| halted_ms(&view(vec![instance]));
    assert_eq!(halted(ended(Blame::Environment)), Some(6_000_000));
    assert_eq!(halted(ended(Blame::User)), Some(6_000_000), "a rehearsal that could not tell");
    for blame in [Blame::Version, Blame::Operator] {
        assert_eq!(halted(ended(blame)), None, "{blame:?}");
    }
    let changed = |change: fn(&mut InstanceView)| {
        let mut instance = ended(Blame::Environment);
        change(&mut instance);
        instance
    };
    assert_eq!(halted(changed(|i| i.bound = Some(i.wanted.clone()))), None, "it runs what it is to run");
    assert_eq!(halted(changed(|i| i.stopped = true)), None, "nobody runs it");
    assert_eq!(halted(changed(|i| i.unenforced = true)), None, "nobody has ordered it");
    let mut view = view(vec![ended(Blame::Environment), instance("bob", idle(None))]);
    view.enforced_ms = 7_000_000;
    assert_eq!(halted_ms(&view), None, "it has been tried since");
    view.uninstallable.insert("0.0.25".parse().unwrap(), "the registry is away".to_owned());
    assert_eq!(halted_ms(&view), Some(7_000_000));
    view.uninstallable.clear();
    view.cramped = Some("no room on /home".to_owned());
    assert_eq!(halted_ms(&view), Some(7_000_000));
    assert!(matches!(decide(&view, &view.instances[1]), Decision::HoldBack(reason) if reason.contains("no room on /home")));
    view.quarantine.insert("0.0.25".parse().unwrap(), "crashes".to_owned());
    assert_eq!(halted_ms(&view), None, "a version that failed is not tried unasked");
    view.quarantine.clear();
    view.frozen = Some("a fair".to_owned());
    assert_eq!(halted_ms(&view), None);
}

#[test]
fn one_users_own_trouble_does_not_stop_the_others() {
    let refused = with_last(instance("alice", idle(None)), Outcome::Cancelled, Blame::User, 6_000_000);
    let ready = with_open(instance("bob", idle(None)), 2, Phase::Ready);
    assert_eq!(next(&view(vec![refused, ready])), Next::GoAhead(BumpId(2)));
}

#[test]
fn what_an_operator_rolled_back_stays_back_until_it_is_cleared() {
    let back = with_last(instance("alice", idle(None)), Outcome::RolledBack, Blame::Operator, 1_000);
    let mut view = view(vec![back]);
    assert_eq!(next(&view), Next::Rest);
    view.cleared.insert("0.0.25".parse().unwrap(), 2_000);
    assert!(matches!(next(&view), Next::Plan { .. }));
}

#[test]
fn it_stays_back_also_when_another_bump_was_rolled_back_after_it() {
    let mut back = with_last(instance("alice", idle(None)), Outcome::RolledBack, Blame::Operator, 1_000);
    let mut older = sample(BumpId(3), "alice");
    older.to = "0.0.24".parse().unwrap();
    older.phase = Phase::Closed(Outcome::RolledBack);
    back.last = Some(older);
    assert_eq!(next(&view(vec![back])), Next::Rest);
}

#[test]
fn a_frozen_host_and_a_changed_pin_begin_nothing() {
    let mut frozen = view(vec![with_open(instance("alice", idle(None)), 1, Phase::Ready)]);
    frozen.frozen = Some("holiday".to_owned());
    assert_eq!(next(&frozen), Next::Rest);
    let mut changed = instance("alice", idle(None));
    changed.unenforced = true;
    assert_eq!(next(&view(vec![changed])), Next::Rest);
}

#[test]
fn a_bump_that_no_longer_leads_to_the_pin_is_called_off() {
    let mut waiting = with_open(instance("alice", idle(None)), 1, Phase::Ready);
    waiting.wanted = "0.0.28".parse().unwrap();
    assert!(matches!(next(&view(vec![waiting])), Next::CallOff(BumpId(1), _)));
}

#[test]
fn stopped_servers_and_those_not_enrolled_are_left_alone() {
    let mut stopped = instance("alice", idle(None));
    stopped.stopped = true;
    let mut unbound = instance("bob", idle(None));
    unbound.bound = None;
    let view = view(vec![stopped, unbound]);
    assert!(view.instances.iter().all(|i| matches!(decide(&view, i), Decision::Keep(_))));
    assert_eq!(next(&view), Next::Rest);
}

#[test]
fn who_gave_the_order_is_last_and_who_was_asked_for_is_first() {
    let caller = InstanceView { calls: true, ..with_open(instance("alice", idle(None)), 1, Phase::Ready) };
    let other = with_open(instance("bob", idle(Some(9_000_000))), 2, Phase::Ready);
    let mut asked = with_open(instance("carol", idle(Some(9_900_000))), 3, Phase::Ready);
    assert_eq!(next(&view(vec![caller.clone(), other.clone(), asked.clone()])), Next::GoAhead(BumpId(2)));
    asked.wait.user =
        Some(crate::domain::Said { word: crate::domain::Word::Now { force: false }, at_ms: 0, uid: 1, reason: None });
    assert_eq!(next(&view(vec![caller.clone(), other, asked])), Next::GoAhead(BumpId(3)));
    assert_eq!(next(&view(vec![caller])), Next::GoAhead(BumpId(1)), "last, and not never");
}

#[test]
fn an_old_rehearsal_is_repeated_before_its_bump_goes_on_and_not_while_it_waits() {
    let mut view = view(vec![with_open(instance("alice", idle(None)), 1, Phase::Ready)]);
    view.rules.rehearsal_keeps_ms = 9_000_000;
    assert!(matches!(next(&view), Next::CallOff(BumpId(1), _)));
    view.instances[0].activity = idle(Some(9_990_000));
    assert!(matches!(next(&view), Next::PutOff(BumpId(1), ..)));
    view.instances[0].activity = idle(None);
    view.instances[0].open.as_mut().unwrap().planned_ms = 5_000_000;
    assert_eq!(next(&view), Next::GoAhead(BumpId(1)));
}

#[test]
fn everybody_is_rehearsed_while_the_window_is_closed_and_nobody_is_touched() {
    let mut view = view(vec![instance("alice", idle(None))]);
    view.closed = Some(Closed { opens_ms: 20_000_000, opens: "tonight".to_owned() });
    assert!(matches!(next(&view), Next::Plan { .. }));
    view.instances[0] = with_open(instance("alice", idle(None)), 1, Phase::Planned);
    assert_eq!(next(&view), Next::GoAhead(BumpId(1)));
    view.instances[0] = with_open(instance("alice", idle(None)), 1, Phase::Ready);
    assert!(matches!(next(&view), Next::PutOff(BumpId(1), _, DeferralOwner::Window)));
}

#[test]
fn a_stale_turn_is_still_busy_and_said_to_be_stale_with_its_title() {
    let turn = BusyReason::Turn { thread: "t-1".to_owned(), title: Some("Fix it".to_owned()), since_ms: Some(0), stale: true };
    let said = busy(&Activity::Busy { reasons: vec![turn] }, 1_000_000_000, 0).unwrap();
    assert!(
        said.contains("\"Fix it\" (t-1)") && said.contains("not moved since 1970-01-01T00:00:00Z") && said.contains("--force"),
        "{said}"
    );
}

#[test]
fn a_clock_that_was_set_back_neither_holds_back_for_a_year_nor_retries_at_once() {
    const YEAR: i64 = 365 * 24 * 3_600_000;
    let failed = |ended| view(vec![with_last(instance("alice", idle(None)), Outcome::RolledBack, Blame::Environment, ended)]);
    // It failed before the clock was set back, and the order to try again came after.
    let mut host = failed(10_000_000 + YEAR);
    assert!(matches!(decide(&host, &host.instances[0]), Decision::Bump(_)));
    // It failed after, and the last order is from before.
    host = failed(9_000_000);
    host.enforced_ms = 10_000_000 + YEAR;
    assert!(matches!(decide(&host, &host.instances[0]), Decision::HoldBack(_)));
    // What the operator said before counts no more for what failed after; what they say now does for what failed before.
    let mut host = view(vec![with_last(instance("alice", idle(None)), Outcome::RolledBack, Blame::Operator, 9_000_000)]);
    host.cleared.insert("0.0.25".parse().unwrap(), 10_000_000 + YEAR);
    assert!(matches!(decide(&host, &host.instances[0]), Decision::HoldBack(_)));
    let mut host = view(vec![with_last(instance("alice", idle(None)), Outcome::RolledBack, Blame::Operator, 10_000_000 + YEAR)]);
    host.cleared.insert("0.0.25".parse().unwrap(), 9_000_000);
    assert!(matches!(decide(&host, &host.instances[0]), Decision::Bump(_)));
}

#[test]
fn a_trace_of_work_from_the_future_holds_nobody_up_until_the_clock_is_there_again() {
    let quiet = 900_000;
    let worked = |last| busy(&idle(Some(last)).unwrap(), 10_000_000, quiet);
    assert!(worked(9_900_000).is_some() && worked(10_100_000).is_some());
    assert_eq!((worked(9_000_000), worked(10_000_000 + 365 * 86_400_000)), (None, None));
}
