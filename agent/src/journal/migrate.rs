//! Taking over a journal of an older schema: a new file is written beside it and switched in when it is whole.
//!
//! The old file is kept as `journal.sqlite.before-N`, N being the schema of the new one, until a later start has found the new
//! one good: the agent that wrote it can still read it.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::schema::{self, BumpRow, EventRow, Rows, SCHEMA, each};
use super::{JournalError, disk, io, writing};

/// Copies the journal at `path`, of schema 1, into one of the present schema and puts that in its place.
pub fn upgrade(path: &Path) -> Result<(), JournalError> {
    let connection = Connection::open(path).map_err(writing)?;
    // What the write-ahead log holds goes into the file, so that the file alone is the old journal.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(writing)?;
    connection.pragma_update(None, "journal_mode", "delete").map_err(writing)?;
    let mut rows = Rows::default();
    read_rows(&connection, &mut rows).map_err(super::reading)?;
    connection.close().map_err(|(_, error)| writing(error))?;
    let new = disk::beside(path, ".new");
    schema::build(&new, &rows, 0)?;
    let kept = before(path);
    disk::remove(&kept).map_err(io(&kept))?;
    std::fs::hard_link(path, &kept).map_err(io(&kept))?;
    std::fs::rename(&new, path).map_err(io(path))?;
    disk::sync_dir(disk::parent(path)).map_err(io(path))?;
    tracing::info!(
        "the journal was taken over into schema {SCHEMA}; as it was before it is kept as {} until the next start",
        kept.display()
    );
    Ok(())
}

/// Removes what was kept: a later start has found the new one good.
pub fn forget(path: &Path) -> std::io::Result<()> {
    disk::remove(&before(path))
}

fn before(path: &Path) -> PathBuf {
    disk::beside(path, &format!(".before-{SCHEMA}"))
}

/// The rows of schema 1, numbered in the order in which they were written as far as that can be told.
pub fn read_rows(connection: &Connection, rows: &mut Rows) -> rusqlite::Result<()> {
    each(connection, "SELECT seq, bump, at_ms, phase, body FROM events ORDER BY seq", |row| {
        let seq = row.get::<_, i64>(0)?.unsigned_abs();
        rows.events.push(EventRow { seq, bump: row.get(1)?, at_ms: row.get(2)?, phase: row.get(3)?, body: row.get(4)? });
        Ok(())
    })?;
    let mut seq = rows.newest();
    each(connection, "SELECT id, user, closed, body, updated_ms FROM bumps ORDER BY updated_ms, id", |row| {
        seq += 1;
        let (id, user, closed, body, updated_ms) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
        rows.bumps.push(BumpRow { id, user, closed, body, updated_ms, seq });
        Ok(())
    })?;
    each(connection, "SELECT key, value FROM facts", |row| {
        seq += 1;
        rows.facts.insert(row.get(0)?, (row.get(1)?, seq));
        Ok(())
    })?;
    each(connection, "SELECT version, reason, since_ms FROM quarantine", |row| {
        seq += 1;
        let (version, reason, since_ms): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let value = serde_json::json!({ "reason": reason, "since_ms": since_ms }).to_string();
        rows.facts.insert(format!("quarantine/{version}"), (value, seq));
        Ok(())
    })?;
    each(connection, "SELECT version, at_ms FROM cleared", |row| {
        seq += 1;
        let (version, at_ms): (String, i64) = (row.get(0)?, row.get(1)?);
        rows.facts.insert(format!("cleared/{version}"), (at_ms.to_string(), seq));
        Ok(())
    })?;
    let given: Option<i64> = connection.query_row("SELECT max(id) FROM bump_ids", [], |row| row.get(0))?;
    rows.facts.insert("last-id".to_owned(), (given.unwrap_or(0).to_string(), seq + 1));
    Ok(())
}
