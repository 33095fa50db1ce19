//! Laws of the bump, for every sequence of events.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::domain::{
    Activity, BumpId, DeferralOwner, Descriptor, Device, Paired, ProbeReport, ProbeStep, RehearsalReport, Snapshot, StepOutcome,
    StepRecord,
};
use crate::engine::{Blame, Fault, SoakLook};

fn probe(outcome: StepOutcome) -> ProbeReport {
    let steps = [ProbeStep::Environment, ProbeStep::Exchange]
        .into_iter()
        .map(|step| StepRecord {
            step,
            outcome: if step == ProbeStep::Exchange { outcome.clone() } else { StepOutcome::Passed },
            ms: 1,
        })
        .collect();
    ProbeReport { steps, ..ProbeReport::default() }
}

fn failed() -> StepOutcome {
    StepOutcome::Failed { reason: "HTTP 500".to_owned(), contract_moved: false }
}

fn rehearsal(outcome: StepOutcome) -> RehearsalReport {
    RehearsalReport {
        probe: probe(outcome),
        level_before: Some(30),
        level_after: Some(31),
        start_ms: 1,
        total_ms: 2,
        sessions_lost: 3,
        lost: Paired::default(),
        work_lost: 0,
        intact: true,
        output_tail: vec![],
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        id: BumpId(1),
        user: "alice".parse().unwrap(),
        version: "0.0.24".parse().unwrap(),
        migration_level: Some(30),
        created_ms: 1,
        bytes: 1,
        path: "/s".into(),
        entries: vec![],
    }
}

/// What a healthy host answers to each action.
fn good(action: &Action) -> Event {
    match action {
        Action::Rehearse => Event::Rehearsed { report: Box::new(rehearsal(StepOutcome::Passed)), control: None },
        Action::Seed => Event::Seeded { later: None },
        Action::TakeBaseline => Event::BaselineTaken { report: probe(StepOutcome::Passed) },
        Action::Quiesce { .. } => Event::Quiesced { stopped_ms: 10, still_ms: Some(20), paired: None },
        Action::Secure => Event::Secured { snapshot: snapshot() },
        Action::Switch => Event::Switched,
        Action::Start { .. } => Event::Started,
        Action::Verify { .. } => {
            Event::Probed { report: probe(StepOutcome::Passed), answered_ms: Some(20), marks: None, lost: None }
        }
        Action::Archive => Event::Archived,
        Action::Stop => Event::Stopped,
        Action::Restore { .. } => Event::Restored { salvage: None },
        Action::Tidy => Event::Tidied,
    }
}

fn run_well(mut bump: Bump) -> Bump {
    while let Some(action) = bump.due() {
        bump = step(bump, 100, good(&action)).0;
    }
    bump
}

fn soaking() -> Bump {
    let ready = run_well(step(sample(BumpId(1), "alice"), 1, Event::GoAhead).0);
    assert_eq!(ready.phase, Phase::Ready);
    run_well(step(ready, 2, Event::GoAhead).0)
}

/// Looked at until the soak is over, and settled.
fn soaked(mut bump: Bump) -> Bump {
    for now in [200_200, 400_200, 700_200, 1_000_200] {
        if bump.phase == Phase::Soaking {
            bump = step(bump, now, Event::Looked(SoakLook::Good)).0;
        }
    }
    run_well(bump)
}

#[test]
fn who_was_paired_is_kept_until_it_is_known_who_has_to_pair_again() {
    let device = |session: &str| Device { session: session.to_owned(), ..Device::default() };
    let (paired, lost) = (Paired::of(["a", "b"].map(device), 0), Paired::of([device("b")], 0));
    for (known, told) in [(None, Some(&paired)), (Some(&lost), None)] {
        let mut bump = sample(BumpId(1), "alice");
        while bump.phase != Phase::Soaking {
            let Some(action) = bump.due() else {
                bump = step(bump, 100, Event::GoAhead).0;
                continue;
            };
            let event = match good(&action) {
                Event::Quiesced { stopped_ms, still_ms, .. } => {
                    Event::Quiesced { stopped_ms, still_ms, paired: Some(paired.clone()) }
                }
                Event::Probed { report, answered_ms, marks, .. } => {
                    Event::Probed { report, answered_ms, marks, lost: known.cloned() }
                }
                other => other,
            };
            bump = step(bump, 100, event).0;
        }
        assert_eq!((bump.paired.as_ref(), bump.lost.as_ref()), (told, known));
    }
}

