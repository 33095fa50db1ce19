//! Making the files of a snapshot again, from beginning to end, with a few unpacked frames in memory.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;

use super::super::StateError;
use super::pack::{FRAME_PAGES, PAGE, Pack, PackId, page_hash};
use super::recipe::{Recipe, Run};
use super::shelf::Shelf;
use crate::domain::{EntryKind, StateEntry};
use crate::worker::files::{Deadline, Dir, effect};

/// Part of a run that lies in one frame: which pack, which frame, the first page within it, how many.
type Piece = (u32, u32, u32, u32);

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
    let mut frames = Frames::default();
    for (entry, runs) in recipe.files(entries).ok_or_else(unfit)?.into_iter().filter(|(entry, _)| wanted(entry)) {
        let (holder, name) = to.holder(&entry.path)?;
        let mut file = holder.create(name)?;
        let mut left = entry.bytes;
        for (slot, number, first, count) in pieces(runs) {
            until.check().map_err(holder.failed("making", name))?;
            let id = *recipe.packs.get(slot as usize).ok_or_else(unfit)?;
            let content = range(frames.get(shelf, id, number)?, first, count).ok_or_else(unfit)?;
            // The last page of a file is longer in the pack than in the file.
            let content = content.get(..usize::try_from(left).unwrap_or(usize::MAX)).unwrap_or(content);
            effect::begin().and_then(|()| file.write_all(content)).map_err(holder.failed("writing", name))?;
            left = left.saturating_sub(content.len() as u64);
        }
    }
    Ok(())
}

/// The packs that are open, and the frames that were unpacked last. A file is made from beginning to end; its pages lie in the same
/// order in each of the packs they come from, so that a few frames suffice for each to be unpacked about once.
#[derive(Default)]
struct Frames {
    packs: BTreeMap<PackId, Pack>,
    unpacked: VecDeque<((PackId, u32), Vec<u8>)>,
}

/// 24 of 256 KiB.
const UNPACKED: usize = 24;

impl Frames {
    fn get(&mut self, shelf: &Shelf, id: PackId, number: u32) -> Result<&[u8], StateError> {
        let at = match self.unpacked.iter().position(|(name, _)| *name == (id, number)) {
            Some(at) => at,
            None => {
                let content = self.unpack(shelf, id, number)?;
                self.unpacked.truncate(UNPACKED - 1);
                self.unpacked.push_front(((id, number), content));
                0
            }
        };
        Ok(self.unpacked.get(at).map(|(_, content)| content.as_slice()).unwrap_or_default())
    }

    fn unpack(&mut self, shelf: &Shelf, id: PackId, number: u32) -> Result<Vec<u8>, StateError> {
        if let Entry::Vacant(vacant) = self.packs.entry(id) {
            vacant.insert(open_as(shelf, id)?);
        }
        let pack = self.packs.get(&id).ok_or_else(|| damaged(shelf, "a pack is missing"))?;
        let why = |why: String| damaged(shelf, &format!("frame {number} of pack {} cannot be read: {why}", id.number));
        let content = pack.frame(number as usize).map_err(why)?;
        let hashes = pack.hashes().iter().skip(number as usize * FRAME_PAGES);
        if content.chunks(PAGE).zip(hashes).any(|(page, hash)| page_hash(page) != *hash) {
            return Err(damaged(shelf, &format!("pages of pack {} are not what was put there", id.number)));
        }
        Ok(content)
    }
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

fn pieces(runs: &[Run]) -> Vec<Piece> {
    let frame_pages = FRAME_PAGES as u32;
    let mut pieces = Vec::with_capacity(runs.len());
    for run in runs {
        let (mut first, mut left) = (run.first, run.count);
        while left > 0 {
            let within = first % frame_pages;
            let count = left.min(frame_pages - within);
            pieces.push((run.pack, first / frame_pages, within, count));
            left -= count;
            first = first.saturating_add(count);
        }
    }
    pieces
}

fn range(frame: &[u8], first: u32, count: u32) -> Option<&[u8]> {
    let first = first as usize * PAGE;
    frame.get(first..first.checked_add(count as usize * PAGE)?)
}

fn damaged(shelf: &Shelf, why: &str) -> StateError {
    StateError::Mismatch { path: shelf.store.path().to_owned(), why: format!("{why}: the disk lost or changed it") }
}
