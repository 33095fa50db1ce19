//! Small trees of state entries: measured, copied, dressed, synced, removed.

use std::ffi::OsStr;

use super::listing::MAX_LISTED;
use super::{Deadline, Dir, FileError, Seen, copy_file};
use crate::domain::{ATTACHMENTS, EntryKind, Lying, StateEntry};

/// `secrets/` is flat (T3-CONTRACT section 2); a few levels more are taken, deeper ones are refused.
const MAX_DEPTH: usize = 8;
/// What one state may consist of; the worker's answer must hold them all.
const MAX_ENTRIES: usize = 2000;
/// How deep a tree may be that is removed. Each level needs one descriptor.
const MAX_REMOVE_DEPTH: usize = 200;

/// Copies the entries `names` of `from` (missing ones are skipped) into `to`, directories with their content, as files 0600 and
/// directories 0700. Everything must be `owner`'s. Returns what was read, parents before children, and whether every
/// file was cloned.
pub fn copy_entries(
    from: &Dir,
    names: &[&str],
    owner: u32,
    to: &Dir,
    until: Deadline,
) -> Result<(Vec<StateEntry>, bool), FileError> {
    let mut copy = Copy { owner, until, entries: Vec::new(), all_cloned: true };
    for name in names {
        if let Some(seen) = from.stat(name)? {
            copy.entry(from, name, &seen, to, "", 0)?;
        }
    }
    Ok((copy.entries, copy.all_cloned))
}

struct Copy {
    owner: u32,
    until: Deadline,
    entries: Vec<StateEntry>,
    all_cloned: bool,
}