#[test]
fn a_clock_that_jumps_neither_ends_a_soak_nor_stretches_it_for_a_year() {
    const YEAR: i64 = 365 * 24 * 3_600_000;
    let look = |bump: Bump, now| step(bump, now, Event::Looked(SoakLook::Good)).0;
    let ahead = look(soaking(), YEAR);
    assert_eq!(ahead.phase, Phase::Soaking, "ten minutes are not over, whatever the clock says");
    let back = look(look(soaking(), 200_000), 200_000 - YEAR);
    assert!(back.soak_until_ms.unwrap() - (200_000 - YEAR) <= back.soak_ms);
    let mut bump = back;
    for n in 1..=4 {
        bump = if bump.phase == Phase::Soaking { look(bump, 200_000 - YEAR + n * 150_000) } else { bump };
    }
    assert_eq!(bump.phase, Phase::Settled);
}

#[test]
fn a_soak_counts_only_time_in_which_the_server_could_be_seen() {
    let looked = |bump: Bump, now, look| step(bump, now, Event::Looked(look)).0;
    let unclear = || SoakLook::Unclear { reason: "somebody has stopped the server".to_owned() };
    let mut bump = looked(soaking(), 150_000, SoakLook::Good);
    for hour in 1..=24 {
        bump = looked(bump, hour * 3_600_000, unclear());
    }
    assert_eq!((bump.phase, bump.bad_looks, bump.soaked_ms < 150_000), (Phase::Soaking, 0, true), "{bump:?}");
    assert!(bump.remark.as_ref().is_some_and(|remark| remark.contains("somebody has stopped the server")));
    bump = looked(bump, 24 * 3_600_000 + 150_000, SoakLook::Good);
    assert_eq!((bump.phase, bump.remark.as_ref()), (Phase::Soaking, None), "a day without a server is no soak");
}

#[test]
fn nobodys_server_is_stopped_while_the_environment_keeps_the_old_version_from_being_checked() {
    let baseline = |step, outcome| ProbeReport { steps: vec![StepRecord { step, outcome, ms: 1 }], ..ProbeReport::default() };
    let unclear = || StepOutcome::Inconclusive { reason: "the reverse proxy did not answer".to_owned() };
    let failed = StepOutcome::Failed { reason: "HTTP 500".to_owned(), contract_moved: false };
    let taken = |report| {
        let bump = Bump { phase: Phase::Baselined, ..sample(BumpId(1), "alice") };
        step(bump, 100, Event::BaselineTaken { report }).0
    };
    for (step, blame) in [(ProbeStep::Dispatch, Blame::Environment), (ProbeStep::Unit, Blame::User)] {
        let bump = taken(baseline(step, unclear()));
        assert_eq!(bump.phase, Phase::Closing(Outcome::Cancelled));
        let fault = bump.fault.unwrap();
        assert!(fault.blame == blame && fault.reason.contains("was not touched"), "{fault:?}");
    }
    assert_eq!(taken(baseline(ProbeStep::Exchange, failed)).phase, Phase::Seeded, "the new version may be the cure");
}

#[test]
fn a_good_bump_goes_through_every_phase_and_settles_after_its_soak() {
    let bump = soaking();
    assert_eq!(bump.phase, Phase::Soaking);
    assert_eq!(bump.downtime_ms(), Some(10));
    let early = step(bump.clone(), 200, Event::Looked(SoakLook::Good)).0;
    assert_eq!(early.phase, Phase::Soaking);
    let settled = soaked(bump);
    assert_eq!(settled.phase, Phase::Closed(Outcome::Done));
    assert_eq!(settled.fault, None);
}

#[test]
fn a_failed_rehearsal_condemns_the_version_and_touches_nobody() {
    let bump = step(sample(BumpId(1), "alice"), 1, Event::GoAhead).0;
    let event =
        Event::Rehearsed { report: Box::new(rehearsal(failed())), control: Some(Box::new(rehearsal(StepOutcome::Passed))) };
    let closed = run_well(step(bump, 2, event).0);
    assert_eq!(closed.phase, Phase::Closed(Outcome::Refused));
    assert_eq!(closed.fault.map(|f| f.blame), Some(Blame::Version));
}

