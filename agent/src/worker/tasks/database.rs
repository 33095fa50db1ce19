//! Reading a user's database: hostile input, even for the user's own worker (SQLite, "Defense Against The Dark Arts").
//!
//! Connections distrust the schema, map no memory, wait only briefly for locks and are interrupted when their time is up.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use crate::domain::WorkMarks;
use crate::worker::protocol::{TaskError, TaskErrorKind};

/// How long to wait for another process's lock.
const BUSY: Duration = Duration::from_millis(500);
/// Whether a row of `auth_sessions` is a live session: neither revoked nor expired (T3-CONTRACT section 4).
pub const LIVE: &str = "revoked_at IS NULL AND (expires_at IS NULL OR CASE typeof(expires_at) \
     WHEN 'text' THEN expires_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now') ELSE expires_at > CAST(strftime('%s', 'now') AS INTEGER) * 1000 END)";
/// Tables beyond this are not marked.
const MAX_TABLES: usize = 500;

/// An open connection whose statements are interrupted when its time is up.
pub struct Database {
    connection: Connection,
    /// Dropping it ends the watch.
    _watch: Sender<()>,
}

impl Database {
    /// Opens a user's `state.sqlite` for reading, whether a server has it open or not.
    ///
    /// With a `-wal` beside it, it is opened read-only, so that nothing of a stopped server's is checkpointed or removed.
    /// Without one it was closed cleanly: a read-only connection would then leave an empty `-wal` and a `-shm` behind,
    /// while one that may write removes them when it closes and has nothing to checkpoint.
    pub fn open_source(path: &Path, time: Duration) -> Result<Self, TaskError> {
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        let running = std::fs::symlink_metadata(&wal).is_ok();
        let access = if running { OpenFlags::SQLITE_OPEN_READ_ONLY } else { OpenFlags::SQLITE_OPEN_READ_WRITE };
        let database = Self::open(path, access, time)?;
        database.pragma("query_only", "ON")?;
        Ok(database)
    }

