//! The journal's tables and their versions.

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rusqlite::{Connection, ErrorCode};

use super::JournalError;

/// The schema this t3pin writes. It only ever grows by additions that an older agent can ignore within one number.
const SCHEMA: i64 = 1;

const TABLES: &str = "
    CREATE TABLE bump_ids (id INTEGER PRIMARY KEY AUTOINCREMENT);
    CREATE TABLE bumps (
        id INTEGER PRIMARY KEY, user TEXT NOT NULL, closed INTEGER NOT NULL, body TEXT NOT NULL, updated_ms INTEGER NOT NULL
    );
    CREATE INDEX bumps_by_user ON bumps (user, closed);
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, bump INTEGER NOT NULL, at_ms INTEGER NOT NULL, phase TEXT NOT NULL, body TEXT NOT NULL
    );
    CREATE INDEX events_by_bump ON events (bump);
    CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE quarantine (version TEXT PRIMARY KEY, reason TEXT NOT NULL, since_ms INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE cleared (version TEXT PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID;
";

/// Made at every opening where it is missing: an older agent has no need of it.
const INDEX: &str = "
    CREATE INDEX IF NOT EXISTS bumps_by_version ON bumps (user, json_extract(body, '$.to'), updated_ms) WHERE closed;
";

/// It tells of everybody's work, and who can open it can lock it. What SQLite makes beside it gets the same mode.
fn keep_private(path: &Path) -> std::io::Result<()> {
    let file = std::fs::File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    for suffix in ["-wal", "-shm"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        match std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Opens `path`, checks it, and makes the tables when the file is new.
pub fn open(path: &Path) -> Result<Connection, JournalError> {
    let damaged = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            JournalError::Damaged { path: path.to_owned(), what: source.to_string() }
        }
        _ => JournalError::Sqlite { doing: "opened", source },
    };
    keep_private(path).map_err(|source| JournalError::Io { path: path.to_owned(), source })?;
    let connection = Connection::open(path).map_err(damaged)?;
    connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(damaged)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(damaged)?;
    if found > SCHEMA {
        return Err(JournalError::Newer { path: path.to_owned(), found, known: SCHEMA });
    }
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(damaged)?;
    if verdict != "ok" {
        return Err(JournalError::Damaged { path: path.to_owned(), what: verdict });
    }
    connection.pragma_update(None, "journal_mode", "wal").map_err(damaged)?;
    connection.pragma_update(None, "synchronous", "full").map_err(damaged)?;
    if found == 0 {
        connection
            .execute_batch(&format!("BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;"))
            .map_err(damaged)?;
    }
    connection.execute_batch(INDEX).map_err(damaged)?;
    Ok(connection)
}
