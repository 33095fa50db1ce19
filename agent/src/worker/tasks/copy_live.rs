//! A consistent copy of a user's state while the server runs, for the rehearsal.

use std::path::Path;

use crate::worker::protocol::{LiveCopyReport, TaskError};

/// See [`crate::worker::Task::CopyLive`].
pub fn copy_live(userdata: &Path, dest: &Path) -> Result<LiveCopyReport, TaskError> {
    let _ = (userdata, dest);
    unimplemented!()
}
