//! What an event comes down to. Everything that the course of a bump depends on besides its phase is weighed here, so that
//! what is left is a finite table (see [`super::course`]).

use strum::VariantArray;

use super::Bump;
use crate::domain::{ProbeStep, UnixMs, Verdict};
use crate::engine::{Blame, Event, Fault, Phase, SoakLook, Undo, judge};

/// How often a step of a rollback is tried before the bump is `stuck`.
pub const UNDO_TRIES: u32 = 3;
/// How many looks in a row must be bad before the soak acts: one slow answer is no fault.
pub const BAD_LOOKS: u32 = 3;

/// What happened to a bump, as far as its course depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray)]
pub enum Cue {
    /// The rollout lets it go on.
    GoAhead,
    /// The rollout puts it off.
    PutOff,
    /// It is no longer wanted.
    CalledOff,
    /// A person wants the old version and the old data back, but not at the price of work in flight; or they are tried to be
    /// brought back once more unasked.
    RollbackAsked,
    /// A person wants them back at any price.
    RollbackForced,
    /// A person wants them back, and nothing of the old data was kept.
    NothingKept,
    /// The agent was started again.
    AgentRestarted,
    /// What was due could not be done.
    ActionFailed,
    /// What was due could not be done, for the last time that it was tried.
    FailedTooOften,
    /// The new version does well on the copy.
    RehearsedWell,
    /// The new version does badly where the old one does well.
    RehearsedBadly,
    /// The rehearsal could not tell.
    RehearsalUnclear,
    /// The old version was probed.
    BaselineTaken,
    /// The copy for the new version is made as far as it can be beside the running server.
    Seeded,
    /// The unit is stopped.
    Quiesced,
    /// The user works; the unit runs on.
    FoundBusy,
    /// The original is in custody.
    Secured,
    /// The copy is in place, bound to the new version.
    Switched,
    /// The unit was started.
    Started,
    /// The probe passed all that the old version passed.
    FoundWell,
    /// The probe failed where the old version passed.
    FoundBad,
    /// The probe could not tell.
    FoundUnclear,
    /// The archive has the original.
    Archived,
    /// The unit is stopped, whatever it did.
    Stopped,
    /// The original is back, bound to the old version.
    Restored,
    /// Nothing of ours is left over.
    Tidied,
    /// All is well, and the soak goes on.
    SoakGood,
    /// All is well, and the soak is over.
    SoakOver,
    /// It could not be told.
    SoakUnclear,
    /// Something is wrong, not for long yet.
    SoakBad,
    /// Something is wrong, and going back sets no work aside, or nobody can work anyway.
    SoakHopeless,
    /// Something is wrong, and going back would set work aside: a person has to decide.
    SoakUndecided,
}

