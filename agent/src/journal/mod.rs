//! What was intended and what happened; the only truth after a crash.
//!
//! A SQLite database of the agent's own (`/var/lib/t3pin/journal.sqlite`, WAL, `synchronous=FULL`): when [`Journal::record`]
//! returns, the record is on disk (sqlite.org/pragma.html#pragma_synchronous), so an effect that starts afterwards is always
//! covered by it. Opening never throws anything away: a file that is damaged, or from a newer t3pin, is an error.

mod facts;
mod schema;
mod waits;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};

use crate::domain::{BumpId, UnixMs, UserName, Version};
use crate::engine::{Bump, Event};

pub use facts::Freeze;

/// The agent's ledger. Every call is one transaction.
#[derive(Debug)]
pub struct Journal {
    connection: Mutex<Connection>,
}

/// Why the journal could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It was written by a newer t3pin.
    #[error(
        "the journal {path} has schema {found}, and this t3pin knows up to {known}: a newer t3pin wrote it. Install that version again; nothing was changed"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest known one.
        known: i64,
    },
    /// It is damaged.
    #[error(
        "the journal {path} is damaged ({what}). Nothing was changed. Keep the file, move it aside, and look at /var/lib/t3pin/holds for users whose bump was under way before starting the agent again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        what: String,
    },
    /// SQLite refused.
    #[error("the journal could not be {doing}: {source}")]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// The file could not be kept from others.
    #[error("the journal {path} could not be made readable by root alone: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// There are no numbers left.
    #[error("the journal has no names left for bumps")]
    Exhausted,
    /// A record does not say what it must.
    #[error("a record of the journal cannot be understood: {0}")]
    Record(#[from] serde_json::Error),
}

impl Journal {
    /// Opens the journal, or makes a new one where there is no file.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        Ok(Self { connection: Mutex::new(schema::open(path)?) })
    }

    /// A name for a new bump; never given out twice, not even across crashes.
    pub fn new_bump_id(&self) -> Result<BumpId, JournalError> {
        let connection = self.lock();
        connection.execute("INSERT INTO bump_ids DEFAULT VALUES", []).map_err(writing)?;
        u32::try_from(connection.last_insert_rowid()).map(BumpId).map_err(|_| JournalError::Exhausted)
    }

    /// Writes the bump as it is now, and the event that made it so. On disk when this returns.
    pub fn record(&self, bump: &Bump, event: Option<&Event>, now_ms: UnixMs) -> Result<(), JournalError> {
        let body = serde_json::to_string(bump)?;
        let phase = serde_json::to_string(&bump.phase)?;
        let mut connection = self.lock();
        let transaction = connection.transaction().map_err(writing)?;
        transaction
            .execute(
                "INSERT INTO bumps (id, user, closed, body, updated_ms) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (id) DO UPDATE SET closed = ?3, body = ?4, updated_ms = ?5",
                params![bump.id.0, bump.instance.user().as_str(), bump.is_closed(), body, now_ms],
            )
            .map_err(writing)?;
        if let Some(event) = event {
            transaction
                .execute(
                    "INSERT INTO events (bump, at_ms, phase, body) VALUES (?1, ?2, ?3, ?4)",
                    params![bump.id.0, now_ms, phase, serde_json::to_string(event)?],
                )
                .map_err(writing)?;
        }
        transaction.commit().map_err(writing)
    }

    /// All bumps that are not over, oldest first.
    pub fn open_bumps(&self) -> Result<Vec<Bump>, JournalError> {
        self.bumps("SELECT body FROM bumps WHERE NOT closed ORDER BY id", [])
    }

    /// The open bump of a user.
    pub fn open_bump(&self, user: &UserName) -> Result<Option<Bump>, JournalError> {
        Ok(self.bumps("SELECT body FROM bumps WHERE NOT closed AND user = ?1 ORDER BY id", [user.as_str()])?.into_iter().next())
    }

    /// One bump.
    pub fn bump(&self, id: BumpId) -> Result<Option<Bump>, JournalError> {
        Ok(self.bumps("SELECT body FROM bumps WHERE id = ?1", [id.0])?.into_iter().next())
    }

    /// The bumps of a user (or of everybody) that are over, newest first.
    pub fn closed_bumps(&self, user: Option<&UserName>, limit: usize) -> Result<Vec<Bump>, JournalError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        match user {
            Some(user) => self.bumps(
                "SELECT body FROM bumps WHERE closed AND user = ?1 ORDER BY updated_ms DESC, id DESC LIMIT ?2",
                params![user.as_str(), limit],
            ),
            None => self.bumps("SELECT body FROM bumps WHERE closed ORDER BY updated_ms DESC, id DESC LIMIT ?1", [limit]),
        }
    }

    /// The last bump of a user to `version` that is over.
    pub fn last_closed_to(&self, user: &UserName, version: &Version) -> Result<Option<Bump>, JournalError> {
        let found = self.bumps(
            "SELECT body FROM bumps WHERE closed AND user = ?1 AND json_extract(body, '$.to') = ?2
             ORDER BY updated_ms DESC, id DESC LIMIT 1",
            params![user.as_str(), version.to_string()],
        )?;
        Ok(found.into_iter().next())
    }

    fn bumps(&self, query: &str, parameters: impl rusqlite::Params) -> Result<Vec<Bump>, JournalError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(query).map_err(reading)?;
        let bodies = statement
            .query_map(parameters, |row| row.get::<_, String>(0))
            .map_err(reading)?
            .collect::<Result<Vec<_>, _>>()
            .map_err(reading)?;
        bodies.iter().map(|body| serde_json::from_str(body).map_err(JournalError::from)).collect()
    }

    fn value(&self, key: &str) -> Result<Option<String>, JournalError> {
        self.lock().query_row("SELECT value FROM facts WHERE key = ?1", [key], |row| row.get(0)).optional().map_err(reading)
    }

    fn put(&self, key: &str, value: Option<&str>) -> Result<(), JournalError> {
        let connection = self.lock();
        match value {
            Some(value) => connection.execute("INSERT OR REPLACE INTO facts (key, value) VALUES (?1, ?2)", [key, value]),
            None => connection.execute("DELETE FROM facts WHERE key = ?1", [key]),
        }
        .map(drop)
        .map_err(writing)
    }

    /// A poisoned lock only means that another thread panicked between two transactions; the database itself is whole.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reading(source: rusqlite::Error) -> JournalError {
    JournalError::Sqlite { doing: "read", source }
}

