//! A copy of a tree of many files, made once and then kept alike: only what has changed is copied again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::copy::copy_content;
use super::{Dir, FileError, Listing, Seen, remove_tree};
use crate::domain::EntryKind;

/// What was copied is waited for after so many bytes: what piles up is what the next commit of a server has to wait for.
const SYNCED: u64 = 32 << 20;

/// What keeping a copy alike took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brought {
    /// Bytes that were copied, clones not counted.
    pub bytes: u64,
    /// Whether all that was copied was cloned (ioctl_ficlone(2)).
    pub all_cloned: bool,
}

/// Makes the copy in `to` of the directory `name` of `from` what the original is now, synced: `had` is the listing that this
/// returned the last time, `None` when there is no copy yet. Everything must be `owner`'s. Files have the modes of the originals
/// then, directories 0700 until [`close`]. What disappears meanwhile is left out; the next time shows it.
pub fn keep_alike(
    from: &Dir,
    name: &str,
    owner: u32,
    to: &Dir,
    had: Option<&Listing>,
) -> Result<(Option<Listing>, Brought), FileError> {
    let now = Listing::of(from, name, owner)?;
    let known: BTreeMap<&str, &Seen> =
        had.iter().flat_map(|had| &had.entries).map(|(path, seen)| (path.as_str(), seen)).collect();
    let stays = |path: &str, seen: &Seen| match (known.get(path), seen.kind) {
        (Some(then), Some(EntryKind::Directory)) => then.kind == seen.kind,
        (Some(then), _) => had.is_some_and(|had| had.is_unchanged(then, seen)),
        (None, _) => false,
    };
    let entries = now.as_ref().map(|now| now.entries.as_slice()).unwrap_or_default();
    let kept: BTreeSet<&str> = entries.iter().filter(|(path, seen)| stays(path, seen)).map(|(path, _)| path.as_str()).collect();
    let mut touched = BTreeSet::new();
    for path in known.keys().rev().filter(|path| !kept.contains(*path)) {
        if let Some((holder, last)) = holder(to, path)? {
            remove_tree(&holder, last)?;
            touched.insert(above(path));
        }
    }
    let mut brought = Brought { bytes: 0, all_cloned: true };
    let (mut new, mut unsynced) = (Vec::new(), 0);
    for (path, seen) in entries.iter().filter(|(path, _)| !kept.contains(path.as_str())) {
        let Some((target, last)) = holder(to, path)? else { continue };
        touched.insert(above(path));
        if seen.kind == Some(EntryKind::Directory) {
            target.make_dir(last)?;
            touched.insert(path);
            continue;
        }
        let Some((source, last)) = holder(from, path)? else { continue };
        match copy_content(&source, last, owner, &target) {
            Ok((bytes, cloned)) => {
                brought.bytes += if cloned { 0 } else { bytes };
                brought.all_cloned &= cloned || bytes == 0;
                new.push((path.as_str(), seen.mode));
                unsynced += bytes;
                if unsynced >= SYNCED {
                    sync(to, &std::mem::take(&mut new), owner)?;
                    unsynced = 0;
                }
            }
            Err(FileError::Io { source: error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    sync(to, &new, owner)?;
    for path in touched {
        if let Some(dir) = to.beneath(Path::new(path))? {
            dir.sync()?;
        }
    }
    Ok((now, brought))
}

/// Makes these new files lasting, and gives them their modes. All are written before the first is waited for: the file system's log
/// is written once for all of them, not once for each.
fn sync(to: &Dir, new: &[(&str, u32)], owner: u32) -> Result<(), FileError> {
    for (path, mode) in new {
        let Some((target, last)) = holder(to, path)? else { continue };
        target.file(last, owner)?.0.sync_all().map_err(target.failed("syncing", last))?;
        target.dress(last, None, *mode)?;
    }
    Ok(())
}

/// Gives the directories of a copy in `to` the modes of the originals: the last thing that is done to it.
pub fn close(to: &Dir, listing: &Listing) -> Result<(), FileError> {
    let directories = listing.entries.iter().rev().filter(|(_, seen)| seen.kind == Some(EntryKind::Directory));
    for (path, seen) in directories {
        if let Some((holder, last)) = holder(to, path)?
            && holder.stat(last)?.is_some()
        {
            holder.dress(last, None, seen.mode)?;
        }
    }
    Ok(())
}

/// The directory that holds `path`, and the name in it; `None` when it is gone.
fn holder<'p>(dir: &Dir, path: &'p str) -> Result<Option<(Dir, &'p str)>, FileError> {
    let last = path.rsplit_once('/').map_or(path, |(_, last)| last);
    Ok(dir.beneath(Path::new(above(path)))?.map(|holder| (holder, last)))
}

/// The path of what holds `path`.
fn above(path: &str) -> &str {
    path.rsplit_once('/').map_or(".", |(above, _)| above)
}
