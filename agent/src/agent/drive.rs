//! Driving one bump through [`conduct`], with a line for whoever follows at every phase.

use super::Agent;
use crate::conduct;
use crate::engine::{Bump, Event, Phase};

/// Progress for whoever follows: one line per phase.
pub type Progress<'a> = &'a (dyn Fn(String) + Send + Sync);

impl Agent {
    /// See [`conduct::drive`]. A bump that ends badly leaves its evidence, when all that serves the user is done.
    pub async fn drive(&self, bump: Bump, event: Event, progress: Progress<'_>) -> Bump {
        let before = bump.phase;
        // On the heap: whoever calls this is deep in the stack already.
        let bump = Box::pin(conduct::drive(self, bump, event, &|bump| tell(bump, progress))).await;
        if bump.phase != before {
            self.leave_evidence(&bump).await;
        }
        bump
    }
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

/// The word for what is being done, see `AgentStatus::state`.
pub fn doing(bump: &Bump) -> &'static str {
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
            "STUCK{why}. {}. Both copies are in place; `t3pin rollback {}` tries again at once",
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
