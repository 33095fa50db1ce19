//! What is written down about a bump when something happened to it. Nothing here decides where it goes.

use super::Bump;
use super::cue::UNDO_TRIES;
use crate::domain::{Deferral, DeferralOwner, UnixMs};
use crate::engine::{Blame, Event, Fault, Outcome, Phase, SoakLook, Undo};

/// Takes `event`, of which `fault` was weighed, down into `bump`, which is still in the phase that it happened in and goes
/// on to `next` (the same phase, where it stays).
pub fn take_down(bump: &mut Bump, next: Phase, now_ms: UnixMs, event: Event, fault: Option<Fault>) {
    let first_fault = fault.clone();
    happened(bump, next, now_ms, event, fault);
    let (left, entered) = (bump.phase, next);
    match entered {
        _ if left == entered => {}
        Phase::Baselined => bump.begun_ms = Some(now_ms),
        Phase::Soaking if left == Phase::Verified => {
            bump.ended_ms = Some(now_ms);
            (bump.soaked_ms, bump.soak_looked_ms) = (0, Some(now_ms));
            bump.soak_until_ms = Some(now_ms.saturating_add(bump.soak_ms));
        }
        Phase::RollingBack(_) => {
            bump.tries = 0;
            if !matches!(left, Phase::RollingBack(_)) && bump.fault.is_none() {
                bump.fault = first_fault;
            }
        }
        Phase::Closing(Outcome::RolledBack) => bump.ended_ms = Some(now_ms),
        Phase::Closing(Outcome::Refused | Outcome::Cancelled) => {
            bump.fault = first_fault;
            bump.deferral = None;
            bump.ended_ms = Some(now_ms);
        }
        _ => {}
    }
}

/// What the event itself says.
fn happened(bump: &mut Bump, next: Phase, now_ms: UnixMs, event: Event, fault: Option<Fault>) {
    let reason = || fault.as_ref().map_or(String::new(), |fault| fault.reason.clone());
    match event {
        Event::GoAhead
        | Event::CalledOff { .. }
        | Event::AgentRestarted
        | Event::Seeded { .. }
        | Event::Started
        | Event::Tidied => {}
        Event::PutOff { reason, owner } => put_off(bump, now_ms, reason, owner),
        Event::TriedAgain => bump.remark = None,
        Event::RollbackAsked { .. } => {
            bump.remark = None;
            bump.fault = fault;
        }
        Event::ActionFailed(_) => failed(bump, next, &reason()),
        Event::Rehearsed { report, .. } => bump.rehearsal = Some(*report),
        Event::BaselineTaken { report } => bump.baseline = Some(report),
        Event::Quiesced { stopped_ms, still_ms, paired } => {
            bump.paired = paired.or(bump.paired.take());
            bump.deferral = None;
            bump.still_ms = still_ms;
            bump.stopped_ms = Some(stopped_ms);
            bump.answered_ms = None;
        }
        Event::FoundBusy { reason, .. } if bump.phase == Phase::Quiesced => {
            put_off(bump, now_ms, reason, DeferralOwner::Activity);
        }
        Event::FoundBusy { reason, .. } => {
            // Only that it was asked for is over; what a stuck bump suffers from is not.
            bump.fault.take_if(|fault| fault.blame == Blame::Operator);
            bump.remark = Some(format!("the rollback that was asked for was not done: {reason}"));
        }
        Event::Secured { snapshot } => bump.snapshot = Some(snapshot),
        // From here the new version may write, even if we never see it start.
        Event::Switched => bump.ran = true,
        Event::Probed { answered_ms, .. } if bump.phase == Phase::RollingBack(Undo::Rechecked) => match (next, fault) {
            (Phase::Closing(_), None) => bump.answered_ms = answered_ms,
            (Phase::Closing(_), Some(fault)) => {
                bump.remark = Some(format!("after the rollback {} runs, but could not be checked: {}", bump.from, fault.reason));
            }
            (_, fault) => failed(bump, next, &fault.map_or(String::new(), |fault| fault.reason)),
        },
        Event::Probed { report, answered_ms, marks, lost } => {
            bump.probe = Some(report);
            if next == Phase::Soaking {
                bump.answered_ms = bump.answered_ms.or(answered_ms);
                bump.marks = bump.marks.take().or(marks);
                bump.lost = bump.lost.take().or(lost);
                bump.paired.take_if(|_| bump.lost.is_some());
            }
        }
        Event::Looked(look) => {
            // Only what was seen counts: a server that somebody has stopped does not soak.
            if !matches!(look, SoakLook::Unclear { .. }) {
                bump.soaked_ms = bump.soaked_ms(now_ms);
            }
            bump.soak_looked_ms = Some(now_ms);
            bump.soak_until_ms = Some(now_ms.saturating_add((bump.soak_ms - bump.soaked_ms).max(0)));
            looked(bump, next, look);
        }
        Event::Archived => bump.archived = true,
        Event::Stopped => {
            // From now on the user waits again.
            if bump.answered_ms.take().is_some() {
                bump.stopped_ms = Some(now_ms);
            }
        }
        Event::Restored { salvage } => bump.salvage = salvage.or(bump.salvage.take()),
    }
}

fn put_off(bump: &mut Bump, now_ms: UnixMs, reason: String, owner: DeferralOwner) {
    let since_ms = bump.deferral.as_ref().map_or(now_ms, |deferral| deferral.since_ms);
    bump.deferral = Some(Deferral { reason, owner, since_ms, last_look_ms: now_ms });
}

fn failed(bump: &mut Bump, next: Phase, reason: &str) {
    match (bump.phase, next) {
        (Phase::Settled, _) => {
            bump.remark = Some(format!("custody was kept, because it could not be archived: {reason}"));
        }
        (Phase::Closing(_), _) => {
            bump.remark.get_or_insert(format!("work copies could not be removed: {reason}"));
        }
        (Phase::RollingBack(_), Phase::Stuck) => {
            bump.tries += 1;
            bump.remark = Some(reason.to_owned());
        }
        (Phase::RollingBack(_), _) if next == bump.phase => {
            bump.tries += 1;
            bump.remark = Some(format!("try {} of {UNDO_TRIES}: {reason}", bump.tries));
        }
        _ => {}
    }
}

fn looked(bump: &mut Bump, next: Phase, look: SoakLook) {
    match look {
        SoakLook::Good => {
            bump.bad_looks = 0;
            bump.remark = None;
        }
        SoakLook::Unclear { reason } => bump.remark = Some(format!("in its soak, but cannot be looked at: {reason}")),
        SoakLook::Bad { reason, new_work, .. } => {
            bump.bad_looks += 1;
            if next == Phase::Soaking && bump.bad_looks >= super::cue::BAD_LOOKS {
                let work = new_work.map_or("an unknown amount of".to_owned(), |rows| format!("{rows} rows of"));
                bump.remark = Some(format!(
                    "needs a decision: {reason}. A rollback would set aside {work} new work (kept as salvage). \
                     To go back: `t3pin rollback {}`; to stay, repair it and the soak ends by itself",
                    bump.instance.user()
                ));
            }
        }
    }
}
