//! Running the candidate on the copy, inside the sandbox.

use crate::domain::RehearsalReport;
use crate::worker::protocol::{RehearseSpec, TaskError};

/// See [`crate::worker::Task::Rehearse`].
pub fn rehearse(spec: &RehearseSpec) -> Result<RehearsalReport, TaskError> {
    let _ = spec;
    unimplemented!()
}
