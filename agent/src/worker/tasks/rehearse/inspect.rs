//! The copy before and after.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::domain::WorkMarks;
use crate::worker::protocol::{Answer, TaskError, TaskErrorKind};

/// Tells how much work a database holds.
pub type Marks<'a> = &'a dyn Fn(&Path) -> Result<Answer, TaskError>;

/// A check of 1 GB takes 5 to 9 s from a cold disk.
const CHECK_DEADLINE: Duration = Duration::from_secs(120);

/// What the copy holds.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Whether there is a database.
    pub has_database: bool,
    /// Highest migration applied.
    pub level: Option<u32>,
    /// Sessions neither revoked nor expired.
    pub sessions: u64,
    /// How much work.
    pub marks: WorkMarks,
}

impl Seen {
    /// Looks at the copy.
    pub fn of(userdata: &Path, marks: Marks<'_>) -> Result<Self, TaskError> {
        let has_database = userdata.join("state.sqlite").symlink_metadata().is_ok();
        match marks(userdata)? {
            Answer::Marks { marks, migration_level, sessions } => {
                Ok(Self { has_database, level: migration_level, sessions, marks })
            }
            _ => Err(other("the copy's marks could not be read".to_owned())),
        }
    }
}

/// Whether the copy's database is sound (`PRAGMA quick_check`). None is fine where there was none. The copy is ours: it is
/// opened for writing so that the log of a candidate that had to be killed is recovered.
pub fn is_intact(userdata: &Path, expected: bool) -> Result<bool, TaskError> {
    let path = userdata.join("state.sqlite");
    match path.symlink_metadata() {
        Ok(meta) if meta.is_file() => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(!expected),
        Err(error) => return Err(other(format!("{} cannot be reached: {error}", path.display()))),
    }
    match quick_check(&path) {
        Ok(said) => Ok(said == "ok"),
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Ok(false),
            Some(ErrorCode::DiskFull) => {
                Err(TaskError { kind: TaskErrorKind::NoSpace, message: format!("no room to check {}", path.display()) })
            }
            _ => Err(other(format!("{} could not be checked: {error}", path.display()))),
        },
    }
}

fn quick_check(path: &Path) -> rusqlite::Result<String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.execute_batch("PRAGMA trusted_schema = OFF;")?;
    let until = Instant::now() + CHECK_DEADLINE;
    connection.progress_handler(100_000, Some(move || Instant::now() >= until))?;
    connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
}

fn other(message: String) -> TaskError {
    TaskError { kind: TaskErrorKind::Other, message }
}
