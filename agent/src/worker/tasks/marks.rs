//! How much work a database holds.

use std::path::Path;
use std::time::Duration;

use super::database::Database;
use super::work_copy::{DATABASE, open_userdata};
use crate::domain::{EntryKind, WorkMarks};
use crate::worker::files::FileError;
use crate::worker::protocol::{Answer, TaskError};

/// Reading marks holds a read transaction: no longer than this.
const LOOK: Duration = Duration::from_secs(10);

/// See [`crate::worker::Task::Marks`]. Without a database there is no work.
pub fn marks(userdata: &Path) -> Result<Answer, TaskError> {
    let nothing = Answer::Marks { marks: WorkMarks::default(), migration_level: None, sessions: 0 };
    let owner = rustix::process::geteuid().as_raw();
    let Some(dir) = open_userdata(userdata, owner)? else { return Ok(nothing) };
    let path = userdata.join(DATABASE);
    let Some(seen) = dir.stat(DATABASE)? else { return Ok(nothing) };
    if seen.check(&path, owner)? != EntryKind::File {
        return Err(FileError::bad(path, "is a directory").into());
    }
    let database = Database::open_source(&path, LOOK)?;
    let answer =
        Answer::Marks { marks: database.marks()?, migration_level: database.level()?, sessions: database.sessions()? };
    database.close()?;
    Ok(answer)
}
