//! One bump, from its plan to its end (DESIGN section 5). Read it from top to bottom.
//!
//! [`Bump::phase`] is the phase that is being worked on. It is written to the journal, synced, before its effects start,
//! so whatever the phase says *may* have begun, and nothing of a later phase has. [`Bump::due`] is the one action that the
//! phase wants done; [`step`] takes what came of it. Every (phase, event) pair is decided: what a phase does not expect
//! leaves it as it is, and the due action is simply done again.
//!
//! ```text
//! planned > rehearsed > ready > baselined > quiesced > secured > switched > started > verified > soaking > settled > closed
//!                                               \___________\_________\__________\_________\________/
//!                                     rolling back: quiesced | stopped > restored > restarted > rechecked > tidied > closed
//! ```

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::event::{Event, SoakLook};
use super::fault::{Blame, Fault};
use super::judge;
use super::phase::{Outcome, Phase, Rest, Undo};
use crate::domain::{
    BumpId, Deferral, DeferralOwner, Instance, ProbeReport, RehearsalReport, Salvage, Snapshot, UnixMs, Verdict, Version,
    WorkMarks,
};

/// How often a step of a rollback is tried before the bump is `stuck`.
const UNDO_TRIES: u32 = 3;
/// How many looks in a row must be bad before the soak acts: one slow answer is no fault.
const BAD_LOOKS: u32 = 3;

/// The transaction that moves one instance from version `from` to version `to`. All that is known of it; the journal keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bump {
    /// Its name.
    pub id: BumpId,
    /// Which instance.
    pub instance: Instance,
    /// Version A: what ran, and what runs again after a rollback.
    pub from: Version,
    /// Version B.
    pub to: Version,
    /// Why it was planned.
    pub reason: String,
    /// What is being worked on.
    pub phase: Phase,
    /// When it was planned.
    pub planned_ms: UnixMs,
    /// When it first went ahead after the rehearsal.
    pub begun_ms: Option<UnixMs>,
    /// When the server was last told to stop.
    pub stopped_ms: Option<UnixMs>,
    /// When a server answered again.
    pub answered_ms: Option<UnixMs>,
    /// When it ended, soak excluded.
    pub ended_ms: Option<UnixMs>,
    /// When the soak is over.
    pub soak_until_ms: Option<UnixMs>,
    /// How long the soak is to be, in ms.
    pub soak_ms: i64,
    /// What the rehearsal found.
    pub rehearsal: Option<RehearsalReport>,
    /// What the probe of the running old version found.
    pub baseline: Option<ProbeReport>,
    /// The last probe of the new version.
    pub probe: Option<ProbeReport>,
    /// How much work the data held when the new version was handed over to the user.
    pub marks: Option<WorkMarks>,
    /// The snapshot from before.
    pub snapshot: Option<Snapshot>,
    /// What the new version wrote before it was rolled back.
    pub salvage: Option<Salvage>,
    /// Why it is put off.
    pub deferral: Option<Deferral>,
    /// What went wrong first.
    pub fault: Option<Fault>,
    /// Something that a person should know or decide.
    pub remark: Option<String>,
    /// Bad looks in a row during the soak.
    pub bad_looks: u32,
    /// Failed tries of the present step of a rollback.
    pub tries: u32,
    /// The new version was started at least once, so what lies in place may be work.
    pub ran: bool,
    /// Custody has become an archived snapshot.
    pub archived: bool,
}

impl Bump {
    /// A bump that was planned and has done nothing.
    pub fn planned(
        id: BumpId,
        instance: Instance,
        from: Version,
        to: Version,
        reason: String,
        soak_ms: i64,
        now_ms: UnixMs,
    ) -> Self {
        Self {
            id,
            instance,
            from,
            to,
            reason,
            phase: Phase::Planned,
            planned_ms: now_ms,
            begun_ms: None,
            stopped_ms: None,
            answered_ms: None,
            ended_ms: None,
            soak_until_ms: None,
            soak_ms,
            rehearsal: None,
            baseline: None,
            probe: None,
            marks: None,
            snapshot: None,
            salvage: None,
            deferral: None,
            fault: None,
            remark: None,
            bad_looks: 0,
            tries: 0,
            ran: false,
            archived: false,
        }
    }

