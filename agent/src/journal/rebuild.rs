//! A new journal in place of one that cannot be used, from what can still be read of it and from the copies beside it.
//!
//! Of each bump the newer record wins. Freeze and quarantine come from their copy; when there is none they cannot be known, and
//! the host is frozen until a person has looked. What was there before is set aside: renamed, never removed, never followed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::{self, Lies};
use super::schema::{self, Rows};
use super::{FINDING, FREEZE, Freeze, JournalError, LAST_ID, bump_row, copies, io};
use crate::domain::{BumpId, UnixMs};

/// Name of what tells of a finding, beside what was set aside. Written last.
const REPORT: &str = "report.json";
/// What directories of things set aside begin with.
const ASIDE: &str = "journal.damaged-";
/// SQLite's files beside a database.
const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// That the journal was made anew, and what could not be known then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// When it was found.
    pub at_ms: UnixMs,
    /// What was found.
    pub what: String,
    /// Where what was there before lies now.
    pub aside: PathBuf,
    /// Bumps that only the damaged file told of: they may have got further since.
    pub doubtful: Vec<BumpId>,
    /// Whether freeze and quarantine could not be told.
    pub host_unknown: bool,
    /// Nothing was there at all, as on a host that is new. The disk tells whether it is one.
    pub nothing: bool,
}

/// What is told of a journal that was not as it was left: kept beside what was set aside, for as long as that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// When it was found.
    pub at_ms: UnixMs,
    /// What was found.
    pub found: String,
    /// What was done.
    pub done: String,
    /// Where what was there before lies.
    pub aside: PathBuf,
}

/// Where things are set aside; made when the first one is.
#[derive(Debug)]
pub struct Aside {
    dir: PathBuf,
    made: bool,
}

impl Aside {
    /// A place of its own, by the time.
    pub fn new(journal: &Path, now_ms: UnixMs) -> Self {
        let at = jiff::Timestamp::from_millisecond(now_ms).unwrap_or_default();
        let stamp = at.strftime("%Y%m%dT%H%M%SZ");
        let mut dir = disk::parent(journal).join(format!("{ASIDE}{stamp}"));
        let mut n = 2;
        while dir.symlink_metadata().is_ok() {
            dir.set_file_name(format!("{ASIDE}{stamp}-{n}"));
            n += 1;
        }
        Self { dir, made: false }
    }

    fn make(&mut self) -> Result<(), JournalError> {
        if !self.made {
            disk::make_private_dir(&self.dir).map_err(io(&self.dir))?;
            self.made = true;
        }
        Ok(())
    }

    /// Moves what lies at `path` here, whatever it is. Missing is fine.
    pub fn take(&mut self, path: &Path) -> Result<(), JournalError> {
        if disk::what_lies_at(path).map_err(io(path))? == Lies::Nothing {
            return Ok(());
        }
        self.make()?;
        let name = path.file_name().unwrap_or_default();
        std::fs::rename(path, self.dir.join(name)).map_err(io(path))?;
        disk::sync_dir(&self.dir).and_then(|()| disk::sync_dir(disk::parent(path))).map_err(io(path))
    }

    /// Writes down what was found and done.
    pub fn report(&mut self, trouble: &[String], now_ms: UnixMs) -> Result<(), JournalError> {
        self.make()?;
        let done = "what could not be used was set aside, and the journal was made anew from what could still be read, from its \
                    copies and from what lies on disk"
            .to_owned();
        let report = Report { at_ms: now_ms, found: trouble.join("; "), done, aside: self.dir.clone() };
        tracing::error!(
            "the journal was not as it was left: {}. Done: {}. Look at {} and at t3pin status; remove that directory when you have",
            report.found,
            report.done,
            self.dir.display()
        );
        let path = self.dir.join(REPORT);
        disk::write_new(&path, &serde_json::to_vec_pretty(&report)?).and_then(|()| disk::sync_dir(&self.dir)).map_err(io(&path))
    }
}

/// Everything that was ever set aside and that nobody has removed yet, oldest first.
pub fn reports(journal: &Path) -> Vec<Report> {
    let mut found: Vec<Report> = asides(journal)
        .iter()
        .filter_map(|dir| serde_json::from_slice(&disk::read(&dir.join(REPORT), 1 << 20).ok()?).ok())
        .collect();
    found.sort_by_key(|report| report.at_ms);
    found
}

fn asides(journal: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(disk::parent(journal)).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(ASIDE)).map(|entry| entry.path()).collect()
}