    /// Opens a copy of ours, for recovery and checks. Nothing is synced: whoever needs the copy to last syncs it afterwards.
    pub fn open_copy(path: &Path, time: Duration) -> Result<Self, TaskError> {
        let database = Self::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, time)?;
        database.pragma("synchronous", "OFF")?;
        Ok(database)
    }

    /// Opens a copy of ours that nobody else has open and that has no log, to read it and leave nothing beside it
    /// (sqlite.org/uri.html, "immutable"; SNAPSHOTS, trap 10).
    pub fn open_finished(path: &Path, time: Duration) -> Result<Self, TaskError> {
        let dir = path.parent().and_then(|dir| dir.canonicalize().ok()).unwrap_or_default();
        let uri = super::look::immutable(&dir.join(path.file_name().unwrap_or_default()));
        Self::open(Path::new(&uri), OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI, time)
    }

    fn open(path: &Path, access: OpenFlags, time: Duration) -> Result<Self, TaskError> {
        // SQLITE_OPEN_NOFOLLOW refuses links anywhere in the path; those above the directory are none of our business.
        let resolved =
            path.parent().and_then(|dir| dir.canonicalize().ok()).zip(path.file_name()).map(|(dir, name)| dir.join(name));
        let resolved = resolved.as_deref().unwrap_or(path);
        let flags = access | OpenFlags::SQLITE_OPEN_NOFOLLOW | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let failed = |error| task_error(&format!("opening {}", path.display()), &error);
        let connection = Connection::open_with_flags(resolved, flags).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).map_err(failed)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false).map_err(failed)?;
        let watch = interrupt_after(&connection, time);
        let database = Self { connection, _watch: watch };
        database.pragma("cell_size_check", "ON")?;
        database.pragma("mmap_size", "0")?;
        Ok(database)
    }

    fn pragma(&self, name: &str, value: &str) -> Result<(), TaskError> {
        // Some pragmas answer with a row, some do not.
        self.connection
            .query_row(&format!("PRAGMA {name}={value}"), [], |_| Ok(()))
            .optional()
            .map(drop)
            .map_err(|error| task_error(&format!("PRAGMA {name}"), &error))
    }

    /// The connection itself, for what this type does not offer.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Closes it; the last connection of a database in WAL mode takes `-wal` and `-shm` away with it (SQLite, "WAL").
    pub fn close(self) -> Result<(), TaskError> {
        self.connection.close().map_err(|(_, error)| task_error("closing the database", &error))
    }

    /// Brings everything in the WAL into the database file itself.
    pub fn checkpoint(&self) -> Result<(), TaskError> {
        let busy: i64 = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .map_err(|error| task_error("bringing the WAL into the copy", &error))?;
        if busy == 0 {
            return Ok(());
        }
        Err(TaskError { kind: TaskErrorKind::Locked, message: "the copy of the database is in use by somebody else".to_owned() })
    }

    /// Makes it a database that needs no `-wal` beside it.
    pub fn leave_wal_mode(&self) -> Result<(), TaskError> {
        self.pragma("journal_mode", "DELETE")
    }

    /// `PRAGMA quick_check`: [`TaskErrorKind::Corrupt`] unless ok.
    pub fn quick_check(&self) -> Result<(), TaskError> {
        let finding: String = self
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|error| task_error("checking the database", &error))?;
        if finding == "ok" {
            return Ok(());
        }
        let finding: String = finding.chars().take(200).collect();
        Err(TaskError { kind: TaskErrorKind::Corrupt, message: format!("the database is corrupt: {finding}") })
    }

    /// Highest migration applied (T3-CONTRACT section 4); `None` when the database cannot tell.
    pub fn level(&self) -> Result<Option<u32>, TaskError> {
        if !self.has_table("effect_sql_migrations")? {
            return Ok(None);
        }
        let level: Option<i64> = self
            .connection
            .query_row("SELECT CAST(max(migration_id) AS INTEGER) FROM effect_sql_migrations", [], |row| row.get(0))
            .map_err(|error| task_error("reading the migration level", &error))?;
        Ok(level.and_then(|level| u32::try_from(level).ok()))
    }

    /// Sessions neither revoked nor expired (T3-CONTRACT section 4, `auth_sessions`); 0 without such a table.
    pub fn sessions(&self) -> Result<u64, TaskError> {
        if !self.has_table("auth_sessions")? {
            return Ok(0);
        }
        let count: i64 = self
            .connection
            .query_row(&format!("SELECT count(*) FROM auth_sessions WHERE {LIVE}"), [], |row| row.get(0))
            .map_err(|error| task_error("counting the sessions", &error))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// How much work the database holds. Tables about authentication and migrations, SQLite's own and virtual ones are left out.
    pub fn marks(&self) -> Result<WorkMarks, TaskError> {
        let failed = |error| task_error("reading the tables", &error);
        let list = "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 AND typeof(name) = 'text' \
             AND length(name) <= 128 AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE 'auth\\_%' ESCAPE '\\' \
             AND name <> 'effect_sql_migrations' ORDER BY name LIMIT ?1";
        let mut statement = self.connection.prepare(list).map_err(failed)?;
        let names = statement
            .query_map([i64::try_from(MAX_TABLES).unwrap_or(i64::MAX)], |row| row.get::<_, String>(0))
            .and_then(Iterator::collect::<Result<Vec<String>, _>>)
            .map_err(failed)?;
        let mut marks = WorkMarks::default();
        for name in names {
            let quoted = name.replace('"', "\"\"");
            let highest = format!("SELECT CAST(coalesce(max(rowid), 0) AS INTEGER) FROM \"{quoted}\"");
            let count = format!("SELECT count(*) FROM \"{quoted}\"");
            // A table WITHOUT ROWID has no such column: its rows are counted.
            let mark = match self.connection.query_row(&highest, [], |row| row.get::<_, i64>(0)) {
                Err(rusqlite::Error::SqlInputError { .. }) => self.connection.query_row(&count, [], |row| row.get(0)),
                other => other,
            };
            marks.tables.insert(name, mark.map_err(failed)?);
        }
        Ok(marks)
    }

    fn has_table(&self, name: &str) -> Result<bool, TaskError> {
        self.connection
            .query_row("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1", [name], |_| Ok(()))
            .optional()
            .map(|found| found.is_some())
            .map_err(|error| task_error("reading the schema", &error))
    }
}

/// What an error of SQLite's means for a task.
pub fn task_error(doing: &str, error: &rusqlite::Error) -> TaskError {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => TaskErrorKind::Corrupt,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => TaskErrorKind::Locked,
        Some(ErrorCode::DiskFull) => TaskErrorKind::NoSpace,
        Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory) | None => TaskErrorKind::Other,
        Some(_) => TaskErrorKind::Theirs,
    };
    TaskError { kind, message: format!("{doing}: {error}") }
}

/// Interrupts whatever the connection does after `time`, unless the returned end of the watch is dropped before.
fn interrupt_after(connection: &Connection, time: Duration) -> Sender<()> {
    let handle = connection.get_interrupt_handle();
    let (watch, ended) = channel::<()>();
    std::thread::spawn(move || {
        if ended.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
            handle.interrupt();
        }
    });
    watch
}
