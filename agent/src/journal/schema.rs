//! The journal's tables, their checksums, and opening a file that is whole.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::sums::Sum;
use super::{JournalError, disk};

/// The schema this t3pin writes. It only ever grows by additions that an older agent can ignore within one number.
/// 1 had no checksums.
pub const SCHEMA: i64 = 2;

const TABLES: &str = "
    CREATE TABLE bumps (
        id INTEGER PRIMARY KEY, user TEXT NOT NULL, closed INTEGER NOT NULL, body TEXT NOT NULL, updated_ms INTEGER NOT NULL,
        seq INTEGER NOT NULL, sum TEXT NOT NULL
    );
    CREATE INDEX bumps_by_user ON bumps (user, closed);
    CREATE INDEX bumps_by_version ON bumps (user, json_extract(body, '$.to'), seq) WHERE closed;
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY, bump INTEGER NOT NULL, at_ms INTEGER NOT NULL, phase TEXT NOT NULL, body TEXT NOT NULL,
        sum TEXT NOT NULL
    );
    CREATE INDEX events_by_bump ON events (bump);
    CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL, seq INTEGER NOT NULL, sum TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE meta (
        one INTEGER PRIMARY KEY CHECK (one = 1), schema INTEGER NOT NULL, seq INTEGER NOT NULL, tally TEXT NOT NULL, sum TEXT NOT NULL
    );
";

/// One row of `bumps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BumpRow {
    /// Number of the bump.
    pub id: u32,
    /// Whose.
    pub user: String,
    /// Whether it is over.
    pub closed: bool,
    /// The bump as JSON.
    pub body: String,
    /// When it was written.
    pub updated_ms: i64,
    /// Number of the record.
    pub seq: u64,
}

/// One row of `events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// Number of the record.
    pub seq: u64,
    /// Number of the bump.
    pub bump: u32,
    /// When.
    pub at_ms: i64,
    /// The phase it led to, as JSON.
    pub phase: String,
    /// The event as JSON.
    pub body: String,
}

/// All that a journal holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// Bumps.
    pub bumps: Vec<BumpRow>,
    /// Their events.
    pub events: Vec<EventRow>,
    /// Everything else, each with the number of its record.
    pub facts: BTreeMap<String, (String, u64)>,
}

impl Rows {
    /// The highest number of a record.
    pub fn newest(&self) -> u64 {
        let numbers = self.bumps.iter().map(|row| row.seq).chain(self.events.iter().map(|row| row.seq));
        numbers.chain(self.facts.values().map(|(_, seq)| *seq)).max().unwrap_or(0)
    }
}

/// Where the file stands: the number of the last record and the sum of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// Number of the last record.
    pub seq: u64,
    /// Sum of all records.
    pub tally: Sum,
}

impl BumpRow {
    /// Its checksum.
    pub fn sum(&self) -> Sum {
        let (id, closed, at, seq) =
            (self.id.to_string(), self.closed.to_string(), self.updated_ms.to_string(), self.seq.to_string());
        Sum::of("bumps", &[&id, &self.user, &closed, &self.body, &at, &seq])
    }
}

impl EventRow {
    /// Its checksum.
    pub fn sum(&self) -> Sum {
        let (seq, bump, at) = (self.seq.to_string(), self.bump.to_string(), self.at_ms.to_string());
        Sum::of("events", &[&seq, &bump, &at, &self.phase, &self.body])
    }
}

/// The checksum of a fact.
pub fn fact_sum(key: &str, value: &str, seq: u64) -> Sum {
    Sum::of("facts", &[key, value, &seq.to_string()])
}

impl Standing {
    fn sum(&self) -> Sum {
        Sum::of("meta", &[&SCHEMA.to_string(), &self.seq.to_string(), &self.tally.to_string()])
    }

