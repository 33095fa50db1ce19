//! Driving one bump: an event, the step it makes, its record in the journal, and only then the action that is due, until the
//! bump rests.

use super::{Agent, now_ms};
use crate::engine::{Blame, Bump, Event, Phase, step};

/// Progress for whoever follows: one line per phase.
pub type Progress<'a> = &'a (dyn Fn(String) + Send + Sync);

impl Agent {
    /// Feeds `event` to `bump` and goes on until nothing is due. Returns the bump as it rests then.
    ///
    /// When the journal cannot be written, no effect of a phase that is not in it is begun: the phase that *is* in it is undone
    /// as if the agent had died there, which is what recovery would do, too. That keeps the user served on a full disk.
    pub async fn drive(&self, bump: Bump, event: Event, progress: Progress<'_>) -> Bump {
        let mut bump = bump;
        let mut event = event;
        let mut unwritten = false;
        loop {
            let (next, action) = step(bump.clone(), now_ms(), event.clone());
            match self.keep(&next, &event) {
                Ok(()) => unwritten = false,
                Err(error) if !unwritten && next.phase != bump.phase => {
                    say(&bump, &format!("{error}; what is under way is undone"));
                    unwritten = true;
                    event = Event::AgentRestarted;
                    let (undo, action) = step(bump.clone(), now_ms(), event.clone());
                    bump = undo;
                    let Some(action) = action else {
                        self.vault.discard_seed(bump.id).await;
                        return bump;
                    };
                    event = self.perform(&bump, &action).await;
                    continue;
                }
                Err(error) => say(&bump, &format!("{error}; going on, so that the user is served")),
            }
            if next.phase != bump.phase && !next.is_closed() {
                tell(&next, progress);
            }
            bump = next;
            let Some(action) = action else { return bump };
            self.board.set_doing(doing(&bump), format!("{}: {}", bump.instance.user(), words(&bump)));
            event = self.perform(&bump, &action).await;
            if let Event::ActionFailed(fault) = &event {
                say(&bump, &fault.reason);
            }
        }
    }

    /// Writes the bump, and quarantines its version if that is at fault.
    fn keep(&self, bump: &Bump, event: &Event) -> Result<(), crate::journal::JournalError> {
        let now = now_ms();
        self.journal.record(bump, Some(event), now)?;
        if let Some(fault) = bump.fault.as_ref().filter(|fault| fault.blame == Blame::Version && !bump.is_closed()) {
            let reason = format!("{} ({}, {})", fault.reason, bump.instance.user(), bump.id);
            self.journal.add_quarantine(&bump.to, &reason, now)?;
        }
        Ok(())
    }
}

fn say(bump: &Bump, what: &str) {
    tracing::warn!(
        T3PIN_USER = %bump.instance.user(), T3PIN_BUMP = %bump.id, T3PIN_VERSION = %bump.to, T3PIN_PHASE = ?bump.phase,
        "{}: {what}", bump.instance.user()
    );
}

/// One line per decision, with its reason.
fn tell(bump: &Bump, progress: Progress<'_>) {
    let line = format!("{}: {}", bump.instance.user(), words(bump));
    if bump.phase == Phase::Stuck {
        tracing::error!(
            T3PIN_USER = %bump.instance.user(), T3PIN_BUMP = %bump.id, T3PIN_VERSION = %bump.to, T3PIN_PHASE = ?bump.phase, "{line}"
        );
    } else {
        tracing::info!(
            T3PIN_USER = %bump.instance.user(), T3PIN_BUMP = %bump.id, T3PIN_VERSION = %bump.to, T3PIN_PHASE = ?bump.phase, "{line}"
        );
    }
    progress(line);
}

fn doing(bump: &Bump) -> &'static str {
    match bump.phase {
        Phase::Rehearsed => "rehearsing",
        Phase::RollingBack(_) => "rolling-back",
        _ => "bumping",
    }
}

/// What a phase means, for people.
pub fn words(bump: &Bump) -> String {
    use crate::engine::{Outcome, Undo};
    let (from, to) = (&bump.from, &bump.to);
    let why = bump.fault.as_ref().map_or(String::new(), |fault| format!(": {}", fault.reason));
    match bump.phase {
        Phase::Planned => format!("{from} -> {to} planned"),
        Phase::Rehearsed => format!("rehearsing {to} on a copy of the data"),
        Phase::Ready => match (&bump.deferral, &bump.rehearsal) {
            (Some(deferral), _) => format!("put off: {}", deferral.reason),
            (None, Some(report)) => format!(
                "rehearsed well in {:.1} s (migration {} -> {}, {} session(s) will have to pair again)",
                report.total_ms as f64 / 1000.0,
                level(report.level_before),
                level(report.level_after),
                report.sessions_lost
            ),
            (None, None) => "ready".to_owned(),
        },
        Phase::Baselined => format!("checking the running {from}"),
        Phase::Seeded => format!("copying the data for {to} beside the running server"),
        Phase::Quiesced => "looking once more, then stopping the server".to_owned(),
        Phase::Secured => "stopped; securing the data".to_owned(),
        Phase::Switched => format!("original in custody; switching to {to}"),
        Phase::Started => format!("starting {to}"),
        Phase::Verified => format!("pairing with {to} from outside"),
        Phase::Soaking => format!(
            "runs {to}, verified{}; in its soak",
            bump.downtime_ms().map_or(String::new(), |ms| format!(" after {ms} ms of downtime"))
        ),
        Phase::Settled => format!("{to} has soaked well; archiving"),
        Phase::RollingBack(Undo::Quiesced { .. }) => format!("going back to {from}{why}"),
        Phase::RollingBack(Undo::Stopped) => format!("rolling back to {from}{why}"),
        Phase::RollingBack(Undo::Restored) => format!("bringing the data of {from} back{why}"),
        Phase::RollingBack(Undo::Restarted) => format!("starting {from} on its own data"),
        Phase::RollingBack(Undo::Rechecked) => format!("checking {from}"),
        Phase::Stuck => format!(
            "STUCK{why}. {}. Both copies are in place; `t3pin rollback {}` tries again",
            bump.remark.as_deref().unwrap_or("no more is known"),
            bump.instance.user()
        ),
        Phase::Closing(Outcome::Done) => format!("settled on {to}"),
        Phase::Closing(Outcome::RolledBack) => format!("rolled back to {from} with its data{why}"),
        Phase::Closing(Outcome::Refused) => format!("refused{why}"),
        Phase::Closing(Outcome::Cancelled) => format!("called off{why}"),
        Phase::Closed(outcome) => words(&Bump { phase: Phase::Closing(outcome), ..bump.clone() }),
    }
}

fn level(level: Option<u32>) -> String {
    level.map_or("none".to_owned(), |level| level.to_string())
}
