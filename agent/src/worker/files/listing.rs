//! What lies in a tree of many files, without opening one: what has changed since shows in it.

use std::time::SystemTime;

use super::{Dir, FileError, Seen};
use crate::domain::{Attachments, EntryKind};

/// More than anybody has attached; in memory it is some 10 MB.
pub const MAX_LISTED: usize = 50_000;
/// `attachments/` is flat or nearly so; deeper trees are refused.
const MAX_DEPTH: usize = 8;
/// Times of changes come from a clock that ticks this coarsely at worst, in nanoseconds (some file systems keep whole seconds).
const TICK: i128 = 2_000_000_000;

/// A directory and everything below it, parents before children, each with what it looked like.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Paths from the directory's own name on, with `/` between components.
    pub entries: Vec<(String, Seen)>,
    begun_ns: i128,
}

impl Listing {
    /// Lists the directory `name` of `from`; `None` when it is not there. Everything must be `owner`'s, with one name only, on
    /// one file system, and a regular file or a directory: else the error names what is not, so that its owner can move it away.
    pub fn of(from: &Dir, name: &str, owner: u32) -> Result<Option<Self>, FileError> {
        let begun = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut listing = Self { entries: Vec::new(), begun_ns: i128::try_from(begun.as_nanos()).unwrap_or(i128::MAX) };
        let Some(seen) = from.stat(name)? else { return Ok(None) };
        if seen.kind == Some(EntryKind::File) {
            return Err(FileError::bad(from.path().join(name), "is no directory, where one belongs"));
        }
        listing.entry(from, name, &seen, &from.seen()?, owner, "")?;
        Ok(Some(listing))
    }

    fn entry(&mut self, from: &Dir, name: &str, seen: &Seen, above: &Seen, owner: u32, path: &str) -> Result<(), FileError> {
        let (full, path) = (from.path().join(name), format!("{path}{name}"));
        let kind = seen.check(&full, owner)?;
        // A subvolume of btrfs: what is mounted is not even looked at.
        if seen.dev != above.dev {
            return Err(FileError::bad(full, "is another file system, mounted there: it cannot be moved aside with the rest"));
        }
        if self.entries.len() >= MAX_LISTED || path.len() > 1024 {
            let why = format!("holds more than {MAX_LISTED} entries or very long names; move some of them away");
            return Err(FileError::bad(from.path(), why));
        }
        if kind == EntryKind::Directory && path.matches('/').count() >= MAX_DEPTH {
            return Err(FileError::bad(full, "is nested too deeply"));
        }
        self.entries.push((path.clone(), *seen));
        if kind == EntryKind::Directory {
            let inside = from.dir(name)?;
            inside.seen()?.check(&full, owner)?;
            for child in inside.names(MAX_LISTED)? {
                // Gone since its name was read: a server may be at work here.
                if let Some(below) = inside.stat(&child)? {
                    self.entry(&inside, &child, &below, seen, owner, &format!("{path}/"))?;
                }
            }
        }
        Ok(())
    }

    /// Whether the file that looked like `then` in this listing has its content still, when it looks like `now`. What was written
    /// within a tick of the listing may have been written after it, too, with the same time.
    pub fn is_unchanged(&self, then: &Seen, now: &Seen) -> bool {
        let same = (then.kind, then.bytes, then.mode, then.mtime_ns) == (now.kind, now.bytes, now.mode, now.mtime_ns);
        same && then.is_same(now) && then.mtime_ns < self.begun_ns - TICK
    }

    /// It in short.
    pub fn summary(&self) -> Attachments {
        let mut digest = blake3::Hasher::new();
        let mut bytes = 0u64;
        for (path, seen) in &self.entries {
            let is_file = seen.kind == Some(EntryKind::File);
            digest.update(&(path.len() as u64).to_le_bytes());
            digest.update(path.as_bytes());
            digest.update(&[u8::from(is_file)]);
            for number in [u64::from(seen.mode), seen.bytes, seen.ino] {
                digest.update(&number.to_le_bytes());
            }
            // That of a directory also changes when it is moved or dressed, without anything being written to it.
            digest.update(&(if is_file { seen.mtime_ns } else { 0 }).to_le_bytes());
            bytes = bytes.saturating_add(seen.bytes);
        }
        Attachments { entries: self.entries.len() as u64, bytes, digest: digest.finalize().to_hex().to_string() }
    }
}