    /// The one action that the present phase wants done; `None` where the bump rests.
    pub fn due(&self) -> Option<Action> {
        match self.phase {
            Phase::Planned | Phase::Ready | Phase::Soaking | Phase::Stuck | Phase::Closed(_) => None,
            Phase::Rehearsed => Some(Action::Rehearse),
            Phase::Baselined => Some(Action::TakeBaseline),
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

    /// Whether the bump is over and needs nothing any more.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    /// Whether the user's server or data may be other than before, so that the bump has to be finished or undone.
    pub fn is_under_way(&self) -> bool {
        self.due().is_some()
    }

    /// How long nobody answered, in ms, once it is known.
    pub fn downtime_ms(&self) -> Option<u64> {
        Some((self.answered_ms? - self.stopped_ms?).max(0).unsigned_abs())
    }
}

/// What `event` makes of `bump` at `now_ms`, and the action that is due then.
pub fn step(bump: Bump, now_ms: UnixMs, event: Event) -> (Bump, Option<Action>) {
    let next = decide(bump, now_ms, event);
    let action = next.due();
    (next, action)
}

fn decide(mut bump: Bump, now_ms: UnixMs, event: Event) -> Bump {
    match (bump.phase, event) {
        // The way forward.
        (Phase::Planned, Event::GoAhead) => bump.phase = Phase::Rehearsed,
        (Phase::Rehearsed, Event::Rehearsed { report, control }) => {
            let verdict = judge::rehearsal(&report, control.as_deref());
            bump.rehearsal = Some(*report);
            match verdict {
                Verdict::Healthy => bump.phase = Phase::Ready,
                Verdict::Unhealthy { reason } => {
                    let fault = blame_rehearsal(&bump, reason);
                    close(&mut bump, Outcome::Refused, Some(fault), now_ms);
                }
                Verdict::Inconclusive { reason } => {
                    let reason = format!("the rehearsal could not tell: {reason}");
                    close(&mut bump, Outcome::Cancelled, Some(Fault { reason, blame: Blame::User }), now_ms);
                }
            }
        }
        (Phase::Ready, Event::GoAhead) => {
            bump.begun_ms = Some(now_ms);
            bump.phase = Phase::Baselined;
        }
        (Phase::Baselined, Event::BaselineTaken { report }) => {
            bump.baseline = Some(report);
            bump.phase = Phase::Quiesced;
        }
        (Phase::Quiesced, Event::Quiesced { stopped_ms }) => {
            bump.deferral = None;
            bump.stopped_ms = Some(stopped_ms);
            bump.phase = Phase::Secured;
        }
        (Phase::Secured, Event::Secured { snapshot }) => {
            bump.snapshot = Some(snapshot);
            bump.phase = Phase::Switched;
        }
        (Phase::Switched, Event::Switched) => {
            // From here the new version may write, even if we never see it start.
            bump.ran = true;
            bump.phase = Phase::Started;
        }
        (Phase::Started, Event::Started) => bump.phase = Phase::Verified,
        (Phase::Verified, Event::Probed { report, answered_ms, marks }) => {
            let verdict = judge::verdict(bump.baseline.as_ref(), &report);
            bump.probe = Some(report);
            match verdict {
                Verdict::Healthy => {
                    bump.answered_ms = bump.answered_ms.or(answered_ms);
                    bump.marks = bump.marks.take().or(marks);
                    bump.ended_ms = Some(now_ms);
                    bump.soak_until_ms = Some(now_ms.saturating_add(bump.soak_ms));
                    bump.phase = Phase::Soaking;
                }
                Verdict::Unhealthy { reason } => roll_back(&mut bump, Undo::Stopped, Fault { reason, blame: Blame::Version }),
                Verdict::Inconclusive { reason } => {
                    roll_back(&mut bump, Undo::Stopped, Fault { reason, blame: Blame::Environment })
                }
            }
        }
        (Phase::Soaking, Event::Looked(look)) => soak(&mut bump, now_ms, look),
        (Phase::Settled, Event::Archived) => {
            bump.archived = true;
            bump.phase = Phase::Closing(Outcome::Done);
        }
        (Phase::Closing(outcome), Event::Tidied) => bump.phase = Phase::Closed(outcome),

        // Put off and called off: only where the user is untouched.
        (Phase::Ready, Event::PutOff { reason, owner }) => put_off(&mut bump, now_ms, reason, owner),
        (Phase::Quiesced, Event::FoundBusy { reason, .. }) => {
            put_off(&mut bump, now_ms, reason, DeferralOwner::Activity);
            bump.phase = Phase::Ready;
        }
        (Phase::Planned | Phase::Ready, Event::CalledOff { reason }) => {
            bump.deferral = None;
            close(&mut bump, Outcome::Cancelled, Some(Fault { reason, blame: Blame::Operator }), now_ms);
        }

        // A rollback that a person asked for.
        (Phase::Soaking, Event::RollbackAsked { force, reason }) => ask_back(&mut bump, force, Rest::Soaking, reason),
        (Phase::Closed(Outcome::Done), Event::RollbackAsked { force, reason }) if bump.snapshot.is_some() => {
            ask_back(&mut bump, force, Rest::Done, reason);
        }
        (Phase::Stuck, Event::RollbackAsked { force, reason }) => ask_back(&mut bump, force, Rest::Stuck, reason),
        (Phase::RollingBack(Undo::Quiesced { .. }), Event::Quiesced { stopped_ms }) => {
            bump.stopped_ms = Some(stopped_ms);
            bump.answered_ms = None;
            bump.phase = Phase::RollingBack(Undo::Restored);
        }
        (Phase::RollingBack(Undo::Quiesced { rest, .. }), Event::FoundBusy { reason, .. }) => {
            bump.fault = None;
            bump.remark = Some(format!("the rollback that was asked for was not done: {reason}"));
            bump.phase = match rest {
                Rest::Soaking => Phase::Soaking,
                Rest::Done => Phase::Closed(Outcome::Done),
                Rest::Stuck => Phase::Stuck,
            };
        }

        // The way back.
        (Phase::RollingBack(Undo::Stopped), Event::Stopped) => {
            if bump.answered_ms.take().is_some() {
                bump.stopped_ms = Some(now_ms);
            }
            undo_next(&mut bump, Undo::Restored);
        }
        (Phase::RollingBack(Undo::Restored), Event::Restored { salvage }) => {
            bump.salvage = salvage.or(bump.salvage.take());
            undo_next(&mut bump, Undo::Restarted);
        }
        (Phase::RollingBack(Undo::Restarted), Event::Started) => undo_next(&mut bump, Undo::Rechecked),
        (Phase::RollingBack(Undo::Rechecked), Event::Probed { report, answered_ms, .. }) => {
            match judge::verdict(bump.baseline.as_ref(), &report) {
                Verdict::Healthy => bump.answered_ms = answered_ms,
                Verdict::Inconclusive { reason } => {
                    bump.remark = Some(format!("after the rollback {} runs, but could not be checked: {reason}", bump.from));
                }
                Verdict::Unhealthy { reason } => {
                    let reason = format!("{} does not come up on the old data either: {reason}", bump.from);
                    undo_failed(&mut bump, reason);
                    return bump;
                }
            }
            bump.ended_ms = Some(now_ms);
            bump.phase = Phase::Closing(Outcome::RolledBack);
        }

        // What fails: before the stop the user is untouched, after it everything is undone.
        (Phase::Rehearsed | Phase::Baselined, Event::ActionFailed(fault)) => {
            close(&mut bump, Outcome::Cancelled, Some(fault), now_ms)
        }
        (Phase::Quiesced, Event::ActionFailed(fault)) => roll_back(&mut bump, Undo::Restarted, fault),
        (Phase::Secured | Phase::Switched, Event::ActionFailed(fault)) => roll_back(&mut bump, Undo::Restored, fault),
        (Phase::Started | Phase::Verified, Event::ActionFailed(fault)) => roll_back(&mut bump, Undo::Stopped, fault),
        (Phase::Settled, Event::ActionFailed(fault)) => {
            bump.remark = Some(format!("custody was kept, because it could not be archived: {}", fault.reason));
            bump.phase = Phase::Closing(Outcome::Done);
        }
        (Phase::RollingBack(Undo::Quiesced { .. }), Event::ActionFailed(_)) => bump.phase = Phase::RollingBack(Undo::Stopped),
        (Phase::RollingBack(_), Event::ActionFailed(fault)) => undo_failed(&mut bump, fault.reason),
        (Phase::Closing(outcome), Event::ActionFailed(fault)) => {
            bump.remark.get_or_insert(format!("work copies could not be removed: {}", fault.reason));
            bump.phase = Phase::Closed(outcome);
        }

        // The agent died and came back. Before the stop: forget or wait. In the gap: undo. Once the new version runs on its
        // copy: verify it (again), because stopping it once more would cost the user more than looking. On the way back: go on.
        (Phase::Planned, Event::AgentRestarted) => {
            let fault = Fault { reason: "the agent was restarted before anything was done".to_owned(), blame: Blame::Operator };
            close(&mut bump, Outcome::Cancelled, Some(fault), now_ms);
        }
        (Phase::Rehearsed, Event::AgentRestarted) => {
            let fault = Fault { reason: "the agent was restarted during the rehearsal".to_owned(), blame: Blame::Operator };
            close(&mut bump, Outcome::Cancelled, Some(fault), now_ms);
        }
        (Phase::Baselined, Event::AgentRestarted) => bump.phase = Phase::Ready,
        (Phase::Quiesced, Event::AgentRestarted) => roll_back(&mut bump, Undo::Restarted, agent_died()),
        (Phase::Secured | Phase::Switched, Event::AgentRestarted) => roll_back(&mut bump, Undo::Restored, agent_died()),
        (Phase::Verified, Event::AgentRestarted) => bump.phase = Phase::Started,

        // Everything else changes nothing: the phase stays, and its action (if any) is done again.
        (_, _) => {}
    }
    bump
}

fn close(bump: &mut Bump, outcome: Outcome, fault: Option<Fault>, now_ms: UnixMs) {
    bump.fault = fault;
    bump.ended_ms = Some(now_ms);
    bump.phase = Phase::Closing(outcome);
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

fn put_off(bump: &mut Bump, now_ms: UnixMs, reason: String, owner: DeferralOwner) {
    let since_ms = bump.deferral.as_ref().map_or(now_ms, |deferral| deferral.since_ms);
    bump.deferral = Some(Deferral { reason, owner, since_ms, last_look_ms: now_ms });
}

fn agent_died() -> Fault {
    Fault { reason: "the agent died in the middle of the bump".to_owned(), blame: Blame::Environment }
}

fn roll_back(bump: &mut Bump, first: Undo, fault: Fault) {
    bump.fault.get_or_insert(fault);
    bump.tries = 0;
    bump.phase = Phase::RollingBack(first);
}

fn ask_back(bump: &mut Bump, force: bool, rest: Rest, reason: String) {
    bump.remark = None;
    bump.tries = 0;
    bump.fault = Some(Fault { reason, blame: Blame::Operator });
    bump.phase = Phase::RollingBack(Undo::Quiesced { force, rest });
}

fn undo_next(bump: &mut Bump, next: Undo) {
    bump.tries = 0;
    bump.phase = Phase::RollingBack(next);
}

fn undo_failed(bump: &mut Bump, reason: String) {
    bump.tries += 1;
    if bump.tries >= UNDO_TRIES {
        bump.remark = Some(reason);
        bump.phase = Phase::Stuck;
    } else {
        bump.remark = Some(format!("try {} of {UNDO_TRIES}: {reason}", bump.tries));
    }
}

/// People work on the new version by now: go back unasked only while nothing that matters would be set aside, or when
/// nobody can work anyway; otherwise a person has to decide.
fn soak(bump: &mut Bump, now_ms: UnixMs, look: SoakLook) {
    match look {
        SoakLook::Good => {
            bump.bad_looks = 0;
            bump.remark = None;
            if bump.soak_until_ms.is_none_or(|until| now_ms >= until) {
                bump.phase = Phase::Settled;
            }
        }
        SoakLook::Unclear { reason } => bump.remark = Some(format!("could not be looked at: {reason}")),
        SoakLook::Bad { reason, unusable, new_work } => {
            bump.bad_looks += 1;
            if bump.bad_looks < BAD_LOOKS {
                return;
            }
            if unusable || new_work == Some(0) {
                roll_back(bump, Undo::Stopped, Fault { reason, blame: Blame::Version });
            } else {
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

/// A planned bump from 0.0.24 to 0.0.25 for tests of this module and of others.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub fn sample(id: BumpId, user: &str) -> Bump {
    let account = crate::domain::Account {
        user: user.parse().unwrap(),
        uid: 1001,
        gid: 1001,
        home: format!("/home/{user}").into(),
        shell: "/bin/bash".into(),
    };
    let place = crate::domain::Place::of(account);
    let instance = Instance { unit: place.account.user.unit(), place, host: "127.0.0.1".to_owned(), port: 3773 };
    Bump::planned(id, instance, "0.0.24".parse().unwrap(), "0.0.25".parse().unwrap(), "test".to_owned(), 600_000, 0)
}

#[cfg(test)]
mod tests;
