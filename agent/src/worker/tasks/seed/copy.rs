//! Writing the database's copy.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::sync_channel;

use rustix::fs::Advice;

use super::wal::{Change, read_at};
use crate::worker::files::effect;

/// Bytes read and written at a time.
const CHUNK: usize = 1 << 20;
/// The kernel is told to begin writing back after so many bytes...
const PORTION: u64 = 8 << 20;
/// ...and it is waited for after so many: what piles up, in memory or in the disk's own cache, is what the next commit of the server
/// beside us has to wait for.
const SYNCED: u64 = 32 << 20;

/// How a whole file was copied.
#[derive(Debug, Clone, Copy)]
pub enum Copied {
    /// As a clone, which shares the blocks.
    Cloned,
    /// By reading and writing; this is the hash of what was read.
    Written(blake3::Hash),
}

/// Copies all of `main` to the empty `target`, synced: as a clone where the file system can (ioctl_ficlone(2)), else by reading and
/// writing, hashed on the way. `None` when `too_much` said so on the way.
pub fn copy_all(main: &File, target: &File, too_much: &dyn Fn() -> bool) -> io::Result<Option<Copied>> {
    effect::begin()?;
    let copied = match rustix::fs::ioctl_ficlone(target, main) {
        Ok(()) => Copied::Cloned,
        Err(_) => match pump(main, target, too_much)? {
            Some(hash) => Copied::Written(hash),
            None => return Ok(None),
        },
    };
    target.sync_data()?;
    Ok(Some(copied))
}

/// Reads a copy back, and fails unless it is what was read when it was made.
pub fn read_back(target: &File, copied: Copied) -> io::Result<()> {
    match copied {
        Copied::Written(hash) if self::hash(target)? != hash => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "what was read back is not what was written"))
        }
        Copied::Written(_) | Copied::Cloned => Ok(()),
    }
}

/// Reads and writes, with other threads hashing what was read and syncing what was written.
fn pump(main: &File, target: &File, too_much: &dyn Fn() -> bool) -> io::Result<Option<blake3::Hash>> {
    std::thread::scope(|scope| {
        let (full, filled) = sync_channel::<(Vec<u8>, usize)>(2);
        let (empty, emptied) = sync_channel::<Vec<u8>>(3);
        let hasher = scope.spawn(move || {
            let mut hasher = blake3::Hasher::new();
            for (buffer, n) in filled {
                hasher.update(buffer.get(..n).unwrap_or_default());
                empty.send(buffer).ok();
            }
            hasher.finalize()
        });
        // Beside the writing, which goes on meanwhile and waits here when the disk does not keep up with it.
        let (due, told) = sync_channel::<()>(0);
        let syncer = scope.spawn(move || told.iter().try_for_each(|()| target.sync_data()));
        let (mut at, mut begun, mut synced) = (0u64, 0u64, 0u64);
        let mut spare = vec![vec![0; CHUNK], vec![0; CHUNK], vec![0; CHUNK]];
        loop {
            if too_much() {
                return Ok(None);
            }
            let Some(mut buffer) = spare.pop().or_else(|| emptied.recv().ok()) else { break };
            let n = read_at(main, &mut buffer, at)?;
            if n == 0 {
                break;
            }
            target.write_all_at(buffer.get(..n).unwrap_or_default(), at)?;
            at += n as u64;
            if full.send((buffer, n)).is_err() {
                break;
            }
            if at - begun >= PORTION {
                write_back(target, begun, at - begun);
                begun = at;
            }
            if at - synced >= SYNCED {
                if due.send(()).is_err() {
                    break;
                }
                synced = at;
            }
        }
        drop((full, due));
        syncer.join().map_err(|_| io::Error::other("syncing was broken off"))??;
        write_back(target, begun, at - begun);
        hasher.join().map(Some).map_err(|_| io::Error::other("hashing was broken off"))
    })
}

/// Has the kernel begin to write this part to the disk, without waiting for it: what POSIX_FADV_DONTNEED does with pages that are not
/// on the disk yet (posix_fadvise(2)). Only advice, so a failure is none.
fn write_back(target: &File, from: u64, bytes: u64) {
    rustix::fs::fadvise(target.as_fd(), from, std::num::NonZeroU64::new(bytes), Advice::DontNeed).ok();
}

fn hash(file: &File) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let (mut buffer, mut at) = (vec![0; CHUNK], 0);
    loop {
        let n = read_at(file, &mut buffer, at)?;
        if n == 0 {
            return Ok(hasher.finalize());
        }
        hasher.update(buffer.get(..n).unwrap_or_default());
        at += n as u64;
    }
}

/// Writes the pages of `change` into the copy, in their order, and gives it the size it has after the last commit. Returns bytes.
pub fn lay_over(log: &File, target: &File, change: &Change, page_size: u32) -> io::Result<u64> {
    let Some(page_count) = change.page_count else { return Ok(0) };
    effect::begin()?;
    let mut page = vec![0; page_size as usize];
    let mut bytes = 0;
    for (number, offset) in change.pages.range(..=page_count) {
        if read_at(log, &mut page, *offset)? < page.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        target.write_all_at(&page, u64::from(number - 1) * u64::from(page_size))?;
        bytes += u64::from(page_size);
    }
    target.set_len(u64::from(page_count) * u64::from(page_size))?;
    Ok(bytes)
}
