//! Touching files that a user owns: by directory descriptors, never through a link, bounded in size, depth and number.
//!
//! Used by the worker's tasks (as the user) and by `state` (as root, which trusts nothing it finds: promise 8). A name is
//! looked at and opened relative to a [`Dir`] that is already open, with `O_NOFOLLOW`; what was opened is checked by its
//! descriptor, so that exchanging a path under our hands gains nothing. Every change of the disk begins with
//! [`effect::begin`], at which tests end the process's work to see that the next one finishes or undoes it.

mod copy;
mod dir;
pub mod effect;
mod kernel;
mod listing;
mod mirror;
mod seen;
mod tree;

pub use copy::{Deadline, copy_file, hash_file, refuse_hollow};
pub use dir::Dir;
#[cfg(feature = "simulation")]
pub use kernel::Target;
pub use kernel::{OpenFile, own_uid};
pub use listing::Listing;
pub use mirror::{close, keep_alike};
pub use seen::Seen;
pub use tree::{copy_entries, dress, lying, measure, remove_tree, survey, sync_tree};

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use super::protocol::{TaskError, TaskErrorKind};

/// Why something could not be done to a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A path is not what it must be; it was left alone.
    #[error("{path} {why}; t3pin leaves it alone")]
    Bad {
        /// Which.
        path: PathBuf,
        /// What is wrong, e.g. "is a symbolic link".
        why: String,
    },
    /// Disk or permissions.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl FileError {
    /// A path that is not what it must be.
    pub fn bad(path: impl Into<PathBuf>, why: impl Into<String>) -> Self {
        Self::Bad { path: path.into(), why: why.into() }
    }
}

/// Names what was being done when a system call failed.
pub fn during<E: Into<io::Error>>(context: impl FnOnce() -> String) -> impl FnOnce(E) -> FileError {
    move |error| FileError::Io { context: context(), source: error.into() }
}

impl From<FileError> for TaskError {
    fn from(error: FileError) -> Self {
        let kind = match &error {
            FileError::Bad { .. } => TaskErrorKind::BadPath,
            FileError::Io { source, .. } if is_full(source) => TaskErrorKind::NoSpace,
            FileError::Io { source, .. } if is_of_the_name(source) => TaskErrorKind::Theirs,
            FileError::Io { .. } => TaskErrorKind::Other,
        };
        Self { kind, message: error.to_string() }
    }
}

/// Whether the disk, or the user's share of it, is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}

/// Whether it says something of a name and who may use it, and not of the disk: what a user brings about with rename(2) or chmod(2) at
/// the right moment.
pub fn is_of_the_name(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::NOENT
                | Errno::ACCESS
                | Errno::PERM
                | Errno::EXIST
                | Errno::NOTDIR
                | Errno::ISDIR
                | Errno::NOTEMPTY
                | Errno::BUSY
                | Errno::XDEV
                | Errno::LOOP
                | Errno::NAMETOOLONG
                | Errno::STALE
        )
    ) || matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}
