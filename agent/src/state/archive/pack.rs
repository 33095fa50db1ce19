//! A pack: pages of users' files, each once, in compressed frames; written once, synced, and never changed.
//!
//! ```text
//! frame frame ... | length of every frame (u32) | hash of every page (16 bytes) | frames, pages (u32) | BLAKE3 of all between | magic
//! ```
//! A page is 4096 bytes, SQLite's own page size, so that two states of a database share what did not change; the last page
//! of a file is filled up with zeros. 64 pages make a frame: page by page they would compress half as well.

use std::io::{self, Write};

use super::super::StateError;
use super::super::vault_dirs::own_uid;
use crate::worker::files::{Dir, OpenFile, effect};

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// Pages of a frame; the last one of a pack may have fewer.
pub const FRAME_PAGES: usize = 64;
/// zstd's fastest ordinary level: higher ones save 2 % for 40 % more work.
const LEVEL: i32 = 1;
const MAGIC: &[u8; 8] = b"t3pinpk1";
const HASH: usize = 16;
const FOOTER: usize = 4 + 4 + 32 + 8;
/// An index larger than this (16 GB of pages) is none of ours.
const MAX_PAGES: usize = 4 << 20;

/// Names a page by its content: the first half of its BLAKE3.
pub type PageHash = [u8; HASH];

/// The hash of a page.
pub fn page_hash(page: &[u8]) -> PageHash {
    let mut short = [0; HASH];
    let whole = blake3::hash(page);
    short.copy_from_slice(whole.as_bytes().split_at(HASH).0);
    short
}

/// Which pack: its number, and a digest of its index, so that a number that is used again is never mistaken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId {
    /// Its file is named after it.
    pub number: u32,
    /// The first half of the BLAKE3 of its index.
    pub digest: [u8; HASH],
}

/// The name of a pack's file.
pub fn file_name(number: u32) -> String {
    format!("p{number:06}")
}

