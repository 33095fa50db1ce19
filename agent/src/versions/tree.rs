//! Walking a directory tree that somebody else may have built, as root: by descriptors, never through a link.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags};

/// Deeper trees are refused: npm's own nesting stays far below, and descriptors are finite.
pub(super) const MAX_DEPTH: usize = 128;

/// Opens a directory by path; the last component must not be a link.
pub(super) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    open_directory_at(CWD, path)
}

/// Opens a directory below `parent`; it must not be a link.
pub(super) fn open_directory_at(parent: impl AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// Names in a directory, without `.` and `..`, sorted. At most `limit`, or an error.
pub(super) fn names(directory: BorrowedFd<'_>, limit: usize) -> io::Result<Vec<std::ffi::CString>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            if found.len() == limit {
                return Err(io::Error::other("too many entries"));
            }
            found.push(name.to_owned());
        }
    }
    found.sort();
    Ok(found)
}

/// Kind of an entry, links not followed.
pub(super) fn kind(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<FileType> {
    let stat = rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

/// Makes what happened in a directory (a rename, a new name) survive a power cut.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::fsync(open_directory(path)?)?)
}
