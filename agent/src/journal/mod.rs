//! What was intended and what happened; the only truth after a crash.
//!
//! A SQLite database of the agent's own (`/var/lib/t3pin/journal.sqlite`, WAL, `synchronous=FULL`): when [`Journal::record`]
//! returns, the record is on disk (sqlite.org/pragma.html#pragma_synchronous), so an effect that starts afterwards is always
//! covered by it. Every record has a checksum and all have one together ([`sums`]); beside it lies a copy of every bump that
//! counts and of what else is remembered, written before the record ([`copies`]).
//!
//! Opening never throws anything away and never begins with nothing where there was something: a file that is damaged, replaced
//! or gone is set aside and made anew from what there is ([`rebuild`]); one from a newer t3pin is an error.

mod copies;
mod disk;
mod facts;
mod migrate;
mod opening;
mod rebuild;
mod reissues;
mod restarts;
mod schema;
mod sums;
#[cfg(test)]
mod tests;
mod waits;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, params};

use crate::domain::{BumpId, UnixMs, UserName, Version};
use crate::engine::{Bump, Event, Phase};
use copies::{Content, Copies};
use schema::{BumpRow, EventRow, Standing};
use sums::Sum;

pub use facts::{Freeze, Quarantine, RolloutTries};
pub use rebuild::{Finding, Report};

/// Key of the freeze among the facts.
const FREEZE: &str = "freeze";
/// Key of the last number that was given to a bump.
const LAST_ID: &str = "last-id";
/// Key of what is left to be found out after a rebuilding.
const FINDING: &str = "finding";

/// The agent's ledger. Every call is one transaction.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    migrated: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    connection: Connection,
    standing: Standing,
    copies: Copies,
    facts: BTreeMap<String, String>,
}

/// One thing that happened to a bump, as it was written down.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// When.
    pub at_ms: UnixMs,
    /// The phase it led to, as JSON.
    pub phase: String,
    /// The event; `Null` when it cannot be understood.
    pub event: serde_json::Value,
}