impl Copy {
    fn entry(&mut self, from: &Dir, name: &str, seen: &Seen, to: &Dir, above: &str, depth: usize) -> Result<(), FileError> {
        let path = format!("{above}{name}");
        if self.entries.len() >= MAX_ENTRIES || path.len() > 1024 {
            return Err(FileError::bad(from.path(), format!("holds more than {MAX_ENTRIES} entries or very long names")));
        }
        match seen.check(&from.path().join(name), self.owner)? {
            EntryKind::File => {
                let (entry, cloned) = copy_file(from, name, self.owner, to, self.until)?;
                self.all_cloned &= cloned || entry.bytes == 0;
                self.entries.push(StateEntry { path, ..entry });
            }
            EntryKind::Directory if depth >= MAX_DEPTH => {
                return Err(FileError::bad(from.path().join(name), "is nested too deeply"));
            }
            EntryKind::Directory => {
                let (from, to) = (from.dir(name)?, to.make_dir(name)?);
                from.seen()?.check(from.path(), self.owner)?;
                let kind = EntryKind::Directory;
                self.entries.push(StateEntry { path: path.clone(), kind, mode: seen.mode, bytes: 0, blake3: String::new() });
                for child in from.names(MAX_ENTRIES)? {
                    if let Some(seen) = from.stat(&child)? {
                        self.entry(&from, &child, &seen, &to, &format!("{path}/"), depth + 1)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Bytes of the entries `names` of `from`, after the same checks as for copying. Opens no file.
pub fn measure(from: &Dir, names: &[&str], owner: u32) -> Result<u64, FileError> {
    fn walk(from: &Dir, name: &str, owner: u32, left: &mut usize, depth: usize) -> Result<u64, FileError> {
        let Some(seen) = from.stat(name)? else { return Ok(0) };
        let path = from.path().join(name);
        *left = left.checked_sub(1).ok_or_else(|| FileError::bad(from.path(), "holds too many entries"))?;
        match seen.check(&path, owner)? {
            EntryKind::File => Ok(seen.bytes),
            EntryKind::Directory if depth >= MAX_DEPTH => Err(FileError::bad(path, "is nested too deeply")),
            EntryKind::Directory => {
                let dir = from.dir(name)?;
                dir.names(MAX_ENTRIES)?
                    .iter()
                    .try_fold(0u64, |sum, child| Ok(sum.saturating_add(walk(&dir, child, owner, left, depth + 1)?)))
            }
        }
    }
    let mut left = MAX_ENTRIES;
    names.iter().try_fold(0u64, |sum, name| Ok(sum.saturating_add(walk(from, name, owner, &mut left, 0)?)))
}

/// The entries `names` of `from` (missing ones are skipped) and what is below them, parents before children, after the same checks
/// as for copying. Opens no file, and does not look into the [`ATTACHMENTS`] (for these see [`super::Listing`]).
pub fn lying(from: &Dir, names: &[&str], owner: u32) -> Result<Vec<Lying>, FileError> {
    fn walk(from: &Dir, name: &str, owner: u32, above: &str, depth: usize, all: &mut Vec<Lying>) -> Result<(), FileError> {
        let Some(seen) = from.stat(name)? else { return Ok(()) };
        let (path, full) = (format!("{above}{name}"), from.path().join(name));
        if all.len() >= MAX_ENTRIES || path.len() > 1024 {
            return Err(FileError::bad(from.path(), format!("holds more than {MAX_ENTRIES} entries or very long names")));
        }
        let kind = seen.check(&full, owner)?;
        let is_file = kind == EntryKind::File;
        let mtime_ns = if is_file { i64::try_from(seen.mtime_ns).unwrap_or(i64::MAX) } else { 0 };
        all.push(Lying { path: path.clone(), kind, mode: seen.mode, bytes: seen.bytes, ino: seen.ino, mtime_ns });
        if is_file || path == ATTACHMENTS {
            return Ok(());
        }
        if depth >= MAX_DEPTH {
            return Err(FileError::bad(full, "is nested too deeply"));
        }
        let dir = from.dir(name)?;
        dir.seen()?.check(dir.path(), owner)?;
        for child in dir.names(MAX_ENTRIES)? {
            walk(&dir, &child, owner, &format!("{path}/"), depth + 1, all)?;
        }
        Ok(())
    }
    let mut all = Vec::new();
    for name in names {
        walk(from, name, owner, "", 0, &mut all)?;
    }
    Ok(all)
}

/// How much lies somewhere, and when it last changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Survey {
    /// Bytes of all files.
    pub bytes: u64,
    /// The latest change of content, nanoseconds since the Unix epoch; far in the future when it could not be told.
    pub newest_ns: i128,
}

/// Surveys `name` and everything below it, whatever it is, opening directories only. Never fails: what cannot be looked at
/// counts as changed.
pub fn survey(dir: &Dir, name: impl AsRef<OsStr>) -> Survey {
    fn walk(dir: &Dir, name: &OsStr, left: &mut usize, depth: usize, sum: &mut Survey) -> Option<()> {
        let seen = dir.stat(name).ok()??;
        *left = left.checked_sub(1)?;
        sum.bytes = sum.bytes.saturating_add(seen.bytes);
        sum.newest_ns = sum.newest_ns.max(seen.mtime_ns);
        if seen.kind == Some(EntryKind::Directory) {
            let inside = if depth < MAX_DEPTH { dir.dir(name).ok()? } else { return None };
            for child in inside.some_names(*left + 1).ok()? {
                walk(&inside, &child, left, depth + 1, sum)?;
            }
        }
        Some(())
    }
    let mut sum = Survey::default();
    let mut left = 100 * MAX_ENTRIES;
    if walk(dir, name.as_ref(), &mut left, 0, &mut sum).is_none() {
        sum.newest_ns = i128::MAX;
    }
    sum
}

/// Gives the copied `entries` below `dir` the modes they had, and the owner `owner` when given (uid, gid).
pub fn dress(dir: &Dir, entries: &[StateEntry], owner: Option<(u32, u32)>) -> Result<(), FileError> {
    // Children before parents: a directory without write permission can be dressed last only.
    for entry in entries.iter().rev() {
        let (holder, name) = dir.holder(&entry.path)?;
        holder.dress(name, owner, entry.mode & 0o777)?;
    }
    Ok(())
}

/// Makes everything below and including `dir`, as `owner` has it, survive power loss.
pub fn sync_tree(dir: &Dir, owner: u32) -> Result<(), FileError> {
    fn walk(dir: &Dir, owner: u32, depth: usize) -> Result<(), FileError> {
        for name in dir.names(MAX_LISTED)? {
            let Some(seen) = dir.stat(&name)? else { continue };
            match seen.check(&dir.path().join(&name), owner)? {
                EntryKind::File => dir.file(&name, owner)?.0.sync_all().map_err(dir.failed("syncing", &name))?,
                EntryKind::Directory if depth >= MAX_DEPTH => return Err(FileError::bad(dir.path(), "is nested too deeply")),
                EntryKind::Directory => walk(&dir.dir(&name)?, owner, depth + 1)?,
            }
        }
        dir.sync()
    }
    walk(dir, owner, 0)
}

/// Removes `name` and everything below it, following nothing. Missing is fine; a half-removed tree can be removed again.
pub fn remove_tree(dir: &Dir, name: impl AsRef<OsStr>) -> Result<(), FileError> {
    fn walk(dir: &Dir, name: &OsStr, depth: usize) -> Result<(), FileError> {
        match dir.stat(name)?.map(|seen| seen.kind) {
            None => return Ok(()),
            Some(Some(EntryKind::Directory)) if depth < MAX_REMOVE_DEPTH => {}
            Some(Some(EntryKind::Directory)) => {
                return Err(FileError::bad(dir.path().join(name), "is nested too deeply to be removed"));
            }
            Some(_) => return dir.unlink(name),
        }
        let inside = dir.dir_to_empty(name)?;
        loop {
            // In portions, so that a directory with millions of names costs time but no memory.
            let portion = inside.some_names(1000)?;
            if portion.is_empty() {
                return dir.remove_dir(name);
            }
            for child in portion {
                walk(&inside, &child, depth + 1)?;
            }
        }
    }
    walk(dir, name.as_ref(), 0)
}