    /// Writes it; part of every transaction.
    pub fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        let sum = self.sum().to_string();
        connection
            .prepare_cached("INSERT OR REPLACE INTO meta (one, schema, seq, tally, sum) VALUES (1, ?1, ?2, ?3, ?4)")?
            .execute(params![SCHEMA, number(self.seq), self.tally.to_string(), sum])
            .map(drop)
    }
}

/// Writes a bump and returns what that does to the tally.
pub fn put_bump(connection: &Connection, row: &BumpRow) -> rusqlite::Result<Sum> {
    let before = connection.prepare_cached("SELECT sum FROM bumps WHERE id = ?1")?.query_row([row.id], sum_at(0)).optional()?;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO bumps (id, user, closed, body, updated_ms, seq, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![row.id, row.user, row.closed, row.body, row.updated_ms, number(row.seq), row.sum().to_string()])?;
    Ok(row.sum().with(before.unwrap_or_default()))
}

/// Writes an event and returns what that does to the tally.
pub fn put_event(connection: &Connection, row: &EventRow) -> rusqlite::Result<Sum> {
    connection
        .prepare_cached("INSERT INTO events (seq, bump, at_ms, phase, body, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![number(row.seq), row.bump, row.at_ms, row.phase, row.body, row.sum().to_string()])?;
    Ok(row.sum())
}

/// Writes a fact, or takes it away, and returns what that does to the tally.
pub fn put_fact(connection: &Connection, key: &str, value: Option<&str>, seq: u64) -> rusqlite::Result<Sum> {
    let before = connection.prepare_cached("SELECT sum FROM facts WHERE key = ?1")?.query_row([key], sum_at(0)).optional()?;
    let before = before.unwrap_or_default();
    let Some(value) = value else {
        connection.prepare_cached("DELETE FROM facts WHERE key = ?1")?.execute([key])?;
        return Ok(before);
    };
    let sum = fact_sum(key, value, seq);
    connection
        .prepare_cached("INSERT OR REPLACE INTO facts (key, value, seq, sum) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![key, value, number(seq), sum.to_string()])?;
    Ok(sum.with(before))
}

/// Makes a whole new journal at `path`, which must not be there, and syncs it. It counts once it has its final name.
pub fn build(path: &Path, rows: &Rows, at_least: u64) -> Result<(), JournalError> {
    let writing = super::writing;
    disk::write_new(path, b"").map_err(super::io(path))?;
    let mut connection = Connection::open(path).map_err(writing)?;
    let transaction = connection.transaction().map_err(writing)?;
    let fill = |connection: &Connection| {
        connection.execute_batch(TABLES)?;
        connection.pragma_update(None, "user_version", SCHEMA)?;
        let mut standing = Standing { seq: rows.newest().max(at_least), tally: Sum::default() };
        for row in &rows.bumps {
            standing.tally = standing.tally.with(put_bump(connection, row)?);
        }
        for row in &rows.events {
            standing.tally = standing.tally.with(put_event(connection, row)?);
        }
        for (key, (value, seq)) in &rows.facts {
            standing.tally = standing.tally.with(put_fact(connection, key, Some(value), *seq)?);
        }
        standing.write(connection)
    };
    fill(&transaction).map_err(writing)?;
    transaction.commit().map_err(writing)?;
    connection.close().map_err(|(_, error)| writing(error))?;
    std::fs::File::open(path).and_then(|file| file.sync_all()).map_err(super::io(path))
}

/// Opens the file at `path` and checks every byte of it that means something.
pub fn open(path: &Path) -> Result<(Connection, Standing), JournalError> {
    let damaged = damage(path);
    disk::keep_private(path).map_err(super::io(path))?;
    let connection = Connection::open(path).map_err(&damaged)?;
    connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(&damaged)?;
    // Nobody else has it open (agent.lock). Exclusive from the first read on, SQLite keeps its index of the write-ahead log in
    // memory and makes it anew from the log, whose frames have checksums; a shared one on disk has none
    // (sqlite.org/wal.html, "Use of WAL Without Shared-Memory").
    connection.pragma_update(None, "locking_mode", "exclusive").map_err(&damaged)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(&damaged)?;
    let meta = meta(&connection);
    match &meta {
        // Said twice, once with a checksum: only both together are believed.
        Ok(Some((schema, _))) if *schema != found => {
            return Err(broken(path, format!("it says schema {found} in one place and {schema} in another")));
        }
        _ if found > SCHEMA => return Err(JournalError::Newer { path: path.to_owned(), found, known: SCHEMA }),
        _ => {}
    }
    let verdict: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(&damaged)?;
    if verdict != "ok" {
        return Err(broken(path, verdict));
    }
    if found == 1 && matches!(meta, Err(_) | Ok(None)) && has_table(&connection, "bumps").map_err(&damaged)? {
        return Err(JournalError::Older { path: path.to_owned() });
    }
    let standing = match meta.map_err(&damaged)? {
        Some((SCHEMA, Some(standing))) => standing,
        _ => return Err(broken(path, "the record that sums it up is missing or altered".to_owned())),
    };
    verify(&connection, path, &standing)?;
    // Journal mode and sync of what is written from here on. In this mode one sync makes a record last.
    connection.pragma_update(None, "journal_mode", "wal").map_err(&damaged)?;
    connection.pragma_update(None, "synchronous", "full").map_err(&damaged)?;
    disk::keep_private(&disk::beside(path, "-wal")).map_err(super::io(path))?;
    Ok((connection, standing))
}

/// What the record of all records says: schema, and the standing if its checksum is right. `None` when it is not there.
fn meta(connection: &Connection) -> rusqlite::Result<Option<(i64, Option<Standing>)>> {
    let row = connection
        .query_row("SELECT schema, seq, tally, sum FROM meta", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?, row.get::<_, String>(3)?))
        })
        .optional()?;
    Ok(row.map(|(schema, seq, tally, sum)| {
        let standing = u64::try_from(seq).ok().zip(Sum::parse(&tally)).map(|(seq, tally)| Standing { seq, tally });
        (schema, standing.filter(|standing| Some(standing.sum()) == Sum::parse(&sum)))
    }))
}

