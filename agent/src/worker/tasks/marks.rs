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
    let answer = Answer::Marks { marks: database.marks()?, migration_level: database.level()?, sessions: database.sessions()? };
    database.close()?;
    Ok(answer)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::fs;

    use super::*;
    use crate::worker::tasks::stage::{UID, as_user, make_database};

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn marks_count_work_and_live_sessions_and_leave_nothing_behind() {
        for killed in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            std::os::unix::fs::chown(dir.path(), Some(UID), Some(UID)).unwrap();
            as_user(|| {
                make_database(&dir.path().join("state.sqlite"), 12, killed);
                let (before, content) = (names(dir.path()), fs::read(dir.path().join("state.sqlite")).unwrap());
                let Answer::Marks { marks, migration_level, sessions } = marks(dir.path()).unwrap() else { panic!() };
                assert_eq!((marks.tables["events"], migration_level, sessions), (12, Some(30), 1));
                assert_eq!(names(dir.path()), before);
                assert_eq!(fs::read(dir.path().join("state.sqlite")).unwrap(), content);
            });
        }
    }
}
