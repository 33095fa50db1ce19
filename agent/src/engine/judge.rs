//! What a probe means. A check that the old version failed too does not condemn the new one (promise 5).

use crate::domain::{ProbeReport, ProbeStep, RehearsalReport, StepOutcome, Verdict};

/// The verdict on a live server, given what the old version showed before (`baseline`; `None`: it was never probed).
pub fn verdict(baseline: Option<&ProbeReport>, report: &ProbeReport) -> Verdict {
    let Some(problem) = report.first_problem() else {
        if report.steps.is_empty() {
            return Verdict::Inconclusive { reason: "the probe made no check".to_owned() };
        }
        return Verdict::Healthy;
    };
    match &problem.outcome {
        StepOutcome::Passed => Verdict::Healthy,
        StepOutcome::Inconclusive { reason } => Verdict::Inconclusive { reason: reason.clone() },
        StepOutcome::Failed { reason, .. } => match baseline {
            Some(before) if before.passed(problem.step) => Verdict::Unhealthy { reason: reason.clone() },
            Some(_) => Verdict::Inconclusive { reason: format!("{reason} (the old version did not pass this check either)") },
            None => {
                Verdict::Inconclusive { reason: format!("{reason} (nothing to compare with: the old version was not probed)") }
            }
        },
    }
}

/// What the environment keeps from being known of the running old version, and at which step: the new one could not be judged any
/// better, so it would be rolled back. What the old version fails is no reason to wait.
pub fn unclear(baseline: &ProbeReport) -> Option<(ProbeStep, &str)> {
    let problem = baseline.first_problem()?;
    match &problem.outcome {
        StepOutcome::Inconclusive { reason } => Some((problem.step, reason)),
        StepOutcome::Passed | StepOutcome::Failed { .. } => None,
    }
}

/// The verdict on a rehearsal, given the old version on the same data (`control`; run only when the new one did not pass).
pub fn rehearsal(report: &RehearsalReport, control: Option<&RehearsalReport>) -> Verdict {
    match verdict(control.map(|c| &c.probe), &report.probe) {
        Verdict::Healthy if !report.intact => {
            condemned_unless(control.is_some_and(|c| !c.intact), "it left the copy's database corrupt (quick_check)".to_owned())
        }
        Verdict::Healthy if report.work_lost > 0 => condemned_unless(
            control.is_some_and(|c| c.work_lost > 0),
            format!("its migration removed {} rows of the user's work from the copy", report.work_lost),
        ),
        other => other,
    }
}

/// Whether the rehearsal of the old version is needed as a control: the new one did not simply pass.
pub fn needs_control(report: &RehearsalReport) -> bool {
    rehearsal(report, None) != Verdict::Healthy
}

fn condemned_unless(control_too: bool, reason: String) -> Verdict {
    if control_too {
        Verdict::Inconclusive { reason: format!("{reason} (the old version on the same data too)") }
    } else {
        Verdict::Unhealthy { reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::StepRecord;

    fn report(outcomes: &[(ProbeStep, StepOutcome)]) -> ProbeReport {
        let steps = outcomes.iter().map(|(step, outcome)| StepRecord { step: *step, outcome: outcome.clone(), ms: 1 }).collect();
        ProbeReport { steps, ..ProbeReport::default() }
    }

    fn failed() -> StepOutcome {
        StepOutcome::Failed { reason: "HTTP 500".to_owned(), contract_moved: false }
    }

    #[test]
    fn only_what_the_old_version_passed_can_fail_the_new_one() {
        let bad = report(&[(ProbeStep::Environment, StepOutcome::Passed), (ProbeStep::Exchange, failed())]);
        let good_before = report(&[(ProbeStep::Exchange, StepOutcome::Passed)]);
        let bad_before = report(&[(ProbeStep::Exchange, failed())]);
        assert!(matches!(verdict(Some(&good_before), &bad), Verdict::Unhealthy { .. }));
        assert!(matches!(verdict(Some(&bad_before), &bad), Verdict::Inconclusive { .. }));
        assert!(matches!(verdict(None, &bad), Verdict::Inconclusive { .. }));
    }

    #[test]
    fn a_probe_that_checked_nothing_is_never_healthy() {
        assert!(matches!(verdict(None, &ProbeReport::default()), Verdict::Inconclusive { .. }));
    }

    #[test]
    fn a_trouble_of_the_environment_never_condemns() {
        let unclear = report(&[(ProbeStep::Mint, StepOutcome::Inconclusive { reason: "no space left".to_owned() })]);
        let good = report(&[(ProbeStep::Mint, StepOutcome::Passed)]);
        assert!(matches!(verdict(Some(&good), &unclear), Verdict::Inconclusive { .. }));
    }
}
