//! Opening the journal whatever has become of it: whole, behind its copies, damaged, replaced or gone.
//!
//! A file from a newer t3pin is not damaged: it is refused. What is damaged goes to [`rebuild`]. In the end journal and copies
//! say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::Connection;

use super::copies::{self, Content, Copies, FACTS};
use super::disk::{self, Lies};
use super::rebuild::{self, Aside, Finding};
use super::schema::{self, Rows, Standing};
use super::{JournalError, bump_row, io, migrate, writing};
use crate::domain::{BumpId, UnixMs};
use crate::engine::Bump;

/// An open journal.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub connection: Connection,
    /// Its last record.
    pub standing: Standing,
    /// The copies beside it.
    pub copies: Copies,
    /// All facts.
    pub facts: BTreeMap<String, String>,
    /// It was taken over from an older schema just now.
    pub migrated: bool,
}

/// Opens the journal at `path`.
pub fn open(path: &Path, now_ms: UnixMs) -> Result<Opened, JournalError> {
    let dir = disk::parent(path).join("journal.copies");
    let mut aside = Aside::new(path, now_ms);
    let mut trouble = vec![];
    let whole = look(path)?;
    match disk::what_lies_at(&dir).map_err(io(&dir))? {
        Lies::Nothing | Lies::Strange("a directory") => {}
        other => {
            trouble.push(format!("there was {} in place of the directory {}", in_words(other), dir.display()));
            aside.take(&dir)?;
        }
    }
    let copies = Copies::open(&dir).map_err(io(&dir))?;
    let mut found = copies.read().map_err(io(&dir))?;
    for name in std::mem::take(&mut found.broken) {
        trouble.push(format!("its copy {name} could not be read"));
        aside.take(&dir.join(name))?;
    }
    let (mut opened, migrated) = match whole {
        Ok((connection, standing, migrated)) if migrated || agree(standing, &found) => ((connection, standing), migrated),
        unusable => {
            trouble.insert(0, why(unusable, &found));
            if rebuild::rebuild(path, &mut aside, &found, &trouble, now_ms)?.nothing {
                // A host that is new, as far as can be told from here: nothing to report.
                trouble.clear();
            }
            (schema::open(path)?, false)
        }
    };
    let facts = reconcile(&opened.0, &mut opened.1, &copies, &found)?;
    if !trouble.is_empty() {
        // When only copies were bad the journal is as good as ever, and nothing is left to be found out.
        aside.report(&trouble, now_ms)?;
    }
    Ok(Opened { connection: opened.0, standing: opened.1, copies, facts, migrated })
}

/// An open file, its last record, and whether it was taken over from an older schema just now.
type Whole = (Connection, Standing, bool);

/// The file, or what is wrong with it.
fn look(path: &Path) -> Result<Result<Whole, String>, JournalError> {
    match disk::what_lies_at(path).map_err(io(path))? {
        Lies::Nothing => Ok(Err("it was not there".to_owned())),
        Lies::File => {
            let (opened, migrated) = match schema::open(path) {
                Err(JournalError::Older { .. }) => {
                    migrate::upgrade(path)?;
                    (schema::open(path), true)
                }
                other => (other, false),
            };
            match opened {
                Ok((connection, standing)) => Ok(Ok((connection, standing, migrated))),
                Err(JournalError::Damaged { what, .. }) => Ok(Err(format!("it was damaged: {what}"))),
                Err(other) => Err(other),
            }
        }
        other => Ok(Err(format!("there was {} in its place", in_words(other)))),
    }
}

/// Why the file is not used. Closes it: SQLite tidies up beside the name it was opened by.
fn why(unusable: Result<Whole, String>, found: &copies::Found) -> String {
    match unusable {
        Err(why) => why,
        Ok((_connection, standing, _)) => format!(
            "it ended at record {}, and its copies know of {}: its last records were lost, or an old file was put in its place",
            standing.seq,
            found.newest()
        ),
    }
}

