//! Making one ordinary SQLite file of a database and its WAL.

use std::path::Path;
use std::time::Duration;

use super::database::Database;
use super::work_copy::{DATABASE, finish_database};
use crate::worker::files::{Dir, FileError};
use crate::worker::protocol::TaskError;

const LOOK: Duration = Duration::from_secs(300);

/// Merges the database in `dir`, which is the user's: everything in the WAL goes into the file, it is checked, and it leaves WAL mode,
/// so that whoever opens it needs nothing beside it, not even the right to write there.
pub fn merge(dir: &Path) -> Result<(), TaskError> {
    let dir = Dir::open(dir)?;
    if dir.stat(DATABASE)?.is_none() {
        return Err(FileError::bad(dir.path().join(DATABASE), "is not there").into());
    }
    finish_database(&dir)?;
    let database = Database::open_copy(&dir.path().join(DATABASE), LOOK)?;
    database.leave_wal_mode()?;
    database.close()
}