/// Puts a new journal in the place of the one at `path`, which is set aside.
pub fn rebuild(
    path: &Path,
    aside: &mut Aside,
    found: &copies::Found,
    trouble: &[String],
    now_ms: UnixMs,
) -> Result<Finding, JournalError> {
    let mut rows = salvaged(path)?;
    let missing = disk::what_lies_at(path).map_err(io(path))? == Lies::Nothing;
    let nothing = missing && trouble.len() == 1 && found.is_empty() && rows == Rows::default();
    let doubtful = merge_bumps(&mut rows, found)?;
    let host_unknown = merge_facts(&mut rows, found);
    let newest = rows.newest().max(found.newest());
    let last_id = rows.bumps.iter().map(|row| row.id).max().unwrap_or(0);
    let given = rows.facts.get(LAST_ID).and_then(|(id, _)| id.parse::<u32>().ok()).unwrap_or(0);
    // The numbers of records that were lost are not given out again.
    let seq = newest + 100;
    rows.facts.insert(LAST_ID.to_owned(), (last_id.max(given).to_string(), seq));
    if host_unknown && !nothing && !rows.facts.contains_key(FREEZE) {
        let freeze = Freeze { since_ms: now_ms, reason: Some(UNKNOWN.to_owned()) };
        rows.facts.insert(FREEZE.to_owned(), (serde_json::to_string(&freeze)?, seq));
    }
    let finding = Finding { at_ms: now_ms, what: trouble.join("; "), aside: aside.dir.clone(), doubtful, host_unknown, nothing };
    rows.facts.insert(FINDING.to_owned(), (serde_json::to_string(&finding)?, seq));
    let new = disk::beside(path, ".new");
    schema::build(&new, &rows, seq)?;
    aside.take(path)?;
    for suffix in SIDECARS {
        aside.take(&disk::beside(path, suffix))?;
    }
    std::fs::rename(&new, path).map_err(io(path))?;
    disk::sync_dir(disk::parent(path)).map_err(io(path))?;
    Ok(finding)
}

/// Why a host is frozen whose freeze and quarantine were lost.
pub const UNKNOWN: &str = "the journal was lost, and with it whether versions were quarantined here or the host was frozen; look at \
                           `t3pin history` and `t3pin status`, then `t3pin thaw`";

/// What can be read of the damaged file, from a copy of it: reading alone may change a database.
fn salvaged(path: &Path) -> Result<Rows, JournalError> {
    // A rebuilding that was cut off has set the file aside already, and not reported yet.
    let unfinished = || {
        let dir = asides(path).into_iter().find(|dir| !dir.join(REPORT).exists())?;
        Some(dir.join(path.file_name()?))
    };
    let source: Option<PathBuf> = match disk::what_lies_at(path).map_err(io(path))? {
        Lies::File => Some(path.to_owned()),
        Lies::Nothing => unfinished(),
        _ => None,
    };
    let Some(source) = source.filter(|source| disk::what_lies_at(source).is_ok_and(|lies| lies == Lies::File)) else {
        return Ok(Rows::default());
    };
    let draft = disk::beside(path, ".salvage");
    let remove = || {
        for suffix in SIDECARS.iter().chain(&[""]) {
            disk::remove(&disk::beside(&draft, suffix)).ok();
        }
    };
    remove();
    for suffix in ["", "-wal"] {
        if disk::what_lies_at(&disk::beside(&source, suffix)).is_ok_and(|lies| lies == Lies::File) {
            std::fs::copy(disk::beside(&source, suffix), disk::beside(&draft, suffix)).map_err(io(&draft))?;
        }
    }
    let rows = schema::salvage(&draft);
    remove();
    Ok(rows)
}

/// Puts the copies' bumps among the rows where they are newer. Returns the open ones that only the damaged file told of.
fn merge_bumps(rows: &mut Rows, found: &copies::Found) -> Result<Vec<BumpId>, JournalError> {
    // What does not read as a bump is none, whatever its checksum says (schema 1 has none).
    rows.bumps.retain(|row| serde_json::from_str::<crate::engine::Bump>(&row.body).is_ok_and(|bump| bump.id.0 == row.id));
    for (id, (seq, bump)) in &found.bumps {
        let at = rows.bumps.iter().position(|row| row.id == id.0);
        if at.is_some_and(|at| rows.bumps[at].seq > *seq) {
            continue;
        }
        let updated_ms = at.map_or(bump.ended_ms.unwrap_or(bump.planned_ms), |at| rows.bumps.remove(at).updated_ms);
        rows.bumps.push(bump_row(bump, updated_ms, *seq)?);
    }
    let sure = |id: u32, seq: u64| found.bumps.get(&BumpId(id)).is_some_and(|(copied, _)| *copied == seq);
    let open = rows.bumps.iter().filter(|row| !row.closed && !sure(row.id, row.seq));
    Ok(open.map(|row| BumpId(row.id)).collect())
}

/// Puts the copied facts in the place of the rows'. Says whether they may not be all.
fn merge_facts(rows: &mut Rows, found: &copies::Found) -> bool {
    let read = rows.facts.values().map(|(_, seq)| *seq).max().unwrap_or(0);
    match &found.facts {
        Some((seq, copied)) if *seq >= read => {
            rows.facts = copied.iter().map(|(key, value)| (key.clone(), (value.clone(), *seq))).collect::<BTreeMap<_, _>>();
            false
        }
        Some((seq, copied)) => {
            for (key, value) in copied {
                rows.facts.entry(key.clone()).or_insert_with(|| (value.clone(), *seq));
            }
            true
        }
        None => true,
    }
}