fn verify(connection: &Connection, path: &Path, standing: &Standing) -> Result<(), JournalError> {
    let mut rows = Rows::default();
    let wrong = read_rows(connection, &mut rows, false).map_err(damage(path))?;
    if let Some(wrong) = wrong {
        return Err(broken(path, format!("{wrong} is not what was written")));
    }
    let sums = rows.bumps.iter().map(BumpRow::sum).chain(rows.events.iter().map(EventRow::sum));
    let facts = rows.facts.iter().map(|(key, (value, seq))| fact_sum(key, value, *seq));
    if sums.chain(facts).fold(Sum::default(), Sum::with) != standing.tally {
        return Err(broken(path, "records are missing, or are not the last that were written".to_owned()));
    }
    Ok(())
}

/// Whatever can still be read of a file, records with a wrong checksum left out. A file of schema 1 has none to be wrong.
pub fn salvage(path: &Path) -> Rows {
    let mut rows = Rows::default();
    let read = Connection::open(path).and_then(|connection| {
        if has_table(&connection, "meta").unwrap_or(true) {
            read_rows(&connection, &mut rows, true).map(drop)
        } else {
            super::migrate::read_rows(&connection, &mut rows)
        }
    });
    if let Err(error) = read {
        tracing::warn!("not all of {} could be read: {error}", path.display());
    }
    rows
}

/// All rows of a journal that was opened, and so found whole.
pub fn read_all(connection: &Connection) -> Result<Rows, JournalError> {
    let mut rows = Rows::default();
    read_rows(connection, &mut rows, false).map_err(super::reading)?;
    Ok(rows)
}

