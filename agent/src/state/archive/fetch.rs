//! Making the files of a snapshot again, frame by frame in the order in which they lie: each is read and unpacked once per file,
//! and nothing but one frame is ever in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::super::StateError;
use super::pack::{FRAME_PAGES, PAGE, Pack, PackId, page_hash};
use super::recipe::{Recipe, Run};
use super::shelf::Shelf;
use crate::domain::{EntryKind, StateEntry};
use crate::worker::files::{Deadline, Dir, effect};

/// Part of a run that lies in one frame: which pack, which frame, the first page within it, how many, where in the file.
type Piece = (u32, u32, u32, u32, u64);

/// Makes those of `entries` that `wanted` wants in the empty directory `to`: files 0600, directories 0700, not synced. What is not
/// what it was is [`StateError::Mismatch`], and what was made by then is left to the caller.
pub fn fetch(
    shelf: &Shelf,
    entries: &[StateEntry],
    recipe: &Recipe,
    wanted: impl Fn(&StateEntry) -> bool,
    to: &Dir,
    until: Deadline,
) -> Result<(), StateError> {
    let unfit = || damaged(shelf, "its recipe does not fit what it is to hold");
    for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Directory && wanted(entry)) {
        let (holder, name) = to.holder(&entry.path)?;
        holder.make_dir(name)?;
    }
    let mut open: Option<Pack> = None;
    for (entry, runs) in recipe.files(entries).ok_or_else(unfit)?.into_iter().filter(|(entry, _)| wanted(entry)) {
        let (holder, name) = to.holder(&entry.path)?;
        let file = holder.create(name)?;
        file.set_len(entry.bytes).map_err(holder.failed("making", name))?;
        let mut frame: (Option<(u32, u32)>, Vec<u8>) = (None, Vec::new());
        for (slot, number, first, count, offset) in pieces(runs) {
            until.check().map_err(holder.failed("making", name))?;
            let id = *recipe.packs.get(slot as usize).ok_or_else(unfit)?;
            let pack = match open.take().filter(|pack| pack.id == id) {
                Some(pack) => pack,
                None => open_as(shelf, id)?,
            };
            if frame.0 != Some((slot, number)) {
                let why = |why: String| damaged(shelf, &format!("frame {number} of pack {} cannot be read: {why}", id.number));
                frame = (Some((slot, number)), pack.frame(number as usize).map_err(why)?);
            }
            let content = range(&frame.1, first, count).ok_or_else(unfit)?;
            let place = number as usize * FRAME_PAGES + first as usize;
            let hashes = pack.hashes().iter().skip(place);
            if content.chunks(PAGE).zip(hashes).any(|(page, hash)| page_hash(page) != *hash) {
                return Err(damaged(shelf, &format!("pages of pack {} are not what was put there", id.number)));
            }
            write(&file, content, offset, entry.bytes).map_err(holder.failed("writing", name))?;
            open = Some(pack);
        }
    }
    Ok(())
}

/// The pack with that very index.
pub fn open_as(shelf: &Shelf, id: PackId) -> Result<Pack, StateError> {
    if shelf.store.stat(super::pack::file_name(id.number))?.is_none() {
        return Err(damaged(shelf, &format!("pack {} is missing", id.number)));
    }
    let pack = Pack::open(&shelf.store, id.number)?;
    if pack.id == id {
        return Ok(pack);
    }
    Err(damaged(shelf, &format!("pack {} is another one than the one that is needed", id.number)))
}

/// The last page of a file is longer in the pack than in the file.
fn write(file: &File, content: &[u8], offset: u64, length: u64) -> std::io::Result<()> {
    let left = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
    effect::begin()?;
    file.write_all_at(content.get(..left).unwrap_or(content), offset)
}

fn pieces(runs: &[Run]) -> Vec<Piece> {
    let frame_pages = FRAME_PAGES as u32;
    let mut pieces = Vec::with_capacity(runs.len());
    let mut offset = 0u64;
    for run in runs {
        let (mut first, mut left) = (run.first, run.count);
        while left > 0 {
            let within = first % frame_pages;
            let count = left.min(frame_pages - within);
            pieces.push((run.pack, first / frame_pages, within, count, offset));
            offset += u64::from(count) * PAGE as u64;
            left -= count;
            first = first.saturating_add(count);
        }
    }
    pieces.sort_unstable();
    pieces
}

fn range(frame: &[u8], first: u32, count: u32) -> Option<&[u8]> {
    let first = first as usize * PAGE;
    frame.get(first..first.checked_add(count as usize * PAGE)?)
}

fn damaged(shelf: &Shelf, why: &str) -> StateError {
    StateError::Mismatch { path: shelf.store.path().to_owned(), why: format!("{why}: the disk lost or changed it") }
}
