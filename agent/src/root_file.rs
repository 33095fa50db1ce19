//! Reading a file that steers a root process: only one that nobody but its owner (root) can have written.
//!
//! The directory and the file are opened once, without following a link at the end of the path, and everything is asked of
//! the open descriptors, so that nothing can be swapped between the check and the read. What is read is bounded.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat};

/// Whose files are trusted in production.
pub const ROOT: u32 = 0;

/// The most that is read of one file, in bytes.
pub const MAX_BYTES: u64 = 64 * 1024;

/// Why a file is not used. Reads as the end of a sentence that begins with the path.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It, or its directory, is not there.
    #[error("does not exist")]
    Missing,
    /// Somebody else could have written it.
    #[error("{what} is owned by uid {found}, and only a file of uid {wanted} is used; run: chown {wanted} {path}")]
    Owner {
        /// "it" or "its directory".
        what: &'static str,
        /// The owner.
        found: u32,
        /// The owner it must have.
        wanted: u32,
        /// What to change.
        path: String,
    },
    /// Somebody else may write it.
    #[error("{what} may be written by others than its owner (mode {mode:04o}), so it is not used; run: chmod go-w {path}")]
    Writable {
        /// "it" or "its directory".
        what: &'static str,
        /// Permission bits.
        mode: u32,
        /// What to change.
        path: String,
    },
    /// A link, a FIFO, a directory, ...
    #[error("{what} is {found}, and only a plain {wanted} is used")]
    Kind {
        /// "it" or "its directory".
        what: &'static str,
        /// What it is.
        found: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
    /// Longer than [`MAX_BYTES`].
    #[error("is longer than {} KiB, which is the most that is read", MAX_BYTES / 1024)]
    TooLong,
    /// Not text.
    #[error("line {line} is not UTF-8 text")]
    NotText {
        /// Line, from 1.
        line: usize,
    },
    /// The system refused.
    #[error("could not be read: {0}")]
    Io(#[from] io::Error),
}

/// Reads `path`, which must be a regular file of `owner` that nobody else may write, in a directory of which the same is true.
pub fn read(path: &Path, owner: u32) -> Result<String, Refusal> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let directory =
        open_directory(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")), owner)?;
    // O_NONBLOCK: opening a FIFO that nobody writes to must not hang.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&directory, name, flags, Mode::empty()).map_err(|error| refusal(error, "it", "file"))?;
    check(&file, "it", path, FileType::RegularFile, owner)?;
    let mut bytes = Vec::new();
    File::from(file).take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Refusal::TooLong);
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        Refusal::NotText { line: 1 + good.iter().filter(|byte| **byte == b'\n').count() }
    })
}

/// Opens a directory of `owner` that nobody else may write.
pub fn open_directory(path: &Path, owner: u32) -> Result<OwnedFd, Refusal> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| refusal(error, "its directory", "directory"))?;
    check(&directory, "its directory", path, FileType::Directory, owner)?;
    Ok(directory)
}

fn refusal(error: rustix::io::Errno, what: &'static str, wanted: &'static str) -> Refusal {
    match error {
        rustix::io::Errno::NOENT => Refusal::Missing,
        // open(2): ELOOP for a link with O_NOFOLLOW, ENOTDIR for a link or file with O_DIRECTORY, ENXIO for a socket.
        rustix::io::Errno::LOOP => Refusal::Kind { what, found: "a symbolic link", wanted },
        rustix::io::Errno::NOTDIR => Refusal::Kind { what, found: "a symbolic link or a file", wanted },
        rustix::io::Errno::NXIO => Refusal::Kind { what, found: "a socket or a device", wanted },
        other => Refusal::Io(other.into()),
    }
}

fn check(open: impl AsFd, what: &'static str, path: &Path, kind: FileType, owner: u32) -> Result<(), Refusal> {
    let stat: Stat = rustix::fs::fstat(open).map_err(io::Error::from)?;
    let path = path.display().to_string();
    let found = FileType::from_raw_mode(stat.st_mode);
    if found != kind {
        let wanted = if kind == FileType::Directory { "directory" } else { "file" };
        return Err(Refusal::Kind { what, found: name_of(found), wanted });
    }
    if stat.st_uid != owner {
        return Err(Refusal::Owner { what, found: stat.st_uid, wanted: owner, path });
    }
    let mode = stat.st_mode & 0o7777;
    if mode & 0o022 != 0 {
        return Err(Refusal::Writable { what, mode, path });
    }
    Ok(())
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        _ => "a device",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn me() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn file(dir: &Path, text: &[u8], mode: u32) -> std::path::PathBuf {
        let path = dir.join("file");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_private_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(&file(dir.path(), b"text", 0o644), me()).unwrap(), "text");
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o664, 0o646, 0o666] {
            assert!(matches!(read(&file(dir.path(), b"", mode), me()), Err(Refusal::Writable { what: "it", .. })));
        }
    }

    #[test]
    fn a_file_in_a_directory_that_others_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), b"", 0o644);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(matches!(read(&path, me()), Err(Refusal::Writable { what: "its directory", .. })));
    }

    #[test]
    fn a_file_of_somebody_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(&file(dir.path(), b"", 0o644), me() + 1), Err(Refusal::Owner { .. })));
    }

    #[test]
    fn links_fifos_and_directories_are_refused_without_hanging() {
        let dir = tempfile::tempdir().unwrap();
        let real = file(dir.path(), b"", 0o644);
        let at = |name: &str| dir.path().join(name);
        symlink(&real, at("link")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        for name in ["link", "directory", "fifo"] {
            assert!(matches!(read(&at(name), me()), Err(Refusal::Kind { .. })), "{name} was taken");
        }
        symlink(dir.path(), at("way")).unwrap();
        assert!(matches!(read(&at("way").join("file"), me()), Err(Refusal::Kind { what: "its directory", .. })));
    }

    #[test]
    fn a_file_that_is_too_long_or_no_text_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(&file(dir.path(), &[b'#'; MAX_BYTES as usize + 1], 0o644), me()), Err(Refusal::TooLong)));
        assert_eq!(read(&file(dir.path(), &[b'#'; MAX_BYTES as usize], 0o644), me()).unwrap().len() as u64, MAX_BYTES);
        assert!(matches!(read(&file(dir.path(), b"a\nb\xff", 0o644), me()), Err(Refusal::NotText { line: 2 })));
    }

    #[test]
    fn what_is_not_there_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(&dir.path().join("nothing"), me()), Err(Refusal::Missing)));
        assert!(matches!(read(&dir.path().join("no/nothing"), me()), Err(Refusal::Missing)));
    }
}
