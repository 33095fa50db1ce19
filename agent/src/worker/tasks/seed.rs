//! The copy for the new version, made with the server stopped.

use std::path::Path;

use crate::{domain::SeedReport, worker::protocol::TaskError};

/// See [`crate::worker::Task::Seed`].
pub fn seed(userdata: &Path, dest: &Path) -> Result<SeedReport, TaskError> {
    let _ = (userdata, dest);
    unimplemented!()
}
