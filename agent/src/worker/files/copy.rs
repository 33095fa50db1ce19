//! Copying one file, with its hash.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::kernel::OpenFile;
use super::{Dir, FileError};
use crate::domain::{EntryKind, StateEntry};

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;
/// What was written is waited for after so many bytes: what piles up is what another process's sync has to wait for.
const PORTION: u64 = 32 << 20;
/// A file whose apparent size exceeds what is allocated by more than this is called sparse.
const SPARSE: u64 = 64 << 20;

/// Until when a copy may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// No limit of its own: somebody else ends the process.
    pub const NONE: Self = Self(None);

    /// From now.
    pub fn after(time: Duration) -> Self {
        Self(Instant::now().checked_add(time))
    }

    /// What is left of it; a long time when there is no limit.
    pub fn left(self) -> Duration {
        self.0.map_or(Duration::from_secs(24 * 3600), |end| end.saturating_duration_since(Instant::now()))
    }

    /// `TimedOut` when nothing is left of it.
    pub fn check(self) -> io::Result<()> {
        if self.left().is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

/// Copies `owner`'s regular file `name` from `from` into `to` (mode 0600, not synced): by FICLONE where the file system
/// can (ioctl_ficlone(2)), else by reading and writing. Returns what was read (mode as found) and whether it was a clone.
pub fn copy_file(from: &Dir, name: &str, owner: u32, to: &Dir, until: Deadline) -> Result<(StateEntry, bool), FileError> {
    let (mut source, seen) = from.file(name, owner)?;
    refuse_hollow(from, name, &seen, to)?;
    let mut target = to.create(name)?;
    let cloned = seen.bytes > 0 && target.clone_of(&source);
    let (bytes, blake3) = if cloned {
        pump(&mut target, None, until).map_err(to.failed("reading", name))?
    } else {
        pump(&mut source, Some(&mut target), until).map_err(to.failed("copying", name))?
    };
    Ok((StateEntry { path: name.to_owned(), kind: EntryKind::File, mode: seen.mode, bytes, blake3 }, cloned))
}

/// As [`copy_file`], without a hash, and the kernel is kept from piling up what is to be written. Returns bytes, and whether it was a
/// clone.
pub fn copy_content(from: &Dir, name: &str, owner: u32, to: &Dir) -> Result<(u64, bool), FileError> {
    let (mut source, seen) = from.file(name, owner)?;
    refuse_hollow(from, name, &seen, to)?;
    let mut target = to.create(name)?;
    if seen.bytes > 0 && target.clone_of(&source) {
        return Ok((seen.bytes, true));
    }
    let mut chunk = vec![0; usize::try_from(seen.bytes).unwrap_or(CHUNK).clamp(4096, CHUNK)];
    let (mut bytes, mut begun) = (0u64, 0u64);
    loop {
        let n = match source.read(&mut chunk) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(from.failed("reading", name)(error)),
        };
        target.write_all(chunk.get(..n).unwrap_or_default()).map_err(to.failed("writing", name))?;
        bytes += n as u64;
        if bytes - begun >= PORTION {
            target.sync_all().map_err(to.failed("syncing", name))?;
            begun = bytes;
        } else if n == 0 {
            target.write_back();
        }
        if n == 0 {
            return Ok((bytes, false));
        }
    }
}

/// Hashes `owner`'s regular file `name`; returns its size too.
pub fn hash_file(dir: &Dir, name: &str, owner: u32, until: Deadline) -> Result<(u64, String), FileError> {
    let (mut file, _) = dir.file(name, owner)?;
    pump(&mut file, None, until).map_err(dir.failed("reading", name))
}

/// Hashes `source` to its end, and writes it to `target` on the way.
fn pump(source: &mut OpenFile, mut target: Option<&mut OpenFile>, until: Deadline) -> io::Result<(u64, String)> {
    let mut hasher = blake3::Hasher::new();
    // Most files are small: no more room than they have, and a little for what grows meanwhile.
    let size = source.seen().map_or(CHUNK, |seen| usize::try_from(seen.bytes).unwrap_or(CHUNK));
    let mut chunk = vec![0; size.clamp(4096, CHUNK)];
    let mut bytes = 0;
    loop {
        until.check()?;
        let n = match source.read(&mut chunk) {
            Ok(0) => return Ok((bytes, hasher.finalize().to_hex().to_string())),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let read = chunk.get(..n).unwrap_or_default();
        hasher.update(read);
        if let Some(target) = target.as_deref_mut() {
            target.write_all(read)?;
        }
        bytes += n as u64;
    }
}

/// Refuses a file that claims to be far bigger than it is and than there is room: a copy would fill the disk with zeros.
pub fn refuse_hollow(from: &Dir, name: &str, seen: &super::Seen, to: &Dir) -> Result<(), FileError> {
    if seen.bytes <= seen.allocated.saturating_add(SPARSE) {
        return Ok(());
    }
    let free = to.free()?;
    if seen.bytes > free {
        let why = format!("claims {} bytes, of which only {} are on disk, and {free} are free", seen.bytes, seen.allocated);
        return Err(FileError::bad(from.path().join(name), why));
    }
    Ok(())
}
