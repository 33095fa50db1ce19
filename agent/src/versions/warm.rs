//! Having the files of a version read into memory before a server is stopped for it: what a start has to wait for from a cold disk
//! is downtime.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Advice, FileType, Mode, OFlags};

use super::Store;
use super::tree::{MAX_DEPTH, kind, names, open_directory, open_directory_at};
use crate::domain::Version;

/// Larger files are programs that a session starts later, and no part of a server's start.
const LARGEST: u64 = 16 << 20;
/// So much is read at most, in bytes: memory that others use is worth more.
const MOST: u64 = 256 << 20;
/// More names than any version has in one directory.
const NAMES: usize = 100_000;

impl Store {
    /// Has the kernel read what a start of `version` may need, without waiting for it (posix_fadvise(2), `POSIX_FADV_WILLNEED`).
    /// Returns the bytes that were asked for. May wait for a disk: not for an async task's thread.
    pub fn warm(&self, version: &Version) -> io::Result<u64> {
        let mut left = MOST;
        walk(open_directory(&self.path(version))?.as_fd(), 0, &mut left)?;
        Ok(MOST - left)
    }
}

fn walk(directory: BorrowedFd<'_>, depth: usize, left: &mut u64) -> io::Result<()> {
    for name in names(directory, NAMES)? {
        match kind(directory, &name)? {
            FileType::Directory if depth < MAX_DEPTH => {
                walk(open_directory_at(directory, name.as_c_str())?.as_fd(), depth + 1, left)?
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = rustix::fs::openat(directory, name.as_c_str(), flags, Mode::empty())?;
                let bytes = u64::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(u64::MAX);
                if bytes <= LARGEST.min(*left) {
                    rustix::fs::fadvise(&file, 0, None, Advice::WillNeed)?;
                    *left -= bytes;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::super::store::tests::put;
    use super::*;

    #[test]
    fn what_a_start_needs_is_asked_for_and_no_more_and_no_link_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("t3pin")).unwrap();
        let version = put(&store, "0.0.25");
        let before = store.warm(&version).unwrap();
        let tree = store.path(&version);
        std::fs::create_dir_all(tree.join("lib/deep")).unwrap();
        std::fs::write(tree.join("lib/deep/bin.mjs"), vec![b'x'; 5000]).unwrap();
        std::fs::File::create(tree.join("lib/program")).unwrap().set_len(LARGEST + 1).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", tree.join("lib/link")).unwrap();
        assert_eq!(store.warm(&version).unwrap() - before, 5000);
    }
}
