//! The rehearsal, with the old version as a control when the new one does not simply pass.

use std::time::Duration;

use super::{Agent, data};
use crate::domain::{Instance, Paired, ProbeReport, ProbeStep, RehearsalReport, StepOutcome, StepRecord, Version};
use crate::engine::{Blame, Bump, Event, Fault, judge};
use crate::health::{self, RehearsalError};
use crate::worker::{LiveCopyReport, ProbeSpec};

/// A live copy of some GB takes minutes, not hours.
const COPY: Duration = Duration::from_secs(3600);

impl Agent {
    /// `Action::Rehearse`.
    pub(super) async fn rehearse(&self, bump: &Bump) -> Result<Event, Fault> {
        let rehearsed = self.rehearse_both(bump).await;
        // The copies are the user's own and only take room; that they cannot be removed changes nothing about the version.
        if let Err(error) = self.vault.discard_work(&bump.instance.place, bump.id).await {
            tracing::warn!(T3PIN_USER = %bump.instance.user(), T3PIN_BUMP = %bump.id, "the copy could not be removed: {error}");
        }
        let (report, control) = rehearsed?;
        Ok(Event::Rehearsed { report: Box::new(report), control: control.map(Box::new) })
    }

    async fn rehearse_both(&self, bump: &Bump) -> Result<(RehearsalReport, Option<RehearsalReport>), Fault> {
        self.vault.preflight(&bump.instance.place).await.map_err(data)?;
        let report = self.rehearse_one(bump, &bump.to).await?;
        if !judge::needs_control(&report) {
            return Ok((report, None));
        }
        tracing::info!(
            T3PIN_USER = %bump.instance.user(), T3PIN_BUMP = %bump.id, T3PIN_VERSION = %bump.to,
            "{} did not pass its rehearsal; rehearsing {} on the same data to compare", bump.to, bump.from
        );
        let control = self.rehearse_one(bump, &bump.from).await?;
        Ok((report, Some(control)))
    }

    /// What the probe inside the sandbox needs to know.
    pub fn rehearsal_spec(&self, instance: &Instance, version: &Version) -> ProbeSpec {
        let mut spec = self.probe_spec(instance, version, self.settings().start_deadline, None);
        // The reverse proxy leads to the real server, not into the sandbox.
        spec.dispatch = None;
        spec.address = format!("127.0.0.1:{}", instance.port);
        spec
    }

    async fn rehearse_one(&self, bump: &Bump, version: &Version) -> Result<RehearsalReport, Fault> {
        let begun = std::time::Instant::now();
        let place = &bump.instance.place;
        let (home, copied) = self.vault.copy_live(place, bump.id, COPY).await.map_err(data)?;
        let spec = self.rehearsal_spec(&bump.instance, version);
        let mut report = match health::rehearse(&self.systemd, &place.account, bump.id, &home, &copied, spec).await {
            Ok(report) => report,
            // A candidate that breaks its cage (memory, tasks, time) gives no report. The control tells whether it is its fault.
            Err(RehearsalError::NoReport(why)) => {
                let reason = format!("the rehearsal ended without an answer: {why}");
                broke_out(&copied, StepOutcome::Failed { reason, contract_moved: false })
            }
            Err(error @ (RehearsalError::OutOfMemory | RehearsalError::NoRoom(_))) => {
                broke_out(&copied, StepOutcome::Inconclusive { reason: error.to_string() })
            }
            Err(RehearsalError::Systemd(error)) => {
                return Err(Fault { reason: error.to_string(), blame: Blame::Environment });
            }
        };
        report.total_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }
}

fn broke_out(copied: &LiveCopyReport, outcome: StepOutcome) -> RehearsalReport {
    let steps = vec![StepRecord { step: ProbeStep::Environment, outcome, ms: 0 }];
    RehearsalReport {
        probe: ProbeReport { steps, ..ProbeReport::default() },
        level_before: copied.migration_level,
        level_after: None,
        start_ms: 0,
        total_ms: 0,
        sessions_lost: 0,
        lost: Paired::default(),
        work_lost: 0,
        intact: true,
        output_tail: vec![],
    }
}
