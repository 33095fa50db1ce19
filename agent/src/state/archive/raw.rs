//! Snapshots of earlier versions of t3pin: the files as they were, in `userdata/`. Read, verified and restored, but no longer made.

use super::super::StateError;
use super::super::snapshot::Kept;
use super::super::vault_dirs::{own_uid, private};
use super::shelf::Shelf;
use crate::domain::{EntryKind, StateEntry};
use crate::worker::files::{Deadline, Dir, copy_file, hash_file};

/// The entries lie in here.
pub const CONTENT: &str = "userdata";

/// Re-reads every byte: [`StateError::Mismatch`] unless it is whole.
pub fn verify(shelf: &Shelf, kept: &Kept, until: Deadline) -> Result<(), StateError> {
    let content = content(shelf, kept)?;
    for entry in &kept.snapshot.entries {
        let broken = |why: &str| StateError::Mismatch { path: content.path().join(&entry.path), why: why.to_owned() };
        let (holder, name) = content.holder(&entry.path).map_err(|error| broken(&error.to_string()))?;
        let seen = holder.stat(name)?.ok_or_else(|| broken("is missing from the snapshot"))?;
        if seen.kind != Some(entry.kind) {
            return Err(broken("is not what the snapshot's manifest says"));
        }
        if entry.kind == EntryKind::File && hash_file(&holder, name, own_uid(), until)? != (entry.bytes, entry.blake3.clone()) {
            return Err(broken("does not have the content that was taken: the disk lost or changed it"));
        }
    }
    Ok(())
}

/// Copies the entries that `wanted` wants into the empty directory `to`, not synced.
pub fn fetch(
    shelf: &Shelf,
    kept: &Kept,
    wanted: impl Fn(&StateEntry) -> bool,
    to: &Dir,
    until: Deadline,
) -> Result<(), StateError> {
    let content = content(shelf, kept)?;
    for entry in kept.snapshot.entries.iter().filter(|entry| wanted(entry)) {
        let ((from, name), (to, _)) = (content.holder(&entry.path)?, to.holder(&entry.path)?);
        match entry.kind {
            EntryKind::File => drop(copy_file(&from, name, own_uid(), &to, until)?),
            EntryKind::Directory => drop(to.make_dir(name)?),
        }
    }
    Ok(())
}

fn content(shelf: &Shelf, kept: &Kept) -> Result<Dir, StateError> {
    private(kept.dir(shelf)?.dir(CONTENT)?)
}