/// The number of a pack's file.
pub fn number_of(name: &str) -> Option<u32> {
    let number = name.strip_prefix('p')?.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// Writes a pack.
pub struct PackWriter {
    file: OpenFile,
    compressor: zstd::bulk::Compressor<'static>,
    frame: Vec<u8>,
    lengths: Vec<u32>,
    hashes: Vec<PageHash>,
}

impl PackWriter {
    /// Into the empty `file`.
    pub fn new(file: OpenFile) -> io::Result<Self> {
        let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
        compressor.include_checksum(true)?;
        let frame = Vec::with_capacity(FRAME_PAGES * PAGE);
        Ok(Self { file, compressor, frame, lengths: Vec::new(), hashes: Vec::new() })
    }

    /// Adds a page of exactly [`PAGE`] bytes; returns its place in the pack.
    pub fn push(&mut self, page: &[u8], hash: PageHash) -> io::Result<u32> {
        let place = u32::try_from(self.hashes.len()).map_err(io::Error::other)?;
        if self.hashes.len() >= MAX_PAGES {
            return Err(io::Error::other("more pages than a pack may have"));
        }
        self.frame.extend_from_slice(page);
        self.hashes.push(hash);
        if self.frame.len() >= FRAME_PAGES * PAGE {
            self.flush()?;
        }
        Ok(place)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let packed = self.compressor.compress(&self.frame)?;
        effect::begin()?;
        self.file.write_all(&packed)?;
        self.lengths.push(u32::try_from(packed.len()).map_err(io::Error::other)?);
        self.frame.clear();
        Ok(())
    }

    /// Writes the index and syncs. Returns the digest of its index.
    pub fn finish(mut self) -> io::Result<[u8; HASH]> {
        self.flush()?;
        let mut index = Vec::with_capacity(self.lengths.len() * 4 + self.hashes.len() * HASH + FOOTER);
        self.lengths.iter().for_each(|length| index.extend_from_slice(&length.to_le_bytes()));
        self.hashes.iter().for_each(|hash| index.extend_from_slice(hash));
        for count in [self.lengths.len(), self.hashes.len()] {
            index.extend_from_slice(&u32::try_from(count).map_err(io::Error::other)?.to_le_bytes());
        }
        let digest = blake3::hash(&index);
        index.extend_from_slice(digest.as_bytes());
        index.extend_from_slice(MAGIC);
        effect::begin()?;
        self.file.write_all(&index)?;
        self.file.sync_all()?;
        // What is read back to verify it shall come from the disk and not from memory.
        self.file.forget_cached();
        Ok(half(digest.as_bytes()))
    }
}

/// A pack that is there, with its index.
#[derive(Debug)]
pub struct Pack {
    /// Which.
    pub id: PackId,
    file: OpenFile,
    /// Where every frame begins, and where the last one ends.
    offsets: Vec<u64>,
    hashes: Vec<PageHash>,
}

impl Pack {
    /// Opens the pack `number` in `dir`. [`StateError::Mismatch`] when its index is damaged.
    pub fn open(dir: &Dir, number: u32) -> Result<Self, StateError> {
        let name = file_name(number);
        let broken = |why: &str| StateError::Mismatch { path: dir.path().join(&name), why: why.to_owned() };
        let (file, seen) = dir.file(&name, own_uid())?;
        let mut footer = [0; FOOTER];
        let end = seen.bytes.checked_sub(FOOTER as u64).ok_or_else(|| broken("is cut off"))?;
        file.read_exact_at(&mut footer, end).map_err(dir.failed("reading", &name))?;
        let (counts, rest) = footer.split_at(8);
        let (digest, magic) = rest.split_at(32);
        let (frames, pages) = (number_at(counts, 0), number_at(counts, 1));
        if magic != MAGIC || pages > MAX_PAGES || frames != pages.div_ceil(FRAME_PAGES) {
            return Err(broken("is cut off or damaged at its end"));
        }
        let bytes = frames * 4 + pages * HASH;
        let begin = end.checked_sub(bytes as u64).ok_or_else(|| broken("is cut off"))?;
        let mut index = vec![0; bytes];
        file.read_exact_at(&mut index, begin).map_err(dir.failed("reading", &name))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&index).update(counts);
        if hasher.finalize().as_bytes() != digest {
            return Err(broken("has a damaged index"));
        }
        let (lengths, hashes) = index.split_at(frames * 4);
        let mut offsets = vec![0];
        let mut offset = 0;
        for frame in 0..frames {
            offset += number_at(lengths, frame) as u64;
            offsets.push(offset);
        }
        if offset != begin {
            return Err(broken("has an index that does not fit it"));
        }
        let hashes = hashes.as_chunks::<HASH>().0.to_vec();
        Ok(Self { id: PackId { number, digest: half(digest) }, file, offsets, hashes })
    }

    /// The hash of every page.
    pub fn hashes(&self) -> &[PageHash] {
        &self.hashes
    }

    /// How many frames there are.
    pub fn frames(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Bytes of all frames as they are stored.
    pub fn bytes(&self) -> u64 {
        self.offsets.last().copied().unwrap_or_default()
    }

    /// The pages of a frame, one after the other. What it says when it cannot be read is for people.
    pub fn frame(&self, frame: usize) -> Result<Vec<u8>, String> {
        let bounds = self.offsets.get(frame).zip(self.offsets.get(frame + 1)).ok_or("there is no such frame")?;
        let pages = self.hashes.len().saturating_sub(frame * FRAME_PAGES).min(FRAME_PAGES);
        let mut packed = vec![0; usize::try_from(bounds.1 - bounds.0).map_err(|error| error.to_string())?];
        self.file.read_exact_at(&mut packed, *bounds.0).map_err(|error| error.to_string())?;
        let content = zstd::bulk::decompress(&packed, pages * PAGE).map_err(|error| error.to_string())?;
        if content.len() != pages * PAGE {
            return Err("it holds less than it should".to_owned());
        }
        Ok(content)
    }

    /// As [`Pack::frame`], but every page of it that is not what it was counts in `bad` (its place in the pack).
    pub fn check_frame(&self, frame: usize, mut bad: impl FnMut(usize)) {
        let first = frame * FRAME_PAGES;
        let hashes = self.hashes.iter().enumerate().skip(first).take(FRAME_PAGES);
        match self.frame(frame) {
            Ok(content) => {
                let pages = content.chunks(PAGE).zip(hashes);
                pages.filter(|(page, (_, hash))| page_hash(page) != **hash).for_each(|(_, (at, _))| bad(at));
            }
            Err(_) => hashes.for_each(|(at, _)| bad(at)),
        }
    }
}

fn number_at(bytes: &[u8], at: usize) -> usize {
    let number = bytes.as_chunks::<4>().0.get(at).map_or(0, |bytes| u32::from_le_bytes(*bytes));
    number as usize
}

fn half(digest: &[u8]) -> [u8; HASH] {
    let mut short = [0; HASH];
    short.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
    short
}
