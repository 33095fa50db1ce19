//! Removing a work directory.

use std::path::Path;

use super::work_copy::split;
use crate::worker::files::{Dir, FileError, remove_tree};
use crate::worker::protocol::TaskError;

/// See [`crate::worker::Task::Discard`]. The `.t3pin` above it goes too when nothing else is in it.
pub fn discard(path: &Path) -> Result<(), TaskError> {
    let (parent, name) = split(path)?;
    if parent.file_name().is_none_or(|name| name != ".t3pin") || matches!(name, "." | "..") {
        return Err(FileError::bad(path, "is not a work directory of t3pin's").into());
    }
    if std::fs::symlink_metadata(parent).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Ok(());
    }
    let dir = Dir::open(parent)?;
    remove_tree(&dir, name)?;
    if dir.some_names(1)?.is_empty() {
        // Somebody else may put something there in between: then it stays.
        std::fs::remove_dir(parent).ok();
    }
    Ok(())
}