#[test]
fn a_rehearsal_that_the_old_version_fails_too_does_not_condemn() {
    let bump = step(sample(BumpId(1), "alice"), 1, Event::GoAhead).0;
    let event = Event::Rehearsed { report: Box::new(rehearsal(failed())), control: Some(Box::new(rehearsal(failed()))) };
    let closed = run_well(step(bump, 2, event).0);
    assert_eq!(closed.phase, Phase::Closed(Outcome::Cancelled));
    assert_ne!(closed.fault.map(|f| f.blame), Some(Blame::Version));
}

#[test]
fn a_version_that_fails_live_is_rolled_back_with_its_data_and_blamed() {
    let mut bump = soaking();
    bump.phase = Phase::Verified;
    let back = step(bump, 50, Event::Probed { report: probe(failed()), answered_ms: None, marks: None, lost: None }).0;
    assert_eq!(back.phase, Phase::RollingBack(Undo::Stopped));
    let closed = run_well(back);
    assert_eq!(closed.phase, Phase::Closed(Outcome::RolledBack));
    assert_eq!(closed.fault.map(|f| f.blame), Some(Blame::Version));
}

#[test]
fn a_user_who_got_busy_in_the_last_moment_is_put_off_and_keeps_the_place_in_line() {
    let mut bump = soaking();
    bump.phase = Phase::Quiesced;
    let activity = Activity::Unknown { why: "locked".to_owned() };
    let put_off = step(bump, 60, Event::FoundBusy { activity, reason: "locked".to_owned() }).0;
    assert_eq!(put_off.phase, Phase::Ready);
    assert_eq!(put_off.deferral.as_ref().map(|d| d.since_ms), Some(60));
    let again = step(put_off, 90, Event::PutOff { reason: "still".to_owned(), owner: DeferralOwner::Activity }).0;
    assert_eq!(again.deferral.map(|d| (d.since_ms, d.last_look_ms)), Some((60, 90)));
}

#[test]
fn the_soak_goes_back_by_itself_only_while_no_work_would_be_set_aside_or_nobody_can_work() {
    let look = |unusable, new_work| {
        let mut bump = soaking();
        for _ in 0..3 {
            let reason = "no listener".to_owned();
            bump = step(bump, 300, Event::Looked(SoakLook::Bad { reason, unusable, new_work })).0;
        }
        bump
    };
    assert_eq!(look(true, None).phase, Phase::RollingBack(Undo::Stopped));
    assert_eq!(look(false, Some(0)).phase, Phase::RollingBack(Undo::Stopped));
    for undecided in [look(false, Some(7)), look(false, None)] {
        assert_eq!(undecided.phase, Phase::Soaking);
        assert!(undecided.remark.unwrap().contains("needs a decision"));
    }
}

#[test]
fn one_bad_look_is_no_fault() {
    let bump = soaking();
    let look = SoakLook::Bad { reason: "slow".to_owned(), unusable: true, new_work: None };
    let bump = step(bump, 300, Event::Looked(look)).0;
    let bump = step(bump, 310, Event::Looked(SoakLook::Good)).0;
    assert_eq!((bump.phase, bump.bad_looks), (Phase::Soaking, 0));
}

#[test]
fn a_rollback_after_settling_needs_the_snapshot_and_respects_activity() {
    let settled = soaked(soaking());
    let asked = step(settled.clone(), 700_300, Event::RollbackAsked { force: false, reason: "asked".to_owned() }).0;
    assert_eq!(asked.due(), Some(Action::Quiesce { force: false }));
    let activity = Activity::Unknown { why: "x".to_owned() };
    let busy = step(asked.clone(), 700_400, Event::FoundBusy { activity, reason: "x".to_owned() }).0;
    assert_eq!(busy.phase, Phase::Closed(Outcome::Done));
    assert_eq!(run_well(asked).phase, Phase::Closed(Outcome::RolledBack));
    let mut without = settled;
    without.snapshot = None;
    assert!(step(without, 700_300, Event::RollbackAsked { force: false, reason: "asked".to_owned() }).1.is_none());
}

