//! Sealing: a tree that an unprivileged user built becomes root's, without write bits, and is written down.
//!
//! The builder is gone when this runs (its sandbox has ended), but what it left is hostile input: everything is reached
//! through directory descriptors, links are never followed, and what cannot belong to an npm install is refused.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use super::manifest::{Content, Entry, MANIFEST, OK};
use super::remove::remove_at;
use super::tree::{MAX_DEPTH, kind, names, open_directory, open_directory_at};

/// A real install has 12 000 to 15 000 entries (T3-CONTRACT section 9).
const MAX_ENTRIES: usize = 1_000_000;
/// Names at the top of the tree that t3pin adds afterwards.
const RESERVED: [&str; 3] = ["bin", MANIFEST, OK];
/// Name under which a file with several names is copied; removed from sight by the rename.
const COPY: &str = ".t3pin-copy";

/// Why a tree was not sealed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SealError {
    /// Something in it cannot be part of an install.
    #[error("{0}")]
    Refused(String),
    /// Disk or permissions.
    #[error("sealing {path}: {source}")]
    Io {
        /// Where in the tree.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// Gives everything below `tree` to `to` (user and group id, root in the product), takes all write and setuid bits, and
/// returns what is there, sorted by path. Everything must belong to `builder` (a user id). A file with several names
/// is replaced by a copy under each: another name of it may lie where the builder can still write.
pub(super) fn seal(tree: &Path, builder: u32, to: (u32, u32)) -> Result<Vec<Entry>, SealError> {
    let io = |source| SealError::Io { path: String::new(), source };
    let root = open_directory(tree).map_err(io)?;
    let mut sealer = Sealer { root: open_directory(tree).map_err(io)?, builder, to, entries: Vec::new() };
    for name in RESERVED {
        if rustix::fs::statat(root.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Err(SealError::Refused(format!("it has an unexpected entry \"{name}\"")));
        }
    }
    sealer.directory(root, "")?;
    let mut entries = sealer.entries;
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

impl From<io::Error> for SealError {
    fn from(source: io::Error) -> Self {
        Self::Io { path: String::new(), source }
    }
}

/// node-gyp before 10 leaves a link to the host's python in `build/node_gyp_bins`. Nothing needs it after the build.
fn is_build_rest(path: &str) -> bool {
    path.ends_with("/build/node_gyp_bins")
}

struct Sealer {
    root: OwnedFd,
    builder: u32,
    to: (u32, u32),
    entries: Vec<Entry>,
}

impl Sealer {
    /// Children first, so that a directory loses its write bit when nothing in it changes any more.
    fn directory(&mut self, directory: OwnedFd, path: &str) -> Result<(), SealError> {
        let io = |source: io::Error| SealError::Io { path: path.to_owned(), source };
        self.check_owner(directory.as_fd(), path)?;
        if path.split('/').count() > MAX_DEPTH {
            return Err(SealError::Refused(format!("its directories are nested deeper than {MAX_DEPTH}")));
        }
        for name in names(directory.as_fd(), MAX_ENTRIES).map_err(io)? {
            self.entry(directory.as_fd(), &name, path)?;
        }
        let mode = 0o555;
        self.own(directory.as_fd(), mode).map_err(io)?;
        if !path.is_empty() {
            self.note(path, Content::Directory { mode })?;
        }
        Ok(())
    }

    fn entry(&mut self, parent: BorrowedFd<'_>, name: &CStr, above: &str) -> Result<(), SealError> {
        let Ok(text) = name.to_str() else {
            return Err(SealError::Refused(format!("a name below \"{above}\" is not UTF-8")));
        };
        let path = if above.is_empty() { text.to_owned() } else { format!("{above}/{text}") };
        let io = |source: io::Error| SealError::Io { path: path.clone(), source };
        match kind(parent, name).map_err(io)? {
            FileType::Directory if is_build_rest(&path) => {
                parent.try_clone_to_owned().and_then(|parent| remove_at(parent, name.to_owned())).map_err(io)
            }
            FileType::Directory => self.directory(open_directory_at(parent, name).map_err(io)?, &path),
            FileType::RegularFile => self.file(parent, name, &path),
            FileType::Symlink => self.link(parent, name, &path, above),
            other => Err(SealError::Refused(format!("\"{path}\" is neither file, directory nor link but {other:?}"))),
        }
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &str) -> Result<(), SealError> {
        let io = |source: io::Error| SealError::Io { path: path.to_owned(), source };
        // NONBLOCK: should a FIFO have taken the file's place, this does not wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(|e| io(e.into()))?);
        let stat = self.check_owner(file.as_fd(), path)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(SealError::Refused(format!("\"{path}\" changed while it was looked at")));
        }
        let mode = if stat.st_mode & 0o111 == 0 { 0o444 } else { 0o555 };
        if stat.st_nlink > 1 {
            file = copy_over(&mut file, parent, name).map_err(io)?;
        }
        self.own(file.as_fd(), mode).map_err(io)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&file).map_err(io)?;
        let blake3 = hasher.finalize().to_hex().to_string();
        self.note(path, Content::File { mode, size: hasher.count(), blake3 })
    }

    fn link(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &str, above: &str) -> Result<(), SealError> {
        let io = |source: io::Error| SealError::Io { path: path.to_owned(), source };
        let target = rustix::fs::readlinkat(parent, name, Vec::new()).map_err(|e| io(e.into()))?;
        let target = target.into_string().map_err(|_| SealError::Refused(format!("the link \"{path}\" is not UTF-8")))?;
        let leaves = || SealError::Refused(format!("the link \"{path}\" leads out of it, to \"{target}\""));
        if target.starts_with('/') {
            return Err(leaves());
        }
        // Only the kernel can say where a chain of links really ends; BENEATH makes it refuse every way out.
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let from_root = if above.is_empty() { target.clone() } else { format!("{above}/{target}") };
        match rustix::fs::openat2(self.root.as_fd(), &from_root, flags, Mode::empty(), resolve) {
            // A link that leads nowhere inside leads nowhere for good, once nothing can be added.
            Ok(_) | Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {}
            Err(Errno::XDEV) => return Err(leaves()),
            Err(error) => return Err(io(error.into())),
        }
        let (uid, gid) = self.ids();
        rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| io(e.into()))?;
        self.note(path, Content::Link { target })
    }

    /// What does not belong to the builder was not made by it, e.g. a hard link to somebody else's file.
    fn check_owner(&self, fd: BorrowedFd<'_>, path: &str) -> Result<rustix::fs::Stat, SealError> {
        let stat = rustix::fs::fstat(fd).map_err(|e| SealError::Io { path: path.to_owned(), source: e.into() })?;
        if stat.st_uid == self.builder {
            Ok(stat)
        } else {
            Err(SealError::Refused(format!("\"{path}\" belongs to user id {} and not to npm's user", stat.st_uid)))
        }
    }

    fn own(&self, fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
        let (uid, gid) = self.ids();
        // Owner first: as long as the builder owns it, it could give itself the write bit back.
        rustix::fs::fchown(fd, uid, gid)?;
        Ok(rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))?)
    }

    fn ids(&self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.to.0)), Some(Gid::from_raw(self.to.1)))
    }

    fn note(&mut self, path: &str, content: Content) -> Result<(), SealError> {
        if self.entries.len() == MAX_ENTRIES {
            return Err(SealError::Refused(format!("it has more than {MAX_ENTRIES} entries")));
        }
        self.entries.push(Entry { path: path.to_owned(), content });
        Ok(())
    }
}

/// Replaces `name` by a fresh copy of `file`, open at its beginning.
fn copy_over(file: &mut File, parent: BorrowedFd<'_>, name: &CStr) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut copy = File::from(rustix::fs::openat(parent, COPY, flags, Mode::from_raw_mode(0o600))?);
    io::copy(file, &mut copy)?;
    rustix::fs::renameat(parent, COPY, parent, name)?;
    io::Seek::rewind(&mut copy)?;
    Ok(copy)
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
