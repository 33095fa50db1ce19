//! An open directory, from which everything else is reached.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::{FileError, Seen, during, effect};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// An open directory. Its path is only for messages: nothing is reached by it again.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// Opens `path`, whose last component must be a directory and no link. Links above it are followed.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Self::at(rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty()), path.to_owned())
    }

    /// Opens the subdirectory `name`.
    pub fn dir(&self, name: impl AsRef<OsStr>) -> Result<Self, FileError> {
        let name = name.as_ref();
        Self::at(rustix::fs::openat(&self.fd, name, DIRECTORY, Mode::empty()), self.path.join(name))
    }

    /// Opens the subdirectory `name`; `None` when there is nothing of that name.
    pub fn dir_if_there(&self, name: &str) -> Result<Option<Self>, FileError> {
        self.stat(name)?.map(|_| self.dir(name)).transpose()
    }

    /// Opens `relative` below this directory: no symbolic link, no mount point and no `..` on the way
    /// (openat2(2)). `None` when it is not there.
    pub fn beneath(&self, relative: &Path) -> Result<Option<Self>, FileError> {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let path = self.path.join(relative);
        match rustix::fs::openat2(&self.fd, relative, DIRECTORY, Mode::empty(), how) {
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::XDEV) => Err(FileError::bad(path, "lies behind another mount point")),
            other => Self::at(other, path).map(Some),
        }
    }

    /// The directory that holds the entry at `path` (`/` between components) below this one, and the entry's name in it.
    pub fn holder<'p>(&self, path: &'p str) -> Result<(Self, &'p str), FileError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
        let holder = self.beneath(Path::new(parent))?;
        Ok((holder.ok_or_else(|| FileError::bad(self.path.join(path), "is not there"))?, name))
    }

    fn at(opened: Result<OwnedFd, Errno>, path: PathBuf) -> Result<Self, FileError> {
        match opened {
            Ok(fd) => Ok(Self { fd, path }),
            Err(Errno::LOOP) => Err(FileError::bad(path, "is, or is reached through, a symbolic link")),
            Err(Errno::NOTDIR) => Err(FileError::bad(path, "is not a directory")),
            Err(error) => Err(during(|| format!("opening {}", path.display()))(error)),
        }
    }

    /// Where it was when it was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What this directory itself is.
    pub fn seen(&self) -> Result<Seen, FileError> {
        rustix::fs::fstat(&self.fd).map(Seen::from).map_err(during(|| format!("looking at {}", self.path.display())))
    }

    /// What `name` is, without following it; `None` when it is not there.
    pub fn stat(&self, name: impl AsRef<OsStr>) -> Result<Option<Seen>, FileError> {
        let name = name.as_ref();
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failed("looking at", name)(error)),
        }
    }

    /// Names in here, sorted, at most `limit`. A name that is not UTF-8 is refused.
    pub fn names(&self, limit: usize) -> Result<Vec<String>, FileError> {
        let mut names = Vec::new();
        for name in self.some_names(limit.saturating_add(1))? {
            let name = name.into_string().map_err(|_| FileError::bad(&self.path, "holds a name that is not UTF-8"))?;
            names.push(name);
        }
        if names.len() > limit {
            return Err(FileError::bad(&self.path, format!("holds more than {limit} entries")));
        }
        names.sort();
        Ok(names)
    }

    /// Up to `most` names in here, in no order; whatever bytes they are.
    pub fn some_names(&self, most: usize) -> Result<Vec<OsString>, FileError> {
        let failed = || format!("reading {}", self.path.display());
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(during(failed))? {
            let entry = entry.map_err(during(failed))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
            if names.len() >= most {
                break;
            }
        }
        Ok(names)
    }

    /// Opens the regular file `name` of `owner`'s for reading; what it is comes from the descriptor.
    pub fn file(&self, name: &str, owner: u32) -> Result<(File, Seen), FileError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let path = self.path.join(name);
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::LOOP) => return Err(FileError::bad(path, "is a symbolic link")),
            Err(Errno::NXIO) => return Err(FileError::bad(path, "is a socket or device")),
            Err(error) => return Err(self.failed("opening", name)(error)),
        };
        let seen: Seen = rustix::fs::fstat(&fd).map_err(self.failed("looking at", name))?.into();
        match seen.check(&path, owner)? {
            crate::domain::EntryKind::File => Ok((File::from(fd), seen)),
            crate::domain::EntryKind::Directory => Err(FileError::bad(path, seen.what)),
        }
    }

    /// The content of `owner`'s file `name`, at most `limit` bytes; `None` when it is not there.
    pub fn read(&self, name: &str, owner: u32, limit: u64) -> Result<Option<Vec<u8>>, FileError> {
        if self.stat(name)?.is_none() {
            return Ok(None);
        }
        let (file, _) = self.file(name, owner)?;
        let mut content = Vec::new();
        file.take(limit + 1).read_to_end(&mut content).map_err(self.failed("reading", name))?;
        if content.len() as u64 > limit {
            return Err(FileError::bad(self.path.join(name), format!("is longer than {limit} bytes")));
        }
        Ok(Some(content))
    }

    /// Makes the new file `name`, mode 0600, for reading and writing.
    pub fn create(&self, name: &str) -> Result<File, FileError> {
        effect::begin().map_err(self.failed("making", name))?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600)).map(File::from).map_err(self.failed("making", name))
    }

    /// Makes the directory `name`, mode 0700, if it is not there, and opens it.
    pub fn make_dir(&self, name: &str) -> Result<Self, FileError> {
        if self.stat(name)?.is_none() {
            effect::begin().map_err(self.failed("making", name))?;
            match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(self.failed("making", name)(error)),
            }
        }
        self.dir(name)
    }

    /// Moves `name` to `to` under the name `as_name`, which must not be there yet (rename(2), `RENAME_NOREPLACE`).
    pub fn move_to(&self, name: &str, to: &Dir, as_name: &str) -> Result<(), FileError> {
        effect::begin().map_err(self.failed("moving", name))?;
        rustix::fs::renameat_with(&self.fd, name, &to.fd, as_name, RenameFlags::NOREPLACE)
            .map_err(during(|| format!("moving {} to {}", self.path.join(name).display(), to.path.join(as_name).display())))
    }

    /// Exchanges two names in here atomically.
    pub fn exchange(&self, one: &str, other: &str) -> Result<(), FileError> {
        effect::begin().map_err(self.failed("exchanging", one))?;
        rustix::fs::renameat_with(&self.fd, one, &self.fd, other, RenameFlags::EXCHANGE).map_err(self.failed("exchanging", one))
    }

    /// Puts `content` under `name` so that at any instant, power loss included, either the old or the new content is there.
    pub fn write_synced(&self, name: &str, content: &[u8]) -> Result<(), FileError> {
        let draft = format!(".{name}.new");
        self.unlink(&draft)?;
        let mut file = self.create(&draft)?;
        file.write_all(content).and_then(|()| file.sync_all()).map_err(self.failed("writing", &draft))?;
        effect::begin().map_err(self.failed("moving", &draft))?;
        rustix::fs::renameat(&self.fd, draft.as_str(), &self.fd, name).map_err(self.failed("moving", &draft))?;
        self.sync()
    }

    /// Removes the file (or link, or anything but a directory) `name`. Missing is fine.
    pub fn unlink(&self, name: impl AsRef<OsStr>) -> Result<(), FileError> {
        self.remove(name.as_ref(), AtFlags::empty())
    }

    /// Removes the empty directory `name`. Missing is fine.
    pub fn remove_dir(&self, name: impl AsRef<OsStr>) -> Result<(), FileError> {
        self.remove(name.as_ref(), AtFlags::REMOVEDIR)
    }

    fn remove(&self, name: &OsStr, flags: AtFlags) -> Result<(), FileError> {
        if self.stat(name)?.is_none() {
            return Ok(());
        }
        effect::begin().map_err(self.failed("removing", name))?;
        match rustix::fs::unlinkat(&self.fd, name, flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.failed("removing", name)(error)),
        }
    }

    /// Makes what happened to the names in here survive power loss (fsync(2)).
    pub fn sync(&self) -> Result<(), FileError> {
        effect::begin().map_err(self.failed("syncing", "."))?;
        rustix::fs::fsync(&self.fd).map_err(self.failed("syncing", "."))
    }

    /// An error message's beginning for `name` in here.
    pub fn failed<E, N>(&self, doing: &'static str, name: N) -> impl FnOnce(E) -> FileError + use<E, N>
    where
        E: Into<std::io::Error>,
        N: AsRef<OsStr>,
    {
        let path = self.path.join(name.as_ref());
        during(move || format!("{doing} {}", path.display()))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
