//! Every event of a bump as one sentence; the same one several times in a row is told once.

use crate::api::explanation::ExplainedStep;
use crate::domain::{ProbeReport, StepOutcome};
use crate::engine::{Bump, Event, Phase, SoakLook, Undo, judge};
use crate::journal::Told;

/// The most steps that are told; of more, the last ones.
const MOST: usize = 200;

/// What happened to `bump`, oldest first.
pub fn told(bump: &Bump, story: &[Told]) -> Vec<ExplainedStep> {
    let mut steps: Vec<ExplainedStep> = vec![];
    for told in story {
        let event = serde_json::from_value(told.event.clone()).ok();
        let Some(text) = event.and_then(|event| sentence(bump, &event, told.entered())) else { continue };
        match steps.last_mut().filter(|last| last.text == text) {
            Some(last) => (last.last_ms, last.times) = (told.at_ms, last.times + 1),
            None => steps.push(ExplainedStep { at_ms: told.at_ms, last_ms: told.at_ms, times: 1, text }),
        }
    }
    steps.split_off(steps.len().saturating_sub(MOST))
}

/// What `event`, which led to the phase `entered`, means; `None` for what nobody needs to know.
fn sentence(bump: &Bump, event: &Event, entered: Option<Phase>) -> Option<String> {
    let (from, to) = (&bump.from, &bump.to);
    let back = matches!(entered, Some(Phase::RollingBack(_) | Phase::Stuck));
    Some(match event {
        Event::GoAhead if entered == Some(Phase::Rehearsed) => format!("its turn: {to} is rehearsed on a copy of the data"),
        Event::GoAhead => format!("the user is idle: it begins with a look at the running {from}"),
        Event::PutOff { reason, .. } => format!("put off: {reason}"),
        Event::CalledOff { reason } => format!("called off: {reason}"),
        Event::RollbackAsked { force, reason } => {
            format!("{reason}{}", if *force { ", whoever is at work" } else { "" })
        }
        Event::TriedAgain => format!("the way back to {from} was tried again"),
        Event::AgentRestarted => "the agent was started again and took the bump up where it was".to_owned(),
        Event::ActionFailed(fault) => format!("this failed: {}", fault.reason),
        Event::Rehearsed { report, control } => {
            let took = report.total_ms as f64 / 1000.0;
            match judge::rehearsal(report, control.as_deref()) {
                crate::domain::Verdict::Healthy => {
                    let level = |level: Option<u32>| level.map_or_else(|| "none".to_owned(), |level| level.to_string());
                    format!(
                        "rehearsed well in {took:.1} s; migration level {} -> {}; {} session(s) will have to pair again",
                        level(report.level_before),
                        level(report.level_after),
                        report.sessions_lost
                    )
                }
                crate::domain::Verdict::Unhealthy { reason } => format!("did badly in the rehearsal ({took:.1} s): {reason}"),
                crate::domain::Verdict::Inconclusive { reason } => {
                    format!("the rehearsal could not tell ({took:.1} s): {reason}")
                }
            }
        }
        Event::BaselineTaken { report } => format!("{from}: {}", seen(report)),
        Event::Seeded { later: None } => "copied the data beside the running server".to_owned(),
        Event::Seeded { later: Some(why) } => format!("the data is copied when the server stands: {why}"),
        Event::Quiesced { .. } => "nobody at work: the server was stopped".to_owned(),
        Event::FoundBusy { reason, .. } => format!("somebody is at work, so the server runs on: {reason}"),
        Event::Secured { snapshot } => {
            format!("the data as {from} left it is in custody ({} bytes)", snapshot.bytes)
        }
        Event::Switched => format!("a copy of the data is in place, bound to {to}"),
        Event::Started => format!("{} was started", if back { from } else { to }),
        Event::Probed { report, .. } => {
            let old = matches!(entered, Some(Phase::RollingBack(Undo::Rechecked) | Phase::Stuck | Phase::Closing(_)));
            format!("{}: {}", if old { from } else { to }, seen(report))
        }
        Event::Looked(SoakLook::Good) if entered == Some(Phase::Settled) => format!("{to} has soaked well"),
        Event::Looked(SoakLook::Good) => return None,
        Event::Looked(SoakLook::Bad { reason, .. }) => format!("a look in the soak found it bad: {reason}"),
        Event::Looked(SoakLook::Unclear { reason }) => format!("a look in the soak could not tell: {reason}"),
        Event::Archived => "the data from before is in the archive".to_owned(),
        Event::Stopped => format!("{to} was stopped"),
        Event::Restored { salvage: Some(salvage) } => {
            format!("the data of {from} is back in place; what {to} wrote is set aside ({} bytes)", salvage.bytes)
        }
        Event::Restored { salvage: None } => format!("the data of {from} is back in place"),
        Event::Tidied => "tidied up; it is over".to_owned(),
    })
}

/// What a probe saw.
fn seen(report: &ProbeReport) -> String {
    match report.first_problem().map(|problem| (problem.step, &problem.outcome)) {
        Some((step, StepOutcome::Failed { reason, .. })) => format!("probed from outside, failed at {step:?}: {reason}"),
        Some((step, StepOutcome::Inconclusive { reason })) => {
            format!("probed from outside, could not tell at {step:?}: {reason}")
        }
        _ => format!("paired with from outside, all well ({} ms)", report.ms),
    }
}
