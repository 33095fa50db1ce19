//! A user's database, opened to look and nothing else.

use std::fmt::Write;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, Row};

/// How long a writer's lock is waited for at most.
const BUSY: Duration = Duration::from_millis(500);

/// Virtual machine steps between two looks at the clock; one step can be a function over megabytes.
const STEPS: i32 = 100;

/// Bytes that SQLite may allocate in this process.
const MAX_HEAP: u32 = 64 << 20;

/// Rows that one question may return; more than that is no answer.
const MAX_ROWS: usize = 4096;

/// What [`find`] found.
pub enum Found {
    /// There is no database: nobody ever worked here.
    Missing,
    /// There is one.
    Database(Whereabouts),
}

/// Which file, and how it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whereabouts {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// No log lies beside it, so no server has it open.
    at_rest: bool,
}

/// An open database. Errors are sentences for the operator.
pub struct Database {
    connection: Connection,
    whereabouts: Whereabouts,
}

/// Looks for `userdata/state.sqlite`, without opening it.
pub fn find(userdata: &Path) -> Result<Found, String> {
    // SQLite's NOFOLLOW refuses a link in any component; only one at the end would be wrong.
    let userdata = match userdata.canonicalize() {
        Ok(real) => real,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Missing),
        Err(error) => return Err(format!("{} cannot be reached: {error}", userdata.display())),
    };
    let path = userdata.join("state.sqlite");
    let meta = match path.symlink_metadata() {
        Ok(meta) if meta.is_file() => meta,
        Ok(_) => return Err(format!("{} is not a regular file", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Missing),
        Err(error) => return Err(format!("{} cannot be reached: {error}", path.display())),
    };
    let at_rest = match userdata.join("state.sqlite-wal").symlink_metadata() {
        Ok(meta) if meta.is_file() => false,
        Ok(_) => return Err(format!("{}-wal is not a regular file", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        Err(error) => return Err(format!("{}-wal cannot be reached: {error}", path.display())),
    };
    Ok(Found::Database(Whereabouts { path, device: meta.dev(), inode: meta.ino(), at_rest }))
}

/// Sees to it that a hostile database costs no memory and runs nothing.
fn guard(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "PRAGMA query_only = ON; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0;",
    )?;
    connection.query_row(&format!("PRAGMA hard_heap_limit = {MAX_HEAP}"), [], |_| Ok(()))
}

impl Database {
    /// Opens it read-only. With no log beside it, it is read as immutable so that looking leaves no `-wal` and `-shm` behind
    /// (sqlite.org/uri.html, "immutable").
    pub fn open(whereabouts: Whereabouts) -> Result<Self, String> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NOFOLLOW
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let uri = uri(&whereabouts.path, whereabouts.at_rest);
        let connection = Connection::open_with_flags(uri, flags).map_err(sentence)?;
        guard(&connection).map_err(sentence)?;
        Ok(Self { connection, whereabouts })
    }

    /// Whether this is what is open, and may be read through this connection for ever: what is read as immutable must not be.
    pub fn is_at(&self, whereabouts: &Whereabouts) -> bool {
        self.whereabouts == *whereabouts && !whereabouts.at_rest
    }

    /// All that is asked from now on may take `deadline` together, and a writer's lock is waited for at most half of it.
    pub fn within(&self, deadline: Duration) -> Result<(), String> {
        let until = Instant::now() + deadline;
        self.connection.busy_timeout(BUSY.min(deadline / 2)).map_err(sentence)?;
        self.connection.progress_handler(STEPS, Some(move || Instant::now() >= until)).map_err(sentence)
    }

    /// Whether there is no table at all: a server that has just been made.
    pub fn is_empty(&self) -> Result<bool, String> {
        Ok(self.number("SELECT count(*) FROM sqlite_schema WHERE type IN ('table', 'view')")? == Some(0))
    }

    /// Whether `table` is a real table with these columns; if not, what is missing.
    pub fn has_columns(&self, table: &str, columns: &[&str]) -> Result<Result<(), String>, String> {
        let real = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name = ?1 AND sql NOT LIKE 'create virtual%'";
        if self.rows(real, &[table], |_| Ok(()))?.is_empty() {
            return Ok(Err(format!("table {table}")));
        }
        let there = self.columns(table)?;
        let missing = columns.iter().find(|column| !there.iter().any(|name| name == *column));
        Ok(missing.map_or(Ok(()), |column| Err(format!("column {table}.{column}"))))
    }

    /// Names of a table's stored columns; none when there is no such table. Computed ones, which could run anything, are
    /// not listed (sqlite.org/pragma.html, table_info).
    pub fn columns(&self, table: &str) -> Result<Vec<String>, String> {
        self.rows("SELECT name FROM pragma_table_info(?1)", &[table], |row| row.get(0))
    }

    /// One number, `None` for NULL.
    pub fn number(&self, sql: &str) -> Result<Option<i64>, String> {
        Ok(self.rows(sql, &[], |row| row.get(0))?.into_iter().next().flatten())
    }

    /// All rows of a question.
    pub fn rows<T>(
        &self,
        sql: &str,
        parameters: &[&str],
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, String> {
        let mut statement = self.connection.prepare_cached(sql).map_err(sentence)?;
        let rows = statement.query_map(rusqlite::params_from_iter(parameters), read).map_err(sentence)?;
        let found = rows.take(MAX_ROWS + 1).collect::<rusqlite::Result<Vec<T>>>().map_err(sentence)?;
        if found.len() > MAX_ROWS { Err("the database has too many signs of work to read".to_owned()) } else { Ok(found) }
    }
}

/// The address of a database that nobody writes to (sqlite.org/uri.html, "immutable").
pub fn immutable(path: &Path) -> String {
    uri(path, true)
}

fn uri(path: &Path, immutable: bool) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => uri.push(char::from(*byte)),
            _ => write!(uri, "%{byte:02X}").unwrap_or_default(),
        }
    }
    if immutable { uri + "?immutable=1" } else { uri }
}

fn sentence(error: rusqlite::Error) -> String {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "the database is locked".to_owned(),
        Some(ErrorCode::OperationInterrupted) => "the database could not be read within the time for a look".to_owned(),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => "the database is corrupt or is not one".to_owned(),
        _ => {
            let what: String = error.to_string().chars().filter(|c| !c.is_control()).take(200).collect();
            format!("the database could not be read: {what}")
        }
    }
}