impl Told {
    /// The phase it led to; `None` when this t3pin does not know it.
    pub fn entered(&self) -> Option<Phase> {
        // A plain name lost its quotes when it was read.
        serde_json::from_str(&self.phase).or_else(|_| serde_json::from_value(self.phase.clone().into())).ok()
    }
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
        "the journal {path} is damaged ({what}). Nothing was changed; restart t3pin.service: it sets the file aside and makes it anew from what there is"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        what: String,
    },
    /// It has an older schema; [`Journal::open`] takes it over by itself.
    #[error("the journal {path} is of an older t3pin")]
    Older {
        /// The file.
        path: PathBuf,
    },
    /// SQLite refused.
    #[error("the journal could not be {doing}: {source}")]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// A file of the journal's could not be read or written.
    #[error("the journal cannot go on: {path}: {source}")]
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
    /// Opens the journal, makes a new one where there never was any, and rebuilds one that is damaged: then
    /// [`Journal::finding`] says what is left to be found out.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let opened = opening::open(path, jiff::Timestamp::now().as_millisecond())?;
        let inner =
            Inner { connection: opened.connection, standing: opened.standing, copies: opened.copies, facts: opened.facts };
        Ok(Self { path: path.to_owned(), migrated: opened.migrated, inner: Mutex::new(inner) })
    }

    /// What was found when the journal was made anew; until [`Journal::settle_finding`].
    pub fn finding(&self) -> Option<Finding> {
        opening::finding(&self.lock().facts)
    }

    /// What the disk tells was compared with what the journal says: nothing more is to be found out.
    pub fn settle_finding(&self) -> Result<(), JournalError> {
        self.put(FINDING, None)
    }

    /// There was nothing of a journal, but the disk shows that this host is not new: says so, and freezes the host, as nobody
    /// knows any more what was quarantined.
    pub fn report_loss(&self, shown_by: &str, now_ms: UnixMs) -> Result<(), JournalError> {
        let reason = Some(rebuild::UNKNOWN.to_owned());
        if self.freeze()?.is_none() {
            self.set_freeze(Some(&Freeze { since_ms: now_ms, reason }))?;
        }
        let found = format!("it was not there, with all its copies, although {shown_by}");
        rebuild::Aside::new(&self.path, now_ms).report(&[found], now_ms)
    }

    /// Every time that something of the journal was set aside, for as long as nobody has removed it. Reads the disk.
    pub fn reports(&self) -> Vec<Report> {
        rebuild::reports(&self.path)
    }

    /// This start is a good one: what was kept of an older schema may go, unless it was taken over at this very start.
    pub fn confirm(&self) {
        if !self.migrated
            && let Err(error) = migrate::forget(&self.path)
        {
            tracing::warn!("the journal as it was before the last upgrade could not be removed: {error}");
        }
    }

    /// A name for a new bump; never given out twice, not even across crashes.
    pub fn new_bump_id(&self) -> Result<BumpId, JournalError> {
        let last: u32 = self.value(LAST_ID)?.and_then(|text| text.parse().ok()).unwrap_or(0);
        let id = last.checked_add(1).ok_or(JournalError::Exhausted)?;
        self.put(LAST_ID, Some(&id.to_string()))?;
        Ok(BumpId(id))
    }

    /// No bump gets `id` or a lower number from now on: the disk knows of it.
    pub fn reserve(&self, id: BumpId) -> Result<(), JournalError> {
        let last: u32 = self.value(LAST_ID)?.and_then(|text| text.parse().ok()).unwrap_or(0);
        if last >= id.0 { Ok(()) } else { self.put(LAST_ID, Some(&id.0.to_string())) }
    }

    /// Writes the bump as it is now, and the event that made it so. On disk when this returns.
    pub fn record(&self, bump: &Bump, event: Option<&Event>, now_ms: UnixMs) -> Result<(), JournalError> {
        let mut inner = self.lock();
        let seq = inner.standing.seq + 1;
        let row = bump_row(bump, now_ms, seq)?;
        let told = match event {
            Some(event) => Some(EventRow {
                seq,
                bump: bump.id.0,
                at_ms: now_ms,
                phase: serde_json::to_string(&bump.phase)?,
                body: serde_json::to_string(event)?,
            }),
            None => None,
        };
        inner.write(Content::Bump(bump), |connection| {
            let change = schema::put_bump(connection, &row)?;
            Ok(match &told {
                Some(told) => change.with(schema::put_event(connection, told)?),
                None => change,
            })
        })?;
        if bump.is_closed() {
            inner.copies.forget_old(bump.id);
        }
        Ok(())
    }

    /// All bumps that are not over, oldest first.
    pub fn open_bumps(&self) -> Result<Vec<Bump>, JournalError> {
        self.bumps("WHERE NOT closed ORDER BY id", [])
    }

    /// The open bump of a user.
    pub fn open_bump(&self, user: &UserName) -> Result<Option<Bump>, JournalError> {
        Ok(self.bumps("WHERE NOT closed AND user = ?1 ORDER BY id", [user.as_str()])?.into_iter().next())
    }

    /// One bump.
    pub fn bump(&self, id: BumpId) -> Result<Option<Bump>, JournalError> {
        Ok(self.bumps("WHERE id = ?1", [id.0])?.into_iter().next())
    }

    /// The bumps of a user (or of everybody) that are over, newest first: by the order of the records, as clocks are set back.
    pub fn closed_bumps(&self, user: Option<&UserName>, limit: usize) -> Result<Vec<Bump>, JournalError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        match user {
            Some(user) => self.bumps("WHERE closed AND user = ?1 ORDER BY seq DESC LIMIT ?2", params![user.as_str(), limit]),
            None => self.bumps("WHERE closed ORDER BY seq DESC LIMIT ?1", [limit]),
        }
    }

    /// The last bump of a user to `version` that is over.
    pub fn last_closed_to(&self, user: &UserName, version: &Version) -> Result<Option<Bump>, JournalError> {
        let found = self.bumps(
            "WHERE closed AND user = ?1 AND json_extract(body, '$.to') = ?2 ORDER BY seq DESC LIMIT 1",
            params![user.as_str(), version.to_string()],
        )?;
        Ok(found.into_iter().next())
    }

    /// What happened to a bump, oldest first.
    pub fn story(&self, id: BumpId) -> Result<Vec<Told>, JournalError> {
        let inner = self.lock();
        let mut statement = inner
            .connection
            .prepare_cached("SELECT at_ms, phase, body FROM events WHERE bump = ?1 ORDER BY seq")
            .map_err(reading)?;
        let rows = statement
            .query_map([id.0], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?)))
            .map_err(reading)?
            .collect::<Result<Vec<_>, _>>()
            .map_err(reading)?;
        let told = |(at_ms, phase, body): (i64, String, String)| {
            let event = serde_json::from_str(&body).unwrap_or_default();
            Told { at_ms, phase: phase.trim_matches('"').to_owned(), event }
        };
        Ok(rows.into_iter().map(told).collect())
    }

    fn bumps(&self, which: &str, parameters: impl rusqlite::Params) -> Result<Vec<Bump>, JournalError> {
        let inner = self.lock();
        let query = format!("SELECT id, user, closed, body, updated_ms, seq, sum FROM bumps {which}");
        let mut statement = inner.connection.prepare_cached(&query).map_err(reading)?;
        let rows = statement
            .query_map(parameters, |row| Ok((schema::bump_from(row)?, row.get::<_, String>(6)?)))
            .map_err(reading)?
            .collect::<Result<Vec<_>, _>>()
            .map_err(reading)?;
        let read = |(row, sum): (BumpRow, String)| {
            if Sum::parse(&sum) != Some(row.sum()) {
                let what = format!("{} is not what was written", BumpId(row.id));
                return Err(JournalError::Damaged { path: self.path.clone(), what });
            }
            Ok(serde_json::from_str(&row.body)?)
        };
        rows.into_iter().map(read).collect()
    }

    fn value(&self, key: &str) -> Result<Option<String>, JournalError> {
        Ok(self.lock().facts.get(key).cloned())
    }

    fn put(&self, key: &str, value: Option<&str>) -> Result<(), JournalError> {
        self.put_all(&[(key, value)])
    }

    fn put_all(&self, changes: &[(&str, Option<&str>)]) -> Result<(), JournalError> {
        self.lock().put_all(changes)
    }

    /// A poisoned lock only means that another thread panicked between two transactions; the database itself is whole.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Several facts at once, or none.
    fn put_all(&mut self, changes: &[(&str, Option<&str>)]) -> Result<(), JournalError> {
        let mut facts = self.facts.clone();
        for (key, value) in changes {
            match value {
                Some(value) => drop(facts.insert((*key).to_owned(), (*value).to_owned())),
                None => drop(facts.remove(*key)),
            }
        }
        let seq = self.standing.seq + 1;
        self.write(Content::Facts(&facts), |connection| {
            let mut change = Sum::default();
            for (key, value) in changes {
                change = change.with(schema::put_fact(connection, key, *value, seq)?);
            }
            Ok(change)
        })?;
        self.facts = facts;
        Ok(())
    }

    /// The next record: its copy first, then the record itself, which `fill` writes. Both or, when it fails, none.
    fn write(
        &mut self,
        content: Content<'_>,
        fill: impl FnOnce(&Connection) -> rusqlite::Result<Sum>,
    ) -> Result<(), JournalError> {
        let seq = self.standing.seq + 1;
        let draft = self.copies.draft(seq, content).map_err(io(Path::new("journal.copies")))?;
        let transaction = self.connection.transaction().map_err(writing)?;
        let change = fill(&transaction).map_err(writing)?;
        let standing = Standing { seq, tally: self.standing.tally.with(change) };
        standing.write(&transaction).map_err(writing)?;
        transaction.commit().map_err(writing)?;
        self.standing = standing;
        if let Err(error) = draft.publish() {
            tracing::warn!("a copy of the journal's last record keeps its draft's name: {error}");
        }
        Ok(())
    }
}

/// The record of a bump.
fn bump_row(bump: &Bump, updated_ms: UnixMs, seq: u64) -> Result<BumpRow, JournalError> {
    let body = serde_json::to_string(bump)?;
    Ok(BumpRow { id: bump.id.0, user: bump.instance.user().to_string(), closed: bump.is_closed(), body, updated_ms, seq })
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Io { path, source }
}

fn reading(source: rusqlite::Error) -> JournalError {
    JournalError::Sqlite { doing: "read", source }
}

fn writing(source: rusqlite::Error) -> JournalError {
    JournalError::Sqlite { doing: "written", source }
}
