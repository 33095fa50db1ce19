//! A consistent copy of a user's state while the server runs, for the rehearsal.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::database::{Database, task_error};
use super::work_copy::{DATABASE, Holdings, empty, finish_database, fresh, open_userdata};
use crate::domain::{ATTACHMENTS, EntryKind, STATE_ENTRIES, UnixMs};
use crate::worker::files::{Deadline, Dir, FileError, copy_entries, dress};
use crate::worker::protocol::{LiveCopyReport, TaskError, TaskErrorKind};

/// The backup of a large database may take minutes; the parent's deadline ends it earlier if it wants to.
const BACKUP: Duration = Duration::from_secs(3600);

/// See [`crate::worker::Task::CopyLive`].
pub fn copy_live(userdata: &Path, dest: &Path) -> Result<LiveCopyReport, TaskError> {
    let owner = rustix::process::geteuid().as_raw();
    let source = open_userdata(userdata, owner)?;
    let copy = fresh(dest)?;
    let taken_ms = now_ms();
    let Some(source) = source else {
        return Ok(LiveCopyReport { bytes: 0, migration_level: None, sessions: 0, taken_ms });
    };
    // The database first: what is copied after it may be newer, never older, as after a crash of the server.
    let holdings = copy_database(&source, &copy, owner)?;
    let database_bytes = copy.stat(DATABASE)?.map_or(0, |seen| seen.bytes);
    // Without the attachments, which may be far more than all the rest, and which nothing opens before a person asks for one.
    let others: Vec<&str> =
        STATE_ENTRIES.into_iter().filter(|name| !name.starts_with(DATABASE) && *name != ATTACHMENTS).collect();
    let (entries, _) = copy_entries(&source, &others, owner, &copy, Deadline::NONE)?;
    dress(&copy, &entries, None)?;
    let bytes = entries.iter().map(|entry| entry.bytes).sum::<u64>() + database_bytes;
    Ok(LiveCopyReport { bytes, migration_level: holdings.level, sessions: holdings.sessions, taken_ms })
}

/// The database by SQLite's backup API in one single step: step by step it starves beside a writer (SNAPSHOTS, trap 1),
/// and copying files beside a writer corrupts (trap 2). SQLite alone opens the database here (trap 4).
fn copy_database(source: &Dir, copy: &Dir, owner: u32) -> Result<Holdings, TaskError> {
    let path = source.path().join(DATABASE);
    let Some(seen) = source.stat(DATABASE)? else { return Ok(Holdings::default()) };
    if seen.check(&path, owner)? != EntryKind::File {
        return Err(FileError::bad(path, "is a directory").into());
    }
    if seen.bytes == 0 {
        return Err(empty(&path));
    }
    drop(copy.create(DATABASE)?);
    let target_path = copy.path().join(DATABASE);
    let from = Database::open_source(&path, BACKUP)?;
    let mut to = Connection::open_with_flags(&target_path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| task_error(&format!("opening {}", target_path.display()), &error))?;
    // A copy that is thrown away after the rehearsal needs no syncing.
    to.execute_batch("PRAGMA synchronous=OFF").map_err(|error| task_error("preparing the copy", &error))?;
    let failed = |error| task_error(&format!("copying {}", path.display()), &error);
    match Backup::new(from.connection(), &mut to).and_then(|backup| backup.step(-1)).map_err(failed)? {
        StepResult::Done => {}
        _ => {
            let message = format!("{} is locked", path.display());
            return Err(TaskError { kind: TaskErrorKind::Locked, message });
        }
    }
    to.close().map_err(|(_, error)| failed(error))?;
    from.close()?;
    let holdings = finish_database(copy)?;
    let entry = crate::domain::StateEntry {
        path: DATABASE.to_owned(),
        kind: EntryKind::File,
        mode: seen.mode | 0o600,
        bytes: seen.bytes,
        blake3: String::new(),
    };
    dress(copy, &[entry], None)?;
    Ok(holdings)
}

fn now_ms() -> UnixMs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMs::try_from(since.as_millis()).unwrap_or(UnixMs::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::worker::tasks::stage::{UID, as_user};

    #[test]
    fn a_copy_beside_a_busy_writer_is_consistent_and_has_all_committed_work() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(UID), Some(UID)).unwrap();
        let (userdata, copy) = (dir.path().join("userdata"), dir.path().join("home/.t3/userdata"));
        let path = userdata.join("state.sqlite");
        let open = as_user(|| {
            std::fs::create_dir(&userdata).unwrap();
            std::fs::write(userdata.join("environment-id"), b"id").unwrap();
            let db = Connection::open(&path).unwrap();
            db.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE one(x); CREATE TABLE two(x);").unwrap();
            db
        });
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut written = 0;
                while !stop.load(Ordering::Relaxed) {
                    open.execute_batch("BEGIN; INSERT INTO one VALUES (1); INSERT INTO two VALUES (1); COMMIT").unwrap();
                    written += 1;
                }
                (open, written)
            });
            for _ in 0..10 {
                let report = as_user(|| copy_live(&userdata, &copy)).unwrap();
                assert!(report.bytes > 0 && report.taken_ms > 0);
                let db = Connection::open(copy.join("state.sqlite")).unwrap();
                let rows = "SELECT (SELECT count(*) FROM one), (SELECT count(*) FROM two)";
                let (one, two): (i64, i64) = db.query_row(rows, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
                assert_eq!(one, two, "half a transaction was copied");
            }
            stop.store(true, Ordering::Relaxed);
            let (_open, written) = writer.join().unwrap();
            as_user(|| copy_live(&userdata, &copy)).unwrap();
            let db = Connection::open(copy.join("state.sqlite")).unwrap();
            assert_eq!(db.query_row("SELECT count(*) FROM one", [], |row| row.get::<_, i64>(0)).unwrap(), written);
        });
        assert_eq!(std::fs::read(copy.join("environment-id")).unwrap(), b"id");
    }

    #[test]
    fn without_a_database_there_is_nothing_to_copy() {
        let dir = tempfile::tempdir().unwrap();
        let report = copy_live(&dir.path().join("userdata"), &dir.path().join("copy")).unwrap();
        assert_eq!((report.bytes, report.migration_level, report.sessions), (0, None, 0));
    }
}
