//! Reading what was written since, from the frames of a write-ahead log (sqlite.org/fileformat2.html, section 4).
//!
//! Whoever reads here keeps a read transaction open, so that nothing up to its mark is taken away and what follows stays in the
//! log. Every frame is proven by the log's own running checksum before its page counts: a log that was begun anew under our hands,
//! torn writes and leftovers of earlier rounds do not pass.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

/// Bytes of the log's header.
const HEADER: usize = 32;
/// Bytes before each page.
const FRAME: usize = 24;
/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// Up to where a log was read: the salts of its round, the frames, and the checksum there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    salts: [u8; 8],
    /// Frames that were read.
    pub frames: u64,
    sums: (u32, u32),
}

impl Mark {
    /// The salts of the log's round.
    pub fn salts(&self) -> [u8; 8] {
        self.salts
    }
}

/// What was committed since a mark.
#[derive(Debug, Default)]
pub struct Change {
    /// Page number to where its newest content begins in the log.
    pub pages: BTreeMap<u32, u64>,
    /// Pages of the database after the last commit; `None` when there was none.
    pub page_count: Option<u32>,
    /// Up to where it was read.
    pub mark: Mark,
}

/// The header of a log.
#[derive(Debug, Clone, Copy)]
struct Header {
    big_endian: bool,
    page_size: u32,
    salts: [u8; 8],
    sums: (u32, u32),
}

/// The salts of the log's present round; `None` when it has no valid header (nothing was written to it yet).
pub fn salts(log: &File) -> io::Result<Option<[u8; 8]>> {
    Ok(header(log)?.map(|header| header.salts))
}

/// The committed frames after `since`, or all when the log was begun anew meanwhile (or `since` is `None`): up to frame `most`
/// when given, else as far as there are valid ones. `None` when the log has nothing that counts.
pub fn changes(log: &File, page_size: u32, since: Option<&Mark>, most: Option<u64>) -> io::Result<Option<Change>> {
    let Some(header) = header(log)? else { return Ok(None) };
    if header.page_size != page_size {
        return Err(invalid("the log is of another page size than the database"));
    }
    let begin = Mark { salts: header.salts, frames: 0, sums: header.sums };
    let mut at = since.copied().filter(|mark| mark.salts == header.salts).unwrap_or(begin);
    let mut change = Change { pages: BTreeMap::new(), page_count: None, mark: at };
    let mut uncommitted = BTreeMap::new();
    let size = FRAME + page_size as usize;
    let mut buffer = vec![0; CHUNK.max(size) / size * size];
    'reading: while most.is_none_or(|most| at.frames < most) {
        let offset = HEADER as u64 + at.frames * size as u64;
        let read = read_at(log, &mut buffer, offset)?;
        let whole = buffer.get(..read / size * size).unwrap_or_default();
        if whole.is_empty() {
            break;
        }
        for frame in whole.chunks_exact(size) {
            if most.is_some_and(|most| at.frames >= most) {
                break 'reading;
            }
            let (head, page) = frame.split_at(FRAME);
            let sums = sum(header.big_endian, at.sums, head.get(..8).unwrap_or_default());
            let sums = sum(header.big_endian, sums, page);
            let number = word(head, 0);
            if head.get(8..16) != Some(&header.salts[..]) || (word(head, 16), word(head, 20)) != sums || number == 0 {
                break 'reading;
            }
            uncommitted.insert(number, HEADER as u64 + at.frames * size as u64 + FRAME as u64);
            at = Mark { frames: at.frames + 1, sums, ..at };
            let pages_after_commit = word(head, 4);
            if pages_after_commit != 0 {
                // Not BTreeMap::append, which walks all that is there already for each of thousands of commits.
                change.pages.extend(std::mem::take(&mut uncommitted));
                change.page_count = Some(pages_after_commit);
                change.mark = at;
            }
        }
    }
    Ok(Some(change))
}

/// Writes the pages of `change` as a log of their own, in one go: a server that opens the database beside it lays them over it
/// by itself. One commit, so that all of them count or none. Returns its bytes; 0 when there is nothing to write.
pub fn write(change: &Change, from: &File, to: &File, page_size: u32) -> io::Result<u64> {
    let Some(page_count) = change.page_count else { return Ok(0) };
    // What lies behind the last page was cut off since.
    let pages: Vec<(u32, u64)> = change.pages.range(..=page_count).map(|(number, offset)| (*number, *offset)).collect();
    if pages.is_empty() {
        return Err(invalid("a commit without a page"));
    }
    let mut head = [0; HEADER];
    let salts = change.mark.salts;
    // Checksums in little-endian words; the only version of the format there is.
    for (at, word) in [(0, 0x377f_0682u32), (4, 3_007_000), (8, page_size), (12, 0)] {
        put(&mut head, at, &word.to_be_bytes());
    }
    put(&mut head, 16, &salts);
    let mut sums = sum(false, (0, 0), head.get(..24).unwrap_or_default());
    put(&mut head, 24, &sums.0.to_be_bytes());
    put(&mut head, 28, &sums.1.to_be_bytes());
    let mut out = io::BufWriter::with_capacity(CHUNK, to);
    out.write_all(&head)?;
    let mut frame = vec![0; FRAME + page_size as usize];
    for (n, (number, offset)) in pages.iter().enumerate() {
        let (head, page) = frame.split_at_mut(FRAME);
        if read_at(from, page, *offset)? < page.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let commit = if n + 1 == pages.len() { page_count } else { 0 };
        put(head, 0, &number.to_be_bytes());
        put(head, 4, &commit.to_be_bytes());
        put(head, 8, &salts);
        sums = sum(false, sum(false, sums, head.get(..8).unwrap_or_default()), page);
        put(head, 16, &sums.0.to_be_bytes());
        put(head, 20, &sums.1.to_be_bytes());
        out.write_all(&frame)?;
    }
    out.flush()?;
    Ok(HEADER as u64 + pages.len() as u64 * frame.len() as u64)
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    if let Some(there) = bytes.get_mut(at..at + what.len()) {
        there.copy_from_slice(what);
    }
}

fn header(log: &File) -> io::Result<Option<Header>> {
    let mut bytes = [0; HEADER];
    if read_at(log, &mut bytes, 0)? < HEADER {
        return Ok(None);
    }
    let magic = word(&bytes, 0);
    if magic & !1 != 0x377f_0682 {
        return Ok(None);
    }
    let big_endian = magic & 1 == 1;
    let sums = sum(big_endian, (0, 0), bytes.get(..24).unwrap_or_default());
    if sums != (word(&bytes, 24), word(&bytes, 28)) {
        return Ok(None);
    }
    let mut salts = [0; 8];
    salts.copy_from_slice(bytes.get(16..24).unwrap_or(&[0; 8]));
    Ok(Some(Header { big_endian, page_size: word(&bytes, 8), salts, sums }))
}

/// The running checksum of section 4.2, in words of the log's own byte order.
fn sum(big_endian: bool, start: (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let read = if big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
    let (words, _) = bytes.as_chunks::<4>();
    let (pairs, _) = words.as_chunks::<2>();
    pairs.iter().fold(start, |(one, other), [first, second]| {
        let one = one.wrapping_add(read(*first)).wrapping_add(other);
        (one, other.wrapping_add(read(*second)).wrapping_add(one))
    })
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_be_bytes(*word))
}

/// Reads until `buffer` is full or the file ends.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
