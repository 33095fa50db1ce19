//! Running the candidate on the copy, inside the sandbox: start, probe, stop, inspect.

mod candidate;
mod inspect;
mod output;
mod room;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use inspect::{Marks, Seen};

use super::handshake::{self, Handshake};
use super::marks;
use super::paired::paired;
use super::program::{Surroundings, usual_umask};
use crate::domain::{Paired, RehearsalReport, StepOutcome};
use crate::worker::protocol::{ProbeSpec, RehearseSpec, TaskError, TaskErrorKind};

/// See [`crate::worker::Task::Rehearse`].
pub fn rehearse(spec: &RehearseSpec) -> Result<RehearsalReport, TaskError> {
    usual_umask();
    rehearse_with(spec, &marks::marks)
}

fn rehearse_with(spec: &RehearseSpec, marks: Marks<'_>) -> Result<RehearsalReport, TaskError> {
    let begun = Instant::now();
    let userdata = spec.probe.base_dir.join("userdata");
    let before = Seen::of(&userdata, marks)?;
    // Whose sessions they are is for people: that it cannot be told says nothing about the candidate.
    let devices = paired(&userdata, &[], &[]).map(|look| look.live).unwrap_or_default();
    let probe = inside(spec, &userdata);
    let surroundings = Surroundings { home: spec.home.clone(), ..Surroundings::of_worker() };
    let mut handshake = Handshake::new(&probe, &surroundings);
    let runtime = handshake::runtime().map_err(|error| TaskError {
        kind: TaskErrorKind::Other,
        message: format!("the sandbox could not start a rehearsal: {error}"),
    })?;
    let output_tail = runtime.block_on(candidate::run(&probe, spec.port, &mut handshake));
    drop(runtime);
    let own_sessions = u64::from(handshake.left_a_session());
    let probe = handshake.report;
    // What could not be told is not told by the copy either; and where the disk is full, it can hardly be looked at.
    let unclear = probe.first_problem().is_some_and(|problem| matches!(problem.outcome, StepOutcome::Inconclusive { .. }));
    let intact = unclear || inspect::is_intact(&userdata, before.has_database)?;
    let after = match intact {
        _ if unclear => Seen { level: None, ..before.clone() },
        true => Seen::of(&userdata, marks)?,
        // A database that is not one any more has lost everything.
        false => Seen::default(),
    };
    let lost = match intact {
        _ if unclear => Paired::default(),
        true => paired(&userdata, &devices.sessions(), &[]).map(|look| devices.lost(&look)).unwrap_or_default(),
        false => devices,
    };
    Ok(RehearsalReport {
        lost,
        level_before: before.level,
        level_after: after.level,
        start_ms: probe.steps.first().map_or(0, |first| first.ms),
        total_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        sessions_lost: before.sessions.saturating_sub(after.sessions.saturating_sub(own_sessions)),
        work_lost: before.marks.lost(&after.marks),
        intact,
        output_tail,
        probe,
    })
}

/// The probe as it is run inside: on the sandbox's own loopback, without the site's proxy, and expecting the identity that
/// the copy has.
fn inside(spec: &RehearseSpec, userdata: &Path) -> ProbeSpec {
    let identity = || {
        let mut id = String::new();
        std::fs::File::open(userdata.join("environment-id")).ok()?.take(256).read_to_string(&mut id).ok()?;
        Some(id.trim().to_owned()).filter(|id| handshake::is_environment_id(id))
    };
    ProbeSpec {
        address: format!("127.0.0.1:{}", spec.port),
        dispatch: None,
        control_group: handshake::own_group(),
        expect_environment_id: spec.probe.expect_environment_id.clone().or_else(identity),
        ..spec.probe.clone()
    }
}