#[test]
fn a_rollback_that_was_asked_for_stops_nobody_because_it_failed_unless_by_force() {
    let failed = |bump| {
        let fault = Fault { reason: "systemd does not answer".to_owned(), blame: Blame::Environment };
        step(bump, 400, Event::ActionFailed(fault)).0
    };
    let asked = |force| step(soaking(), 300, Event::RollbackAsked { force, reason: "asked".to_owned() }).0;
    let mut bump = asked(false);
    for _ in 0..3 {
        assert_eq!(bump.due(), Some(Action::Quiesce { force: false }), "it looks again before it stops anything");
        bump = failed(bump);
    }
    assert_eq!(bump.phase, Phase::Stuck);
    assert!(bump.remark.unwrap().contains("systemd does not answer"));
    assert_eq!(failed(asked(true)).phase, Phase::RollingBack(Undo::Stopped));
}

#[test]
fn an_old_version_that_does_not_come_up_either_is_stuck_and_says_so() {
    let mut bump = soaking();
    bump.phase = Phase::RollingBack(Undo::Rechecked);
    for _ in 0..3 {
        bump = step(bump, 400, Event::Probed { report: probe(failed()), answered_ms: None, marks: None, lost: None }).0;
    }
    assert_eq!(bump.phase, Phase::Stuck);
    assert!(bump.remark.unwrap().contains("does not come up"));
}

#[test]
fn an_old_version_that_is_down_for_a_fault_of_the_hosts_is_stuck_too_and_one_that_answers_is_back() {
    let unclear = || StepOutcome::Inconclusive { reason: "its port is taken".to_owned() };
    let mut bump = soaking();
    bump.phase = Phase::RollingBack(Undo::Rechecked);
    let mut answers = probe(unclear());
    answers.descriptor = Some(Descriptor { server_version: None, environment_id: "e".to_owned() });
    let back = step(bump.clone(), 400, Event::Probed { report: answers, answered_ms: None, marks: None, lost: None }).0;
    assert_eq!(back.phase, Phase::Closing(Outcome::RolledBack));
    for _ in 0..3 {
        bump = step(bump, 400, Event::Probed { report: probe(unclear()), answered_ms: None, marks: None, lost: None }).0;
    }
    assert_eq!(bump.phase, Phase::Stuck, "nobody can reach it");
}

#[test]
fn what_is_stuck_and_tried_again_goes_back_and_still_says_what_was_wrong_first() {
    let mut bump = soaking();
    bump.phase = Phase::Verified;
    bump = step(bump, 300, Event::Probed { report: probe(failed()), answered_ms: None, marks: None, lost: None }).0;
    while bump.phase != Phase::Stuck {
        let fault = Fault { reason: "the disk is full".to_owned(), blame: Blame::Environment };
        bump = step(bump, 400, Event::ActionFailed(fault)).0;
    }
    let first = bump.fault.clone();
    let (again, action) = step(bump, 500, Event::TriedAgain);
    assert_eq!(action, Some(Action::Quiesce { force: false }), "as careful as a person who does not force it");
    let activity = Activity::Unknown { why: "x".to_owned() };
    let busy = step(again.clone(), 510, Event::FoundBusy { activity, reason: "x".to_owned() }).0;
    assert_eq!((busy.phase, &busy.fault), (Phase::Stuck, &first));
    let back = run_well(again);
    assert_eq!((back.phase, back.fault), (Phase::Closed(Outcome::RolledBack), first));
    assert_eq!(step(soaking(), 300, Event::TriedAgain).0, soaking(), "nothing else is tried again");
}

