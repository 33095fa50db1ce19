//! A recipe: from which pages of which packs each file of a snapshot is made. In order, and in runs, so that a snapshot
//! that shares nearly everything with an earlier one takes a few kilobytes.

use std::collections::BTreeMap;

use super::super::StateError;
use super::super::vault_dirs::own_uid;
use super::pack::{PAGE, PackId, PageHash};
use crate::domain::{EntryKind, StateEntry};
use crate::worker::files::Dir;

/// The file in a snapshot's directory.
pub const RECIPE: &str = "recipe";
const MAGIC: &[u8; 8] = b"t3pinrc1";
/// Unpacked; 10 million runs would be a database of 40 GB that shares no two pages in a row.
const MAX_BYTES: usize = 128 << 20;

/// Pages that follow each other in a pack, and in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Which of [`Recipe::packs`].
    pub pack: u32,
    /// The first page's place in it.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// How a snapshot is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipe {
    /// The packs that it needs.
    pub packs: Vec<PackId>,
    /// For every file among the snapshot's entries, in their order: its pages.
    pub files: Vec<Vec<Run>>,
}

impl Recipe {
    /// The place of `pack` among [`Recipe::packs`]; added when it is new.
    pub fn slot(&mut self, pack: PackId) -> u32 {
        let at = self.packs.iter().position(|known| *known == pack).unwrap_or_else(|| {
            self.packs.push(pack);
            self.packs.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// The files of `entries` with their pages; [`None`] when the two do not fit.
    pub fn files<'a>(&'a self, entries: &'a [StateEntry]) -> Option<Vec<(&'a StateEntry, &'a [Run])>> {
        let files: Vec<&StateEntry> = entries.iter().filter(|entry| entry.kind == EntryKind::File).collect();
        let fits = files.len() == self.files.len()
            && files.iter().zip(&self.files).all(|(entry, runs)| {
                let pages: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
                pages == entry.bytes.div_ceil(PAGE as u64)
            });
        fits.then(|| files.into_iter().zip(self.files.iter().map(Vec::as_slice)).collect())
    }

    /// The digest of all page hashes in order, which does not depend on where the pages lie. `None` when a pack is missing or
    /// has no such page.
    pub fn pages_digest(&self, hashes: &BTreeMap<PackId, &[PageHash]>) -> Option<String> {
        let mut hasher = blake3::Hasher::new();
        for run in self.files.iter().flatten() {
            let pages = hashes.get(self.packs.get(run.pack as usize)?)?;
            let first = run.first as usize;
            hasher.update(pages.get(first..first.checked_add(run.count as usize)?)?.as_flattened());
        }
        Some(hasher.finalize().to_hex().to_string())
    }

    /// Writes it into a snapshot's directory, in place of an earlier one (synced, atomic).
    pub fn write(&self, dir: &Dir) -> Result<(), StateError> {
        let mut plain = Vec::new();
        let number = |n: u32, to: &mut Vec<u8>| to.extend_from_slice(&n.to_le_bytes());
        number(u32::try_from(self.packs.len()).unwrap_or(u32::MAX), &mut plain);
        for pack in &self.packs {
            number(pack.number, &mut plain);
            plain.extend_from_slice(&pack.digest);
        }
        number(u32::try_from(self.files.len()).unwrap_or(u32::MAX), &mut plain);
        for runs in &self.files {
            number(u32::try_from(runs.len()).unwrap_or(u32::MAX), &mut plain);
            for run in runs {
                [run.pack, run.first, run.count].into_iter().for_each(|n| number(n, &mut plain));
            }
        }
        let digest = blake3::hash(&plain);
        let packed = zstd::bulk::compress(&plain, 3).map_err(dir.failed("writing", RECIPE))?;
        let mut content = MAGIC.to_vec();
        content.extend_from_slice(digest.as_bytes());
        content.extend_from_slice(&(plain.len() as u64).to_le_bytes());
        content.extend_from_slice(&packed);
        Ok(dir.write_synced(RECIPE, &content)?)
    }

    /// Reads it from a snapshot's directory; `None` when there is none. [`StateError::Mismatch`] when it is damaged.
    pub fn read(dir: &Dir) -> Result<Option<Self>, StateError> {
        let broken = || StateError::Mismatch { path: dir.path().join(RECIPE), why: "is damaged".to_owned() };
        let Some(content) = dir.read(RECIPE, own_uid(), MAX_BYTES as u64)? else { return Ok(None) };
        let (head, packed) = content.split_at_checked(48).ok_or_else(broken)?;
        let (magic, rest) = head.split_at(8);
        let (digest, length) = rest.split_at(32);
        let length = u64::from_le_bytes(*length.first_chunk::<8>().ok_or_else(broken)?);
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_BYTES).ok_or_else(broken)?;
        let plain = zstd::bulk::decompress(packed, length).map_err(|_| broken())?;
        if magic != MAGIC || blake3::hash(&plain).as_bytes() != digest {
            return Err(broken());
        }
        Self::parse(&plain).map(Some).ok_or_else(broken)
    }

    fn parse(mut plain: &[u8]) -> Option<Self> {
        fn number(plain: &mut &[u8]) -> Option<u32> {
            let (number, rest) = plain.split_first_chunk::<4>()?;
            *plain = rest;
            Some(u32::from_le_bytes(*number))
        }
        let mut recipe = Self::default();
        for _ in 0..number(&mut plain)? {
            let number = number(&mut plain)?;
            let (digest, rest) = plain.split_first_chunk::<16>()?;
            plain = rest;
            recipe.packs.push(PackId { number, digest: *digest });
        }
        for _ in 0..number(&mut plain)? {
            let mut runs = Vec::new();
            for _ in 0..number(&mut plain)? {
                runs.push(Run { pack: number(&mut plain)?, first: number(&mut plain)?, count: number(&mut plain)? });
            }
            recipe.files.push(runs);
        }
        Some(recipe)
    }
}

/// Adds one page to `runs`.
pub fn extend(runs: &mut Vec<Run>, pack: u32, page: u32) {
    match runs.last_mut() {
        Some(run) if run.pack == pack && run.first.checked_add(run.count) == Some(page) => run.count += 1,
        _ => runs.push(Run { pack, first: page, count: 1 }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_is_read_as_it_was_written_and_a_flipped_bit_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let open = Dir::open(dir.path()).unwrap();
        let mut recipe = Recipe::default();
        let one = recipe.slot(PackId { number: 1, digest: [7; 16] });
        let two = recipe.slot(PackId { number: 2, digest: [8; 16] });
        assert_eq!(recipe.slot(PackId { number: 1, digest: [7; 16] }), one);
        let mut runs = Vec::new();
        for (pack, page) in [(one, 0), (one, 1), (two, 2), (two, 2), (two, 3)] {
            extend(&mut runs, pack, page);
        }
        let run = |pack, first, count| Run { pack, first, count };
        assert_eq!(runs, [run(one, 0, 2), run(two, 2, 1), run(two, 2, 2)]);
        recipe.files = vec![runs, Vec::new()];
        recipe.write(&open).unwrap();
        assert_eq!(Recipe::read(&open).unwrap().unwrap(), recipe);
        let path = dir.path().join(RECIPE);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(Recipe::read(&open), Err(StateError::Mismatch { .. })));
    }
}
