//! Removing a work directory.

use std::path::Path;

use crate::worker::protocol::TaskError;

/// See [`crate::worker::Task::Discard`].
pub fn discard(path: &Path) -> Result<(), TaskError> {
    let _ = path;
    unimplemented!()
}
