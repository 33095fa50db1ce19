//! Putting files into the archive: what it has already is only referred to, the rest becomes one new pack.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read};

use super::super::StateError;
use super::pack::{PAGE, Pack, PackId, PackWriter, PageHash, page_hash};
use super::recipe::{Recipe, Run, extend};
use super::shelf::Shelf;
use crate::domain::{EntryKind, StateEntry};
use crate::worker::files::{Deadline, Dir, FileError, OpenFile, Seen};

const MAX_DEPTH: usize = 8;
const MAX_ENTRIES: usize = 100_000;
/// Bytes read at a time.
const CHUNK: usize = 64 * PAGE;
/// Stands for the new pack until it has its name.
const NEW: u32 = u32::MAX;

/// Pages that are damaged: pack number -> places.
pub type Damage = BTreeMap<u32, BTreeSet<u32>>;

/// What was put.
#[derive(Debug)]
pub struct Put {
    /// What was read, parents before children.
    pub entries: Vec<StateEntry>,
    /// How to make it again.
    pub recipe: Recipe,
    /// See [`Recipe::pages_digest`].
    pub pages_digest: String,
}

/// Puts the entries `names` of `from` (missing ones are skipped), directories with their content, into the archive. All must be
/// `owner`'s. Nothing is built on pages in `avoid`. The packs are synced when this returns; a snapshot they are only when its
/// recipe is written.
pub fn put(shelf: &Shelf, from: &Dir, names: &[&str], owner: u32, avoid: &Damage, until: Deadline) -> Result<Put, StateError> {
    let packs = shelf.good_packs()?;
    let ids = packs.iter().map(|pack| pack.id).collect();
    let mut putting = Putting {
        shelf,
        owner,
        until,
        known: known(&packs, avoid),
        ids,
        new: HashMap::new(),
        writer: None,
        entries: Vec::new(),
        recipe: Recipe::default(),
        digest: blake3::Hasher::new(),
    };
    drop(packs);
    for name in names {
        if let Some(seen) = from.stat(name)? {
            putting.entry(from, name, &seen, "", 0)?;
        }
    }
    putting.finish()
}

/// Where every good page is, sorted by hash: 24 bytes a page, so that a database of some GB needs some MB.
fn known(packs: &[Pack], avoid: &Damage) -> Vec<(PageHash, u32, u32)> {
    let mut known = Vec::with_capacity(packs.iter().map(|pack| pack.hashes().len()).sum());
    for (at, pack) in (0u32..).zip(packs) {
        let bad = avoid.get(&pack.id.number);
        let pages = (0u32..).zip(pack.hashes()).filter(|(page, _)| bad.is_none_or(|bad| !bad.contains(page)));
        known.extend(pages.map(|(page, hash)| (*hash, at, page)));
    }
    known.sort_unstable();
    known
}

struct Putting<'s> {
    shelf: &'s Shelf,
    owner: u32,
    until: Deadline,
    known: Vec<(PageHash, u32, u32)>,
    ids: Vec<PackId>,
    new: HashMap<PageHash, u32>,
    writer: Option<PackWriter>,
    entries: Vec<StateEntry>,
    recipe: Recipe,
    digest: blake3::Hasher,
}

impl Putting<'_> {
    fn entry(&mut self, from: &Dir, name: &str, seen: &Seen, above: &str, depth: usize) -> Result<(), StateError> {
        let path = format!("{above}{name}");
        if self.entries.len() >= MAX_ENTRIES || path.len() > 1024 {
            let why = format!("holds more than {MAX_ENTRIES} entries or very long names");
            return Err(FileError::bad(from.path(), why).into());
        }
        let (kind, mode) = (seen.check(&from.path().join(name), self.owner)?, seen.mode);
        match kind {
            EntryKind::File => {
                let (mut file, seen) = from.file(name, self.owner)?;
                let (runs, bytes, blake3) = self.file(&mut file).map_err(from.failed("archiving", name))?;
                self.recipe.files.push(runs);
                self.entries.push(StateEntry { path, kind, mode: seen.mode, bytes, blake3 });
            }
            EntryKind::Directory if depth >= MAX_DEPTH => {
                return Err(FileError::bad(from.path().join(name), "is nested too deeply").into());
            }
            EntryKind::Directory => {
                let inside = from.dir(name)?;
                inside.seen()?.check(inside.path(), self.owner)?;
                self.entries.push(StateEntry { path: path.clone(), kind, mode, bytes: 0, blake3: String::new() });
                for child in inside.names(MAX_ENTRIES)? {
                    if let Some(seen) = inside.stat(&child)? {
                        self.entry(&inside, &child, &seen, &format!("{path}/"), depth + 1)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, file: &mut OpenFile) -> io::Result<(Vec<Run>, u64, String)> {
        let mut whole = blake3::Hasher::new();
        let mut runs = Vec::new();
        let mut bytes = 0;
        let mut chunk = vec![0; CHUNK];
        loop {
            self.until.check()?;
            let read = fill(file, &mut chunk)?;
            let content = chunk.get(..read).unwrap_or_default();
            whole.update(content);
            bytes += read as u64;
            let mut last = [0; PAGE];
            for page in content.chunks(PAGE) {
                // Filled up with zeros, so that every page in a pack has the same size.
                let page = if page.len() == PAGE {
                    page
                } else {
                    last.iter_mut().zip(page).for_each(|(to, from)| *to = *from);
                    last.as_slice()
                };
                let (pack, place) = self.page(page)?;
                extend(&mut runs, pack, place);
            }
            if read < CHUNK {
                return Ok((runs, bytes, whole.finalize().to_hex().to_string()));
            }
        }
    }

    /// Where a page is, which is added if there is none like it.
    fn page(&mut self, page: &[u8]) -> io::Result<(u32, u32)> {
        let hash = page_hash(page);
        self.digest.update(&hash);
        let at = self.known.partition_point(|(known, _, _)| *known < hash);
        if let Some((_, pack, place)) = self.known.get(at).filter(|(known, _, _)| *known == hash)
            && let Some(id) = self.ids.get(*pack as usize)
        {
            return Ok((self.recipe.slot(*id), *place));
        }
        if let Some(place) = self.new.get(&hash) {
            return Ok((NEW, *place));
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let draft = self.shelf.draft_pack().map_err(io::Error::other)?;
                self.writer.insert(PackWriter::new(draft)?)
            }
        };
        let place = writer.push(page, hash)?;
        self.new.insert(hash, place);
        Ok((NEW, place))
    }

    fn finish(mut self) -> Result<Put, StateError> {
        if let Some(writer) = self.writer.take() {
            writer.finish().map_err(self.shelf.store.failed("writing", "a pack"))?;
            let slot = self.recipe.slot(self.shelf.keep_pack()?.id);
            for run in self.recipe.files.iter_mut().flatten().filter(|run| run.pack == NEW) {
                run.pack = slot;
            }
        }
        let pages_digest = self.digest.finalize().to_hex().to_string();
        Ok(Put { entries: self.entries, recipe: self.recipe, pages_digest })
    }
}

/// Reads until `chunk` is full or the file ends.
fn fill(file: &mut OpenFile, chunk: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = chunk.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
