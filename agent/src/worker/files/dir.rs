//! An open directory, from which everything else is reached.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::kernel::{Handle, OpenFile, Target};
use super::{FileError, Seen, during, effect};

/// Nothing is looked for behind a mount point: it could not be moved aside with the rest, and may never answer.
fn mounted(path: PathBuf) -> FileError {
    FileError::bad(path, "is another file system, mounted there: it cannot be moved aside with the rest")
}

/// An open directory. Its path is only for messages: nothing is reached by it again.
#[derive(Debug)]
pub struct Dir {
    handle: Handle,
    path: PathBuf,
}

impl Dir {
    /// Opens `path`, whose last component must be a directory and no link. Links above it are followed.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Self::at(Handle::open(path), path.to_owned())
    }

    /// Opens the subdirectory `name`.
    pub fn dir(&self, name: impl AsRef<OsStr>) -> Result<Self, FileError> {
        let name = name.as_ref();
        Self::at(self.handle.dir(name), self.path.join(name))
    }

    /// Opens the subdirectory `name`; `None` when there is nothing of that name.
    pub fn dir_if_there(&self, name: &str) -> Result<Option<Self>, FileError> {
        self.stat(name)?.map(|_| self.dir(name)).transpose()
    }

    /// Opens `relative` below this directory: no symbolic link, no mount point and no `..` on the way
    /// (openat2(2)). `None` when it is not there.
    pub fn beneath(&self, relative: &Path) -> Result<Option<Self>, FileError> {
        let path = self.path.join(relative);
        match self.handle.beneath(relative) {
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

    fn at(opened: Result<Handle, Errno>, path: PathBuf) -> Result<Self, FileError> {
        match opened {
            Ok(handle) => Ok(Self { handle, path }),
            Err(Errno::LOOP) => Err(FileError::bad(path, "is, or is reached through, a symbolic link")),
            Err(Errno::NOTDIR) => Err(FileError::bad(path, "is not a directory")),
            Err(Errno::XDEV) => Err(mounted(path)),
            Err(error) => Err(during(|| format!("opening {}", path.display()))(error)),
        }
    }

    /// Where it was when it was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What this directory itself is.
    pub fn seen(&self) -> Result<Seen, FileError> {
        self.handle.seen().map_err(during(|| format!("looking at {}", self.path.display())))
    }

    /// What `name` is, without following it; `None` when it is not there.
    pub fn stat(&self, name: impl AsRef<OsStr>) -> Result<Option<Seen>, FileError> {
        let name = name.as_ref();
        match self.handle.stat(name) {
            Ok(seen) => Ok(Some(seen)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::XDEV) => Err(mounted(self.path.join(name))),
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
        self.handle.names(most).map_err(during(|| format!("reading {}", self.path.display())))
    }

    /// Opens the regular file `name` of `owner`'s for reading; what it is comes from the descriptor.
    pub fn file(&self, name: &str, owner: u32) -> Result<(OpenFile, Seen), FileError> {
        let path = self.path.join(name);
        let file = match self.handle.file(OsStr::new(name)) {
            Ok(file) => file,
            Err(Errno::LOOP) => return Err(FileError::bad(path, "is a symbolic link")),
            Err(Errno::XDEV) => return Err(mounted(path)),
            Err(Errno::NXIO) => return Err(FileError::bad(path, "is a socket or device")),
            Err(error) => return Err(self.failed("opening", name)(error)),
        };
        let seen = file.seen().map_err(self.failed("looking at", name))?;
        match seen.check(&path, owner)? {
            crate::domain::EntryKind::File => Ok((file, seen)),
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
    pub fn create(&self, name: &str) -> Result<OpenFile, FileError> {
        effect::begin().map_err(self.failed("making", name))?;
        self.handle.create(OsStr::new(name)).map_err(self.failed("making", name))
    }

    /// Makes the directory `name`, mode 0700, if it is not there, and opens it.
    pub fn make_dir(&self, name: &str) -> Result<Self, FileError> {
        if self.stat(name)?.is_none() {
            effect::begin().map_err(self.failed("making", name))?;
            match self.handle.make_dir(OsStr::new(name)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(self.failed("making", name)(error)),
            }
        }
        self.dir(name)
    }

    /// Moves `name` to `to` under the name `as_name`, which must not be there yet (rename(2), `RENAME_NOREPLACE`).
    pub fn move_to(&self, name: &str, to: &Dir, as_name: &str) -> Result<(), FileError> {
        effect::begin().map_err(self.failed("moving", name))?;
        self.handle
            .rename(OsStr::new(name), &to.handle, OsStr::new(as_name), Target::Free)
            .map_err(during(|| format!("moving {} to {}", self.path.join(name).display(), to.path.join(as_name).display())))
    }

    /// Exchanges two names in here atomically.
    pub fn exchange(&self, one: &str, other: &str) -> Result<(), FileError> {
        effect::begin().map_err(self.failed("exchanging", one))?;
        self.handle
            .rename(OsStr::new(one), &self.handle, OsStr::new(other), Target::Exchanged)
            .map_err(self.failed("exchanging", one))
    }

    /// Puts `content` under `name` so that at any instant, power loss included, either the old or the new content is there. No draft
    /// is left when it fails.
    pub fn write_synced(&self, name: &str, content: &[u8]) -> Result<(), FileError> {
        let draft = format!(".{name}.new");
        self.unlink(&draft)?;
        let put = self.put_draft(&draft, name, content);
        if put.is_err() {
            // What is said is why there was a draft to remove.
            self.unlink(&draft).ok();
        }
        put?;
        self.sync()
    }

    fn put_draft(&self, draft: &str, name: &str, content: &[u8]) -> Result<(), FileError> {
        let mut file = self.create(draft)?;
        file.write_all(content).and_then(|()| file.sync_all()).map_err(self.failed("writing", draft))?;
        effect::begin().map_err(self.failed("moving", draft))?;
        self.handle
            .rename(OsStr::new(draft), &self.handle, OsStr::new(name), Target::Replaced)
            .map_err(self.failed("moving", draft))
    }

    /// Removes the file (or link, or anything but a directory) `name`. Missing is fine.
    pub fn unlink(&self, name: impl AsRef<OsStr>) -> Result<(), FileError> {
        self.remove(name.as_ref(), false)
    }

    /// Removes the empty directory `name`. Missing is fine.
    pub fn remove_dir(&self, name: impl AsRef<OsStr>) -> Result<(), FileError> {
        self.remove(name.as_ref(), true)
    }

    fn remove(&self, name: &OsStr, directory: bool) -> Result<(), FileError> {
        if self.stat(name)?.is_none() {
            return Ok(());
        }
        effect::begin().map_err(self.failed("removing", name))?;
        match self.handle.remove(name, directory) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.failed("removing", name)(error)),
        }
    }

    /// Makes what happened to the names in here survive power loss (fsync(2)).
    pub fn sync(&self) -> Result<(), FileError> {
        effect::begin().map_err(self.failed("syncing", "."))?;
        self.handle.sync().map_err(self.failed("syncing", "."))
    }

    /// Gives the entry `name` the permissions `mode` and, when given, an owner (uid, gid).
    pub fn dress(&self, name: &str, owner: Option<(u32, u32)>, mode: u32) -> Result<(), FileError> {
        effect::begin().map_err(self.failed("changing", name))?;
        self.handle.dress(OsStr::new(name), owner, mode).map_err(self.failed("changing the owner and mode of", name))
    }

    /// Gives this directory an owner (uid, gid) and permissions.
    pub fn dress_self(&self, owner: (u32, u32), mode: u32) -> Result<(), FileError> {
        self.handle.dress_self(owner, mode).map_err(self.failed("giving away", ""))
    }

    /// Opens the directory `name` so that it can be emptied, even where its owner took its own rights away.
    pub fn dir_to_empty(&self, name: &OsStr) -> Result<Self, FileError> {
        match self.handle.open_up(name) {
            Err(Errno::XDEV) => Err(mounted(self.path.join(name))),
            opened => opened.map_err(self.failed("opening", name)).and_then(|()| self.dir(name)),
        }
    }

    /// Free bytes of the file system, for others than root.
    pub fn free(&self) -> Result<u64, FileError> {
        self.handle.free().map_err(self.failed("looking for room in", "."))
    }

    /// Waits until nobody else has locked this directory, and locks it until it is closed (flock(2)).
    pub fn lock(&self) -> Result<(), FileError> {
        self.handle.lock().map_err(during(|| format!("waiting for the lock {}", self.path.display())))
    }

    /// What tells two mounts apart: mount, device (major, minor) of the directory `path`; of this one where it is empty.
    pub fn identity(&self, path: &Path) -> Result<(u64, u32, u32), FileError> {
        self.handle.identity(path).map_err(during(|| format!("looking at {}", self.path.join(path).display())))
    }

    /// What SQLite would make of the copied database in here.
    #[cfg(feature = "simulation")]
    pub fn finish_simulated_database(&self) -> Result<Option<u32>, crate::worker::protocol::TaskError> {
        match self.handle {
            Handle::Simulated(node) => crate::simulated::with(|world| world.finish_database(node)),
            Handle::Kernel(_) => Ok(Default::default()),
        }
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