/// Every event that can happen, good and bad.
fn any_event() -> impl Strategy<Value = Event> {
    let fault = prop_oneof![Just(Blame::Version), Just(Blame::User), Just(Blame::Environment)]
        .prop_map(|blame| Event::ActionFailed(Fault { reason: "x".to_owned(), blame }));
    let outcome =
        prop_oneof![Just(StepOutcome::Passed), Just(failed()), Just(StepOutcome::Inconclusive { reason: "disk".to_owned() })];
    prop_oneof![
        4 => fault,
        3 => Just(Event::AgentRestarted),
        1 => Just(Event::TriedAgain),
        2 => Just(Event::GoAhead),
        2 => Just(Event::FoundBusy { activity: Activity::Unknown { why: "x".to_owned() }, reason: "x".to_owned() }),
        1 => any::<bool>().prop_map(|force| Event::RollbackAsked { force, reason: "asked".to_owned() }),
        1 => Just(Event::CalledOff { reason: "pin".to_owned() }),
        2 => outcome.clone().prop_map(|o| Event::Probed { report: probe(o), answered_ms: Some(1), marks: None, lost: None }),
        1 => outcome.prop_map(|o| Event::Rehearsed { report: Box::new(rehearsal(o)), control: Some(Box::new(rehearsal(StepOutcome::Passed))) }),
        1 => (any::<bool>(), proptest::option::of(0u64..3))
            .prop_map(|(unusable, new_work)| Event::Looked(SoakLook::Bad { reason: "x".to_owned(), unusable, new_work })),
        1 => Just(Event::Looked(SoakLook::Good)),
    ]
}

/// A toy host that knows only what matters for promises 2 and 3: where the original is, what is bound, what runs.
#[derive(Debug, Clone, PartialEq)]
struct Host {
    /// The original lies in place (else in custody).
    original_in_place: bool,
    /// A copy lies in place.
    copy_in_place: bool,
    bound_to_new: bool,
    running: bool,
}

impl Host {
    fn do_action(&mut self, action: &Action) {
        match action {
            Action::Quiesce { .. } | Action::Stop => self.running = false,
            Action::Secure => self.original_in_place = false,
            Action::Switch => (self.copy_in_place, self.bound_to_new) = (true, true),
            Action::Restore { .. } => {
                *self = Host { original_in_place: true, copy_in_place: false, bound_to_new: false, running: self.running };
            }
            Action::Start { .. } => self.running = true,
            _ => {}
        }
    }

    fn is_sane(&self) -> bool {
        !self.running || (self.bound_to_new == self.copy_in_place && self.original_in_place != self.copy_in_place)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order, with every action done before its answer is lost or found wanting: nothing ever
    /// runs on the other's data, the new version never on the original, and with a healthy host it always ends at rest.
    #[test]
    fn no_order_of_events_mixes_binary_and_data(events in proptest::collection::vec((any_event(), any::<bool>()), 0..40)) {
        let mut bump = sample(BumpId(1), "alice");
        let mut host = Host { original_in_place: true, copy_in_place: false, bound_to_new: false, running: true };
        for (now, (event, go_on)) in (0i64..).zip(events) {
            if let Some(action) = bump.due() {
                let spared = !go_on && matches!(event, Event::FoundBusy { .. }) && matches!(action, Action::Quiesce { .. });
                if !spared {
                    host.do_action(&action);
                }
                prop_assert!(host.is_sane(), "{action:?} left {host:?}");
                // Found busy can only be what was not stopped before (see the contract of `Action::Quiesce`).
                let event = if go_on || (spared && !host.running) { good(&action) } else { event };
                // An answer belongs to its action: what another action would say cannot come.
                bump = step(bump, now, event).0;
            } else {
                // Where the bump rests, soak looks, orders and restarts come; answers to actions do not.
                if matches!(event, Event::ActionFailed(_) | Event::Probed { .. } | Event::Rehearsed { .. }) { continue; }
                bump = step(bump, now, event).0;
            }
            let body = serde_json::to_string(&bump).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Bump>(&body).unwrap(), &bump);
        }
        for now in 1000..1100 {
            let Some(action) = bump.due() else { break };
            host.do_action(&action);
            prop_assert!(host.is_sane(), "{action:?} left {host:?}");
            bump = step(bump, now, good(&action)).0;
        }
        prop_assert!(bump.due().is_none(), "{:?} never ends", bump.phase);
        if bump.phase == Phase::Closed(Outcome::RolledBack) || matches!(bump.phase, Phase::Closed(Outcome::Cancelled | Outcome::Refused)) {
            prop_assert_eq!(host, Host { original_in_place: true, copy_in_place: false, bound_to_new: false, running: true });
        }
    }
}