/// A copy is written before its record, so one record may be missing, and not more.
fn agree(standing: Standing, found: &copies::Found) -> bool {
    found.newest_finished() <= standing.seq && found.newest() <= standing.seq + 1
}

/// Brings journal and copies to say the same. The last record's copy counts even when the record itself is not in the journal:
/// either nothing was begun on it, or the record was lost. Returns all facts.
fn reconcile(
    connection: &Connection,
    standing: &mut Standing,
    copies: &Copies,
    found: &copies::Found,
) -> Result<BTreeMap<String, String>, JournalError> {
    let mut rows = schema::read_all(connection)?;
    adopt(connection, standing, &mut rows, found)?;
    let facts: BTreeMap<String, String> = rows.facts.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect();
    let dir = Path::new("journal.copies");
    let copy = |seq, content: Content<'_>| copies.draft(seq, content).and_then(copies::Draft::publish).map_err(io(dir));
    let mut closed: Vec<u32> = rows.bumps.iter().filter(|row| row.closed).map(|row| row.id).collect();
    closed.sort_unstable();
    let kept: BTreeSet<u32> = closed.into_iter().rev().take(copies::CLOSED as usize).collect();
    for row in rows.bumps.iter().filter(|row| !row.closed || kept.contains(&row.id)) {
        let id = BumpId(row.id);
        if found.finished.get(&id.to_string()) != Some(&row.seq) {
            let bump: Bump = serde_json::from_str(&row.body)?;
            copy(row.seq, Content::Bump(&bump))?;
        }
    }
    if !found.finished.contains_key(FACTS) || found.facts.as_ref().is_none_or(|(_, copied)| *copied != facts) {
        copy(standing.seq, Content::Facts(&facts))?;
    }
    copies.remove_drafts().map_err(io(dir))?;
    Ok(facts)
}

fn adopt(connection: &Connection, standing: &mut Standing, rows: &mut Rows, found: &copies::Found) -> Result<(), JournalError> {
    let next = standing.seq + 1;
    if found.newest() != next {
        return Ok(());
    }
    let transaction = connection.unchecked_transaction().map_err(writing)?;
    let mut tally = standing.tally;
    for (id, (_, bump)) in found.bumps.iter().filter(|(_, (seq, _))| *seq == next) {
        let before = rows.bumps.iter().position(|row| row.id == id.0).map(|at| rows.bumps.remove(at));
        let row = bump_row(bump, before.map_or(bump.planned_ms, |row| row.updated_ms), next)?;
        tally = tally.with(schema::put_bump(&transaction, &row).map_err(writing)?);
        rows.bumps.push(row);
    }
    if let Some((_, copied)) = found.facts.as_ref().filter(|(seq, _)| *seq == next) {
        let keys: BTreeSet<String> = rows.facts.keys().chain(copied.keys()).cloned().collect();
        for key in keys {
            let value = copied.get(&key);
            if rows.facts.get(&key).map(|(value, _)| value) != value {
                let change = schema::put_fact(&transaction, &key, value.map(String::as_str), next);
                tally = tally.with(change.map_err(writing)?);
                match value {
                    Some(value) => drop(rows.facts.insert(key, (value.clone(), next))),
                    None => drop(rows.facts.remove(&key)),
                }
            }
        }
    }
    let written = Standing { seq: next, tally };
    written.write(&transaction).map_err(writing)?;
    transaction.commit().map_err(writing)?;
    *standing = written;
    Ok(())
}

fn in_words(lies: Lies) -> &'static str {
    match lies {
        Lies::Nothing => "nothing",
        Lies::File => "a file",
        Lies::Empty => "a file of 0 bytes",
        Lies::Strange(what) => what,
    }
}

/// What is left to be found out about a rebuilt journal; `None` when it was found whole or the disk was compared since.
pub fn finding(facts: &BTreeMap<String, String>) -> Option<Finding> {
    serde_json::from_str(facts.get(super::FINDING)?).ok()
}