fn writing(source: rusqlite::Error) -> JournalError {
    JournalError::Sqlite { doing: "written", source }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::engine::bump::sample;

    #[test]
    fn what_was_recorded_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.sqlite");
        let bump = {
            let journal = Journal::open(&path).unwrap();
            let bump = sample(journal.new_bump_id().unwrap(), "alice");
            journal.record(&bump, Some(&Event::GoAhead), 5).unwrap();
            bump
        };
        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.open_bumps().unwrap(), vec![bump.clone()]);
        assert_eq!(journal.open_bump(bump.instance.user()).unwrap(), Some(bump.clone()));
        assert!(journal.new_bump_id().unwrap() > bump.id);
        assert!(journal.closed_bumps(None, 10).unwrap().is_empty());
    }

    #[test]
    fn the_last_bump_to_a_version_is_found_behind_later_ones() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(&dir.path().join("journal.sqlite")).unwrap();
        let version = |text: &str| text.parse::<Version>().unwrap();
        for (to, now) in [("0.0.25", 1), ("0.0.28", 2), ("0.0.28", 3), ("0.0.25", 4)] {
            let mut bump = sample(journal.new_bump_id().unwrap(), "alice");
            bump.to = version(to);
            bump.phase = crate::engine::Phase::Closed(crate::engine::Outcome::Done);
            journal.record(&bump, None, now).unwrap();
        }
        let found = |user: &str, to: &str| journal.last_closed_to(&user.parse().unwrap(), &version(to)).unwrap();
        assert_eq!(found("alice", "0.0.28").map(|bump| bump.id), Some(BumpId(3)));
        assert_eq!((found("alice", "0.0.24"), found("bob", "0.0.28")), (None, None));
    }

    #[test]
    fn nobody_else_reads_or_locks_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.sqlite");
        drop(Journal::open(&path).unwrap());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let journal = Journal::open(&path).unwrap();
        journal.new_bump_id().unwrap();
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let file = file.unwrap();
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.file_name());
        }
    }

    #[test]
    fn a_damaged_journal_is_an_error_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.sqlite");
        std::fs::write(
            &path,
            b"this is no database, and it is long enough to be looked at as one by sqlite.....................",
        )
        .unwrap();
        let before = std::fs::read(&path).unwrap();
        assert!(matches!(Journal::open(&path), Err(JournalError::Damaged { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_journal_of_a_newer_agent_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.sqlite");
        drop(Journal::open(&path).unwrap());
        rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 999).unwrap();
        assert!(matches!(Journal::open(&path), Err(JournalError::Newer { found: 999, .. })));
    }
}
