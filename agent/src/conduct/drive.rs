//! Driving one bump: an event, the step it makes, its record in the ledger, and only then the action that is due, until the
//! bump rests.

use super::{Host, Ledger, deeds};
use crate::engine::{Action, Blame, Bump, Event, Outcome, Phase, step};
use crate::kill_point::{self, Point};

/// Told of every phase that a bump enters, but of no end.
pub type Entered<'a> = &'a (dyn Fn(&Bump) + Send + Sync);

/// Feeds `event` to `bump` and goes on until nothing is due. Returns the bump as it rests then.
///
/// When the ledger cannot be written, no effect of a phase that is not in it is begun: the phase that *is* in it is undone
/// as if the agent had died there, which is what recovery would do, too. That keeps the user served on a full disk.
pub async fn drive<H: Host>(host: &H, bump: Bump, event: Event, entered: Entered<'_>) -> Bump {
    let mut bump = bump;
    let mut event = event;
    let mut unwritten = false;
    loop {
        let (next, action) = step(bump.clone(), host.now_ms(), event.clone());
        match keep(host, &bump, &next, &event) {
            Ok(()) => unwritten = false,
            Err(error) if !unwritten && next.phase != bump.phase => {
                say(&bump, &format!("{error}; what is under way is undone"));
                unwritten = true;
                event = Event::AgentRestarted;
                let (undo, action) = step(bump.clone(), host.now_ms(), event.clone());
                bump = undo;
                let Some(action) = action else {
                    host.vault().discard_seed(bump.id).await;
                    return bump;
                };
                event = perform(host, &bump, &action).await;
                continue;
            }
            Err(error) => say(&bump, &format!("{error}; going on, so that the user is served")),
        }
        if next.phase != bump.phase && !next.is_closed() {
            entered(&next);
        }
        bump = next;
        let Some(action) = action else { return bump };
        host.note_doing(&bump);
        event = perform(host, &bump, &action).await;
        if let Event::ActionFailed(fault) = &event {
            say(&bump, &fault.reason);
        }
    }
}

/// Does `action` for `bump` and says what came of it.
async fn perform<H: Host>(host: &H, bump: &Bump, action: &Action) -> Event {
    let event = deeds::perform(host, bump, action).await.unwrap_or_else(Event::ActionFailed);
    kill_point::reach(Some(bump.instance.user()), Point::Done(bump.phase));
    event
}

/// Writes what `before` has become, and quarantines its version if that is at fault, or lifts the quarantine if the version has done well.
///
/// The quarantine comes first: a bump that is over and whose version nobody knows to be bad would be followed by the next user's.
fn keep<H: Host>(host: &H, before: &Bump, bump: &Bump, event: &Event) -> Result<(), <H::Ledger as Ledger>::Error> {
    let now = host.now_ms();
    // Of one that was over already it is not said again: somebody may have lifted it since.
    let told = before.is_closed() && bump.is_closed();
    let quarantined = match bump.fault.as_ref().filter(|fault| fault.blame == Blame::Version && !told) {
        Some(fault) => {
            let reason = format!("{} ({}, {})", fault.reason, bump.instance.user(), bump.id);
            host.ledger().add_quarantine(&bump.to, &reason, now)
        }
        None => Ok(()),
    };
    host.ledger().record(bump, Some(event), now).and(quarantined)?;
    // At both, so that dying between the records leaves nothing undone.
    if matches!(bump.phase, Phase::Closing(Outcome::Done) | Phase::Closed(Outcome::Done))
        && let Err(error) = host.ledger().vindicate(&bump.to, bump.planned_ms, now)
    {
        say(bump, &format!("{error}; {} stays quarantined, if it is, until `t3pin versions clear {}`", bump.to, bump.to));
    }
    kill_point::reach(Some(bump.instance.user()), Point::Recorded(bump.phase));
    Ok(())
}

fn say(bump: &Bump, what: &str) {
    tracing::warn!(
        T3PIN_USER = %bump.instance.user(), T3PIN_BUMP = %bump.id, T3PIN_VERSION = %bump.to, T3PIN_PHASE = ?bump.phase,
        "{}: {what}", bump.instance.user()
    );
}
