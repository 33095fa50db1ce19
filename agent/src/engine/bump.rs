//! One bump, from its plan to its end (DESIGN section 5). Read it from top to bottom.
//!
//! [`Bump::phase`] is the phase that is being worked on. It is written to the journal, synced, before its effects start,
//! so whatever the phase says *may* have begun, and nothing of a later phase has. [`Bump::due`] is the one action that the
//! phase wants done; [`step`] takes what came of it. [`course`] decides every phase with everything that can happen, and
//! has no "everything else": a new phase or cue does not compile until its pairs are decided. The page `docs/phases.md` is
//! made from it.
//!
//! ```text
//! planned > rehearsed > ready > baselined > seeded > quiesced > secured > switched > started > verified > soaking > settled > closed
//!                                                        \___________\_________\__________\_________\________/
//!                                     rolling back: quiesced | stopped > restored > restarted > rechecked > tidied > closed
//! ```

pub mod cue;
mod note;
mod record;

use super::action::Action;
use super::event::Event;
use super::phase::{Outcome, Phase, Rest, Undo};
use crate::domain::UnixMs;
use cue::Cue;

pub use record::Bump;
#[cfg(test)]
pub use record::sample;

/// What becomes of a bump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// On to this phase.
    To(Phase),
    /// The phase stays: what it wants is done again, or it rests on. With the reason.
    Stay(&'static str),
    /// Nothing, not even a note. With the reason why that is right.
    Ignore(&'static str),
}

impl Bump {
    /// The one action that the present phase wants done; `None` where the bump rests.
    pub fn due(&self) -> Option<Action> {
        match self.phase {
            Phase::Planned | Phase::Ready | Phase::Soaking | Phase::Stuck | Phase::Closed(_) => None,
            Phase::Rehearsed => Some(Action::Rehearse),
            Phase::Baselined => Some(Action::TakeBaseline),
            Phase::Seeded => Some(Action::Seed),
            Phase::Quiesced => Some(Action::Quiesce { force: false }),
            Phase::Secured => Some(Action::Secure),
            Phase::Switched => Some(Action::Switch),
            Phase::Started => Some(Action::Start { version: self.to.clone() }),
            Phase::Verified => Some(Action::Verify { version: self.to.clone() }),
            Phase::Settled => Some(Action::Archive),
            Phase::RollingBack(Undo::Quiesced { force, .. }) => Some(Action::Quiesce { force }),
            Phase::RollingBack(Undo::Stopped) => Some(Action::Stop),
            Phase::RollingBack(Undo::Restored) => Some(Action::Restore { keep_salvage: self.ran, unarchive: self.archived }),
            Phase::RollingBack(Undo::Restarted) => Some(Action::Start { version: self.from.clone() }),
            Phase::RollingBack(Undo::Rechecked) => Some(Action::Verify { version: self.from.clone() }),
            Phase::Closing(_) => Some(Action::Tidy),
        }
    }
}

/// What `event` makes of `bump` at `now_ms`, and the action that is due then.
pub fn step(mut bump: Bump, now_ms: UnixMs, event: Event) -> (Bump, Option<Action>) {
    let (cue, fault) = cue::weigh(&bump, now_ms, &event);
    let next = match course(bump.phase, cue) {
        Course::To(next) => Some(next),
        Course::Stay(_) => Some(bump.phase),
        Course::Ignore(_) => None,
    };
    if let Some(next) = next {
        note::take_down(&mut bump, next, now_ms, event, fault);
        bump.phase = next;
    }
    let action = bump.due();
    (bump, action)
}

/// What becomes of a bump in `phase` when `cue` happens.
pub fn course(phase: Phase, cue: Cue) -> Course {
    use Course::{Ignore, Stay, To};
    use Phase::{
        Baselined, Closed, Closing, Planned, Quiesced, Ready, Rehearsed, RollingBack, Secured, Seeded, Settled, Soaking, Started,
        Stuck, Switched, Verified,
    };
    match (phase, cue) {
        // The way forward.
        (Planned, Cue::GoAhead) => To(Rehearsed),
        (Rehearsed, Cue::RehearsedWell) => To(Ready),
        (Rehearsed, Cue::RehearsedBadly) => To(Closing(Outcome::Refused)),
        (Rehearsed, Cue::RehearsalUnclear) => To(Closing(Outcome::Cancelled)),
        (Ready, Cue::GoAhead) => To(Baselined),
        (Baselined, Cue::BaselineTaken) => To(Seeded),
        (Seeded, Cue::Seeded) => To(Quiesced),
        (Quiesced, Cue::Quiesced) => To(Secured),
        (Secured, Cue::Secured) => To(Switched),
        (Switched, Cue::Switched) => To(Started),
        (Started, Cue::Started) => To(Verified),
        (Verified, Cue::FoundWell) => To(Soaking),
        (Verified, Cue::FoundBad | Cue::FoundUnclear) => To(RollingBack(Undo::Stopped)),
        (Soaking, Cue::SoakGood) => Stay("until the soak is over"),
        (Soaking, Cue::SoakUnclear) => Stay("what cannot be told condemns nobody"),
        (Soaking, Cue::SoakBad) => Stay("one slow answer is no fault"),
        (Soaking, Cue::SoakUndecided) => Stay("a person decides about work that would be set aside"),
        (Soaking, Cue::SoakHopeless) => To(RollingBack(Undo::Stopped)),
        (Soaking, Cue::SoakOver) => To(Settled),
        (Settled, Cue::Archived) => To(Closing(Outcome::Done)),
        (Closing(outcome), Cue::Tidied) => To(Closed(outcome)),

        // Put off and called off: only where the user is untouched.
        (Ready, Cue::PutOff) => Stay("until the user is idle"),
        (Quiesced, Cue::FoundBusy) => To(Ready),
        (Planned | Ready, Cue::CalledOff) => To(Closing(Outcome::Cancelled)),

        // A rollback that a person asked for.
        (Soaking, Cue::RollbackAsked) => To(RollingBack(Undo::Quiesced { force: false, rest: Rest::Soaking })),
        (Soaking, Cue::RollbackForced) => To(RollingBack(Undo::Quiesced { force: true, rest: Rest::Soaking })),
        (Closed(Outcome::Done), Cue::RollbackAsked) => To(RollingBack(Undo::Quiesced { force: false, rest: Rest::Done })),
        (Closed(Outcome::Done), Cue::RollbackForced) => To(RollingBack(Undo::Quiesced { force: true, rest: Rest::Done })),
        (Stuck, Cue::RollbackAsked) => To(RollingBack(Undo::Quiesced { force: false, rest: Rest::Stuck })),
        (Stuck, Cue::RollbackForced) => To(RollingBack(Undo::Quiesced { force: true, rest: Rest::Stuck })),
        (RollingBack(Undo::Quiesced { .. }), Cue::Quiesced) => To(RollingBack(Undo::Restored)),
        (RollingBack(Undo::Quiesced { force: false, rest }), Cue::FoundBusy) => To(match rest {
            Rest::Soaking => Soaking,
            Rest::Done => Closed(Outcome::Done),
            Rest::Stuck => Stuck,
        }),
        (RollingBack(Undo::Quiesced { force: true, .. }), Cue::FoundBusy) => Ignore("by force nobody asks who works"),

        // The way back.
        (RollingBack(Undo::Stopped), Cue::Stopped) => To(RollingBack(Undo::Restored)),
        (RollingBack(Undo::Restored), Cue::Restored) => To(RollingBack(Undo::Restarted)),
        (RollingBack(Undo::Restarted), Cue::Started) => To(RollingBack(Undo::Rechecked)),
        (RollingBack(Undo::Rechecked), Cue::FoundWell | Cue::FoundUnclear) => To(Closing(Outcome::RolledBack)),
        (RollingBack(Undo::Rechecked), Cue::FoundBad) => Ignore("the old version being down is a failed step: ActionFailed"),

        // What fails: before the stop the user is untouched, after it everything is undone.
        (Rehearsed | Baselined | Seeded, Cue::ActionFailed) => To(Closing(Outcome::Cancelled)),
        (Quiesced, Cue::ActionFailed) => To(RollingBack(Undo::Restarted)),
        (Secured | Switched, Cue::ActionFailed) => To(RollingBack(Undo::Restored)),
        (Started | Verified, Cue::ActionFailed) => To(RollingBack(Undo::Stopped)),
        (Settled, Cue::ActionFailed) => To(Closing(Outcome::Done)),
        // By force nobody asks who works; else whether somebody does could not be told, and nothing is stopped by a failure.
        (RollingBack(Undo::Quiesced { force: true, .. }), Cue::ActionFailed) => To(RollingBack(Undo::Stopped)),
        (
            RollingBack(Undo::Quiesced { force: false, .. } | Undo::Stopped | Undo::Restored | Undo::Restarted | Undo::Rechecked),
            Cue::ActionFailed,
        ) => Stay("a step of a rollback is tried three times"),
        (
            RollingBack(Undo::Quiesced { force: false, .. } | Undo::Stopped | Undo::Restored | Undo::Restarted | Undo::Rechecked),
            Cue::FailedTooOften,
        ) => To(Stuck),
        (Closing(outcome), Cue::ActionFailed) => To(Closed(outcome)),

        // The agent died and came back. Before the stop: forget or wait. In the gap: undo. Once the new version runs on its
        // copy: verify it (again), because stopping it once more would cost the user more than looking. On the way back: go on.
        (Planned | Rehearsed, Cue::AgentRestarted) => To(Closing(Outcome::Cancelled)),
        (Baselined | Seeded, Cue::AgentRestarted) => To(Ready),
        (Quiesced, Cue::AgentRestarted) => To(RollingBack(Undo::Restarted)),
        (Secured | Switched, Cue::AgentRestarted) => To(RollingBack(Undo::Restored)),
        (Verified, Cue::AgentRestarted) => To(Started),
        (Started | Settled | RollingBack(_) | Closing(_), Cue::AgentRestarted) => Stay("its action is done again"),
        (Ready | Soaking | Stuck | Closed(_), Cue::AgentRestarted) => Ignore("nothing was under way"),

        // Orders that cannot be followed here.
        (Soaking | Stuck | Closed(_), Cue::GoAhead | Cue::PutOff | Cue::CalledOff) => Ignore("the bump is past that"),
        (Planned, Cue::PutOff) => Ignore("everybody is rehearsed, the busy too"),
        (Planned | Ready, Cue::RollbackAsked | Cue::RollbackForced) => Ignore("nothing was changed yet"),
        (Closed(Outcome::RolledBack | Outcome::Refused | Outcome::Cancelled), Cue::RollbackAsked | Cue::RollbackForced) => {
            Ignore("the old version runs on the old data")
        }
        (
            Rehearsed | Baselined | Seeded | Quiesced | Secured | Switched | Started | Verified | Settled | RollingBack(_)
            | Closing(_),
            Cue::GoAhead | Cue::PutOff | Cue::CalledOff | Cue::RollbackAsked | Cue::RollbackForced,
        ) => Ignore("what is under way is brought to its end first"),
        (
            Planned | Rehearsed | Ready | Baselined | Seeded | Quiesced | Secured | Switched | Started | Verified | Soaking
            | Settled | RollingBack(_) | Stuck | Closing(_) | Closed(_),
            Cue::NothingKept,
        ) => Ignore("there is nothing to go back to"),

        // Looks and failures that belong to other phases.
        (
            Planned | Rehearsed | Ready | Baselined | Seeded | Quiesced | Secured | Switched | Started | Verified | Settled
            | RollingBack(_) | Stuck | Closing(_) | Closed(_),
            Cue::SoakGood | Cue::SoakOver | Cue::SoakUnclear | Cue::SoakBad | Cue::SoakHopeless | Cue::SoakUndecided,
        ) => Ignore("only a soak is looked at"),
        (Planned | Ready | Soaking | Stuck | Closed(_), Cue::ActionFailed | Cue::FailedTooOften) => {
            Ignore("nothing was to be done")
        }
        (
            Rehearsed
            | Baselined
            | Seeded
            | Quiesced
            | Secured
            | Switched
            | Started
            | Verified
            | Settled
            | RollingBack(Undo::Quiesced { force: true, .. })
            | Closing(_),
            Cue::FailedTooOften,
        ) => Ignore("only a rollback tries again: ActionFailed"),

        // Answers to what this phase has not asked for: its own action is done (again).
        (
            Planned | Rehearsed | Ready | Baselined | Seeded | Quiesced | Secured | Switched | Started | Verified | Soaking
            | Settled | RollingBack(_) | Stuck | Closing(_) | Closed(_),
            Cue::RehearsedWell
            | Cue::RehearsedBadly
            | Cue::RehearsalUnclear
            | Cue::BaselineTaken
            | Cue::Seeded
            | Cue::Quiesced
            | Cue::FoundBusy
            | Cue::Secured
            | Cue::Switched
            | Cue::Started
            | Cue::FoundWell
            | Cue::FoundBad
            | Cue::FoundUnclear
            | Cue::Archived
            | Cue::Stopped
            | Cue::Restored
            | Cue::Tidied,
        ) => Ignore(NOT_ASKED),
    }
}

/// The reason for an answer that belongs to another action.
pub const NOT_ASKED: &str = "an answer to something else";

#[cfg(test)]
mod page;
#[cfg(test)]
mod tests;