/// Weighs `event`. Where something went wrong, the fault says what and whose it is.
pub fn weigh(bump: &Bump, now_ms: UnixMs, event: &Event) -> (Cue, Option<Fault>) {
    let plain = |cue| (cue, None);
    let blamed = |cue, reason: String, blame| (cue, Some(Fault { reason, blame }));
    match event {
        Event::GoAhead => plain(Cue::GoAhead),
        Event::PutOff { .. } => plain(Cue::PutOff),
        Event::CalledOff { reason } => blamed(Cue::CalledOff, reason.clone(), Blame::Operator),
        Event::RollbackAsked { force, reason } => {
            let cue = match (bump.phase, force) {
                (Phase::Closed(_), _) if bump.snapshot.is_none() => Cue::NothingKept,
                (_, true) => Cue::RollbackForced,
                (_, false) => Cue::RollbackAsked,
            };
            blamed(cue, reason.clone(), Blame::Operator)
        }
        // As a person would ask for it, without force. What went wrong first stays what went wrong.
        Event::TriedAgain if bump.phase == Phase::Stuck => plain(Cue::RollbackAsked),
        Event::TriedAgain => plain(Cue::NothingKept),
        Event::AgentRestarted => match bump.phase {
            Phase::Planned => {
                blamed(Cue::AgentRestarted, "the agent was restarted before anything was done".to_owned(), Blame::Operator)
            }
            Phase::Rehearsed => {
                blamed(Cue::AgentRestarted, "the agent was restarted during the rehearsal".to_owned(), Blame::Operator)
            }
            _ => blamed(Cue::AgentRestarted, "the agent died in the middle of the bump".to_owned(), Blame::Environment),
        },
        Event::ActionFailed(fault) => (failed(bump), Some(fault.clone())),
        Event::Rehearsed { report, control } => match judge::rehearsal(report, control.as_deref()) {
            Verdict::Healthy => plain(Cue::RehearsedWell),
            Verdict::Unhealthy { reason } => (Cue::RehearsedBadly, Some(blame_rehearsal(bump, reason))),
            Verdict::Inconclusive { reason } => {
                blamed(Cue::RehearsalUnclear, format!("the rehearsal could not tell: {reason}"), Blame::User)
            }
        },
        // Nobody's server is stopped for a new version that could only be rolled back again.
        Event::BaselineTaken { report } => match judge::unclear(report) {
            None => plain(Cue::BaselineTaken),
            Some((step, reason)) => {
                // The proxy is everybody's; what else is in the way is this user's alone.
                let blame = if step == ProbeStep::Dispatch { Blame::Environment } else { Blame::User };
                let reason = format!("the running {} could not be checked, and was not touched: {reason}", bump.from);
                blamed(failed(bump), reason, blame)
            }
        },
        Event::Seeded { .. } => plain(Cue::Seeded),
        Event::Quiesced { .. } => plain(Cue::Quiesced),
        Event::FoundBusy { .. } => plain(Cue::FoundBusy),
        Event::Secured { .. } => plain(Cue::Secured),
        Event::Switched => plain(Cue::Switched),
        Event::Started => plain(Cue::Started),
        Event::Probed { report, .. } => match judge::verdict(bump.baseline.as_ref(), report) {
            Verdict::Healthy => plain(Cue::FoundWell),
            Verdict::Inconclusive { reason } => blamed(Cue::FoundUnclear, reason, Blame::Environment),
            // That the old version is down on its own data is a step of the rollback that did not work.
            Verdict::Unhealthy { reason } if bump.phase == Phase::RollingBack(Undo::Rechecked) => {
                let reason = format!("{} does not come up on the old data either: {reason}", bump.from);
                blamed(failed(bump), reason, Blame::Environment)
            }
            Verdict::Unhealthy { reason } => blamed(Cue::FoundBad, reason, Blame::Version),
        },
        Event::Looked(look) => soak(bump, now_ms, look),
        Event::Archived => plain(Cue::Archived),
        Event::Stopped => plain(Cue::Stopped),
        Event::Restored { .. } => plain(Cue::Restored),
        Event::Tidied => plain(Cue::Tidied),
    }
}

/// Only steps of a rollback are tried again; one by force goes on to what stops whatever runs.
fn failed(bump: &Bump) -> Cue {
    let counted = matches!(bump.phase, Phase::RollingBack(undo) if !matches!(undo, Undo::Quiesced { force: true, .. }));
    if counted && bump.tries + 1 >= UNDO_TRIES { Cue::FailedTooOften } else { Cue::ActionFailed }
}

/// Going to an older version, a failed rehearsal says more about the data than about the version.
fn blame_rehearsal(bump: &Bump, reason: String) -> Fault {
    if bump.from.is_newer_than(&bump.to) {
        let reason = format!(
            "{} cannot run on data that {} has migrated: {reason}. To go back use `t3pin rollback {}`, which restores the data as well",
            bump.to,
            bump.from,
            bump.instance.user()
        );
        Fault { reason, blame: Blame::User }
    } else {
        Fault { reason: format!("the rehearsal failed: {reason}"), blame: Blame::Version }
    }
}

/// People work on the new version by now: go back unasked only while nothing that matters would be set aside, or when
/// nobody can work anyway; otherwise a person has to decide.
fn soak(bump: &Bump, now_ms: UnixMs, look: &SoakLook) -> (Cue, Option<Fault>) {
    match look {
        SoakLook::Good if bump.soaked_ms(now_ms) >= bump.soak_ms => (Cue::SoakOver, None),
        SoakLook::Good => (Cue::SoakGood, None),
        SoakLook::Unclear { reason } => (Cue::SoakUnclear, Some(Fault { reason: reason.clone(), blame: Blame::Environment })),
        SoakLook::Bad { reason, unusable, new_work } => {
            let cue = if bump.bad_looks + 1 < BAD_LOOKS {
                Cue::SoakBad
            } else if *unusable || *new_work == Some(0) {
                Cue::SoakHopeless
            } else {
                Cue::SoakUndecided
            };
            (cue, Some(Fault { reason: reason.clone(), blame: Blame::Version }))
        }
    }
}
