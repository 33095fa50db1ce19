//! What a name turned out to be, without opening or following it.

use std::path::Path;

use rustix::fs::{FileType, Stat};

use super::FileError;
use crate::domain::EntryKind;

/// What `fstat` said of a file (stat(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// File or directory; `None` for anything else.
    pub kind: Option<EntryKind>,
    /// For messages: "is a symbolic link".
    pub what: &'static str,
    /// Owner.
    pub uid: u32,
    /// Permission bits without set-id bits.
    pub mode: u32,
    /// Number of hard links.
    pub nlink: u64,
    /// Apparent size in bytes; 0 for directories.
    pub bytes: u64,
    /// Bytes allocated.
    pub allocated: u64,
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Last change of the content, nanoseconds since the Unix epoch.
    pub mtime_ns: i128,
}

impl Seen {
    /// Refuses what is not a regular file or directory of `owner`'s with one name only.
    pub fn check(&self, path: &Path, owner: u32) -> Result<EntryKind, FileError> {
        let Some(kind) = self.kind else { return Err(FileError::bad(path, self.what)) };
        if self.uid != owner {
            return Err(FileError::bad(path, format!("belongs to uid {}, not to uid {owner}", self.uid)));
        }
        if kind == EntryKind::File && self.nlink != 1 {
            return Err(FileError::bad(path, format!("has {} hard links", self.nlink)));
        }
        Ok(kind)
    }

    /// Whether `self` and `other` are the same file.
    pub fn is_same(&self, other: &Seen) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }
}

impl From<Stat> for Seen {
    fn from(stat: Stat) -> Self {
        let (kind, what) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => (Some(EntryKind::File), "is a regular file"),
            FileType::Directory => (Some(EntryKind::Directory), "is a directory"),
            FileType::Symlink => (None, "is a symbolic link"),
            FileType::Fifo => (None, "is a FIFO"),
            FileType::Socket => (None, "is a socket"),
            _ => (None, "is a device or something else that is no file"),
        };
        Self {
            kind,
            what,
            uid: stat.st_uid,
            mode: stat.st_mode & 0o777,
            nlink: stat.st_nlink,
            bytes: if kind == Some(EntryKind::File) { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
            allocated: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
            dev: stat.st_dev,
            ino: stat.st_ino,
            mtime_ns: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
        }
    }
}
