//! The copies beside the journal: one small file per bump and one for what else is remembered.
//!
//! A copy is written and synced *before* the record it copies, under a draft's name, and gets its own name afterwards. So
//! whatever becomes of the journal, the copies know how far it had got: a journal that lost its last records (a torn or deleted
//! write-ahead log, an old file put back) is behind them, which is how that is noticed. Every copy carries its checksum and the
//! number of the record it copies.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::{self, Lies};
use super::sums::Sum;
use crate::domain::BumpId;
use crate::engine::Bump;

/// Name of the copy of all facts.
pub const FACTS: &str = "facts";
/// A bump with its reports is some KB; a fact is less.
const MAX_BYTES: u64 = 8 << 20;
/// So many closed bumps keep their copies.
pub const CLOSED: u32 = 200;

/// The directory of the copies.
#[derive(Debug)]
pub struct Copies {
    dir: PathBuf,
}

/// All copies that can be believed.
#[derive(Debug, Default)]
pub struct Found {
    /// Bumps, each with the number of its record. A draft is among them when it is newer.
    pub bumps: BTreeMap<BumpId, (u64, Bump)>,
    /// What else is remembered; `None` when there is no copy that can be believed.
    pub facts: Option<(u64, BTreeMap<String, String>)>,
    /// Names of the finished copies, each with the number of its record.
    pub finished: BTreeMap<String, u64>,
    /// Names of files that are no copies (torn, altered, none of ours).
    pub broken: Vec<String>,
}

/// One thing that is copied.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// A bump.
    Bump(&'a Bump),
    /// All facts.
    Facts(&'a BTreeMap<String, String>),
}

/// A copy that is on disk under a draft's name. It is dropped again unless it is published.
#[derive(Debug)]
pub struct Draft<'a> {
    copies: &'a Copies,
    name: String,
    kept: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Body {
    Bump(Box<Bump>),
    Facts(BTreeMap<String, String>),
}

#[derive(Serialize, Deserialize)]
struct Copy {
    format: u32,
    seq: u64,
    #[serde(flatten)]
    body: Body,
}

impl Found {
    /// The highest number of any copy, drafts included.
    pub fn newest(&self) -> u64 {
        let bumps = self.bumps.values().map(|(seq, _)| *seq).max().unwrap_or(0);
        bumps.max(self.facts.as_ref().map_or(0, |(seq, _)| *seq))
    }

    /// The highest number of a finished copy: that record was in the journal.
    pub fn newest_finished(&self) -> u64 {
        self.finished.values().copied().max().unwrap_or(0)
    }

    /// Whether there is nothing at all.
    pub fn is_empty(&self) -> bool {
        self.bumps.is_empty() && self.facts.is_none() && self.broken.is_empty()
    }
}

impl Copies {
    /// The copies in `dir`, which is made if it is missing.
    pub fn open(dir: &Path) -> io::Result<Self> {
        disk::make_private_dir(dir)?;
        if disk::what_lies_at(dir)? != Lies::Strange("a directory") {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "is no directory"));
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// Reads them all.
    pub fn read(&self) -> io::Result<Found> {
        let mut found = Found::default();
        for entry in std::fs::read_dir(&self.dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let draft = name.starts_with('.');
            let Some(copy) = disk::read(&self.dir.join(&name), MAX_BYTES).ok().and_then(|content| parse(&content)) else {
                // A draft that was cut off belongs to a record that was never written.
                if !draft {
                    found.broken.push(name);
                }
                continue;
            };
            if !draft && file_name(&copy.body) != name {
                found.broken.push(name);
                continue;
            }
            if !draft {
                found.finished.insert(name, copy.seq);
            }
            match copy.body {
                Body::Bump(bump) if found.bumps.get(&bump.id).is_none_or(|(seq, _)| *seq < copy.seq) => {
                    found.bumps.insert(bump.id, (copy.seq, *bump));
                }
                Body::Facts(facts) if found.facts.as_ref().is_none_or(|(seq, _)| *seq < copy.seq) => {
                    found.facts = Some((copy.seq, facts));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// Writes a draft, lasting when this returns.
    pub fn draft(&self, seq: u64, content: Content<'_>) -> io::Result<Draft<'_>> {
        let body = match content {
            Content::Bump(bump) => Body::Bump(Box::new(bump.clone())),
            Content::Facts(facts) => Body::Facts(facts.clone()),
        };
        let name = file_name(&body);
        let json = serde_json::to_string(&Copy { format: 1, seq, body })?;
        let draft = Draft { copies: self, name, kept: false };
        disk::write_new(&draft.path(), format!("{}\n{json}\n", Sum::of("copy", &[&json])).as_bytes())?;
        disk::sync_dir(&self.dir)?;
        Ok(draft)
    }

    /// A bump was closed: removes the copy of one that closed long ago. What cannot be removed is no more than a file too many.
    pub fn forget_old(&self, closed: BumpId) {
        if let Some(old) = closed.0.checked_sub(CLOSED) {
            self.forget_closed(BumpId(old)).ok();
        }
    }

    fn forget_closed(&self, id: BumpId) -> io::Result<()> {
        let path = self.dir.join(id.to_string());
        match parse(&disk::read(&path, MAX_BYTES)?) {
            Some(Copy { body: Body::Bump(bump), .. }) if bump.is_closed() => disk::remove(&path),
            _ => Ok(()),
        }
    }

    /// Removes drafts, once journal and finished copies say what they say.
    pub fn remove_drafts(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                disk::remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

impl Draft<'_> {
    /// Gives the copy its own name: the record is written.
    pub fn publish(mut self) -> io::Result<()> {
        self.kept = true;
        // Not synced: should the name be lost with the power, the draft is found, and its number says that it counts.
        std::fs::rename(self.path(), self.copies.dir.join(&self.name))
    }

    fn path(&self) -> PathBuf {
        self.copies.dir.join(format!(".{}.new", self.name))
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let gone = disk::remove(&self.path()).and_then(|()| disk::sync_dir(&self.copies.dir));
        if let Err(error) = gone {
            tracing::warn!("{} could not be removed again: {error}", self.path().display());
        }
    }
}

fn file_name(body: &Body) -> String {
    match body {
        Body::Bump(bump) => bump.id.to_string(),
        Body::Facts(_) => FACTS.to_owned(),
    }
}

fn parse(content: &[u8]) -> Option<Copy> {
    let (sum, json) = std::str::from_utf8(content).ok()?.split_once('\n')?;
    let json = json.strip_suffix('\n')?;
    if Sum::parse(sum)? != Sum::of("copy", &[json]) {
        return None;
    }
    serde_json::from_str(json).ok().filter(|copy: &Copy| copy.format == 1)
}