/// Reads all rows. The first one with a wrong checksum is named in the answer; `lenient` goes on after it, and after what
/// cannot be read at all goes on from the other end.
fn read_rows(connection: &Connection, rows: &mut Rows, lenient: bool) -> rusqlite::Result<Option<String>> {
    let mut wrong: Option<String> = None;
    let mut failed = None;
    for order in if lenient { &["ASC", "DESC"][..] } else { &["ASC"] } {
        failed = None;
        let mut note = |what: String| wrong = wrong.take().or(Some(what));
        let bumps = format!("SELECT id, user, closed, body, updated_ms, seq, sum FROM bumps ORDER BY id {order}");
        let read = each(connection, &bumps, |row| {
            let bump = bump_from(row)?;
            if bump.sum() != sum_at(6)(row)? {
                note(format!("bump {}", bump.id));
            } else if !rows.bumps.iter().any(|known| lenient && known.id == bump.id) {
                rows.bumps.push(bump);
            }
            Ok(())
        });
        failed = failed.or(read.err());
        let events = format!("SELECT seq, bump, at_ms, phase, body, sum FROM events ORDER BY seq {order}");
        let mut known: std::collections::BTreeSet<u64> = rows.events.iter().map(|row| row.seq).collect();
        let read = each(connection, &events, |row| {
            let event = EventRow {
                seq: row.get::<_, i64>(0)?.unsigned_abs(),
                bump: row.get(1)?,
                at_ms: row.get(2)?,
                phase: row.get(3)?,
                body: row.get(4)?,
            };
            if event.sum() != sum_at(5)(row)? {
                note(format!("event {}", event.seq));
            } else if known.insert(event.seq) {
                rows.events.push(event);
            }
            Ok(())
        });
        failed = failed.or(read.err());
        let facts = format!("SELECT key, value, seq, sum FROM facts ORDER BY key {order}");
        let read = each(connection, &facts, |row| {
            let (key, value, seq): (String, String, u64) = (row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.unsigned_abs());
            if fact_sum(&key, &value, seq) != sum_at(3)(row)? {
                note(format!("the fact {}", key.escape_debug()));
            } else {
                rows.facts.insert(key, (value, seq));
            }
            Ok(())
        });
        failed = failed.or(read.err());
        if failed.is_none() {
            break;
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(wrong),
    }
}

/// A row of `id, user, closed, body, updated_ms, seq`.
pub fn bump_from(row: &rusqlite::Row<'_>) -> rusqlite::Result<BumpRow> {
    Ok(BumpRow {
        id: row.get(0)?,
        user: row.get(1)?,
        closed: row.get(2)?,
        body: row.get(3)?,
        updated_ms: row.get(4)?,
        seq: row.get::<_, i64>(5)?.unsigned_abs(),
    })
}

/// Calls `take` with every row of `query`. A row whose types are wrong counts as altered in lenient reading only by being skipped.
pub fn each(
    connection: &Connection,
    query: &str,
    mut take: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(query)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        take(row)?;
    }
    Ok(())
}

fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1", [name], |row| {
        row.get::<_, i64>(0).map(|count| count > 0)
    })
}

fn sum_at(column: usize) -> impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<Sum> {
    // Nothing of ours has an all-zero sum, so that what is no checksum matches none.
    move |row| row.get::<_, String>(column).map(|text| Sum::parse(&text).unwrap_or_default())
}

/// SQLite's integers are signed; a number of ours never gets near their end.
fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

fn broken(path: &Path, what: String) -> JournalError {
    JournalError::Damaged { path: path.to_owned(), what }
}

/// Trouble with the disk or with others is no damage of the file: what is refused then may be whole.
fn damage(path: &Path) -> impl Fn(rusqlite::Error) -> JournalError {
    let path = path.to_owned();
    move |source| match source.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::OutOfMemory
            | ErrorCode::ReadOnly
            | ErrorCode::SystemIoFailure
            | ErrorCode::DiskFull
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::OperationInterrupted,
        ) => JournalError::Sqlite { doing: "opened", source },
        _ => JournalError::Damaged { path: path.clone(), what: source.to_string() },
    }
}
