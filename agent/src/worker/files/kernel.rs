//! The few calls to the kernel that touching files comes down to. This is where the project's simulation puts a disk of its
//! own under the very same code (feature `simulation`, never part of the product).

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FlockOperation, Gid, Mode, OFlags, RenameFlags, ResolveFlags, StatxFlags, Uid};
use rustix::io::Errno;

use super::Seen;
#[cfg(feature = "simulation")]
use crate::simulated;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// An open directory.
#[derive(Debug)]
pub enum Handle {
    /// The kernel's.
    Kernel(OwnedFd),
    /// A node of the simulated disk.
    #[cfg(feature = "simulation")]
    Simulated(u64),
}

/// An open regular file.
#[derive(Debug)]
pub enum OpenFile {
    /// The kernel's.
    Kernel(std::fs::File),
    /// A node of the simulated disk, and how much of it was read.
    #[cfg(feature = "simulation")]
    Simulated(u64, usize),
}

/// What a rename does to what has the new name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// It must not be there.
    Free,
    /// It is replaced.
    Replaced,
    /// It gets the old name.
    Exchanged,
}

/// On the simulated disk if there is one, else on the kernel's.
macro_rules! either {
    ($handle:expr, $fd:ident => $kernel:expr, $node:ident, $world:ident => $simulated:expr) => {
        match $handle {
            Handle::Kernel($fd) => $kernel,
            #[cfg(feature = "simulation")]
            Handle::Simulated($node) => simulated::with(|$world| {
                let $node = *$node;
                $simulated
            }),
        }
    };
}

/// Opens `name` in `dir` unless something is mounted there (openat2(2), `RESOLVE_NO_XDEV`). A file system that a user mounts below
/// their home may never answer, and what waits for it cannot even be killed. In the cage of a rehearsal there is no such call
/// (`RestrictSUIDSGID=`), and nothing but a copy that t3pin has made.
fn here(dir: &OwnedFd, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    match rustix::fs::openat2(dir, name, flags, Mode::empty(), ResolveFlags::NO_XDEV) {
        Err(Errno::NOSYS) => rustix::fs::openat(dir, name, flags, Mode::empty()),
        opened => opened,
    }
}

impl Handle {
    /// Opens the directory `path`, following links above its last component.
    pub fn open(path: &Path) -> Result<Self, Errno> {
        #[cfg(feature = "simulation")]
        if simulated::is_on() {
            return simulated::with(|world| world.open(None, path)).map(Self::Simulated);
        }
        rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty()).map(Self::Kernel)
    }

    /// Opens the subdirectory `name`; fails with `EXDEV` at a mount point.
    pub fn dir(&self, name: &OsStr) -> Result<Self, Errno> {
        either!(self, fd => here(fd, name, DIRECTORY).map(Self::Kernel),
            node, world => world.open(Some(node), Path::new(name)).map(Self::Simulated))
    }

    /// Opens `relative`, without links, mount points or `..` on the way (openat2(2)).
    pub fn beneath(&self, relative: &Path) -> Result<Self, Errno> {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        either!(self, fd => rustix::fs::openat2(fd, relative, DIRECTORY, Mode::empty(), how).map(Self::Kernel),
            node, world => world.open(Some(node), relative).map(Self::Simulated))
    }

    /// What it is itself.
    pub fn seen(&self) -> Result<Seen, Errno> {
        either!(self, fd => rustix::fs::fstat(fd).map(Seen::from), node, world => world.look(node))
    }

    /// What `name` is; fails with `EXDEV` at a mount point, and asks nothing of what is mounted there.
    pub fn stat(&self, name: &OsStr) -> Result<Seen, Errno> {
        either!(self, fd => here(fd, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC).and_then(rustix::fs::fstat).map(Seen::from),
            node, world => world.find(node, name).and_then(|found| world.look(found)))
    }

    /// Up to `most` names.
    pub fn names(&self, most: usize) -> Result<Vec<OsString>, Errno> {
        either!(self, fd => {
            let mut names = Vec::new();
            for entry in rustix::fs::Dir::read_from(fd)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    names.push(OsStr::from_bytes(name).to_owned());
                }
                if names.len() >= most {
                    break;
                }
            }
            Ok(names)
        }, node, world => world.names(node).map(|names| names.into_iter().take(most).collect()))
    }

    /// Opens the file `name` for reading, waiting for nobody; fails with `EXDEV` at a mount point.
    pub fn file(&self, name: &OsStr) -> Result<OpenFile, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        either!(self, fd => here(fd, name, flags).map(|fd| OpenFile::Kernel(fd.into())),
            node, world => world.find(node, name).map(|found| OpenFile::Simulated(found, 0)))
    }

    /// Makes the new file `name`, mode 0600.
    pub fn create(&self, name: &OsStr) -> Result<OpenFile, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        either!(self, fd => rustix::fs::openat(fd, name, flags, mode).map(|fd| OpenFile::Kernel(fd.into())),
            node, world => world.create(node, name, crate::domain::EntryKind::File).map(|made| OpenFile::Simulated(made, 0)))
    }

    /// Makes the directory `name`, mode 0700.
    pub fn make_dir(&self, name: &OsStr) -> Result<(), Errno> {
        either!(self, fd => rustix::fs::mkdirat(fd, name, Mode::from_raw_mode(0o700)),
            node, world => world.create(node, name, crate::domain::EntryKind::Directory).map(drop))
    }

    /// Renames `name` to `as_name` in `to`.
    pub fn rename(&self, name: &OsStr, to: &Self, as_name: &OsStr, target: Target) -> Result<(), Errno> {
        let flags = match target {
            Target::Free => RenameFlags::NOREPLACE,
            Target::Replaced => RenameFlags::empty(),
            Target::Exchanged => RenameFlags::EXCHANGE,
        };
        match (self, to) {
            (Self::Kernel(from), Self::Kernel(to)) => rustix::fs::renameat_with(from, name, to, as_name, flags),
            #[cfg(feature = "simulation")]
            (Self::Simulated(from), Self::Simulated(to)) => {
                simulated::with(|world| world.rename((*from, name), (*to, as_name), target))
            }
            #[cfg(feature = "simulation")]
            _ => Err(Errno::XDEV),
        }
    }

    /// Removes `name`: an empty directory, or anything else.
    pub fn remove(&self, name: &OsStr, directory: bool) -> Result<(), Errno> {
        let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        either!(self, fd => rustix::fs::unlinkat(fd, name, flags), node, world => world.remove(node, name, directory))
    }

    /// Makes what happened to the names in here survive power loss.
    pub fn sync(&self) -> Result<(), Errno> {
        either!(self, fd => rustix::fs::fsync(fd), node, world => world.sync(node))
    }

    /// Gives `name` the permissions `mode` and, when given, an owner (uid, gid).
    pub fn dress(&self, name: &OsStr, owner: Option<(u32, u32)>, mode: u32) -> Result<(), Errno> {
        either!(self, fd => {
            if let Some((uid, gid)) = owner {
                let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                rustix::fs::chownat(fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            rustix::fs::chmodat(fd, name, Mode::from_raw_mode(mode), AtFlags::empty())
        }, node, world => world.find(node, name).and_then(|found| world.dress(found, owner, mode)))
    }

    /// Gives this directory itself an owner (uid, gid) and permissions.
    pub fn dress_self(&self, (uid, gid): (u32, u32), mode: u32) -> Result<(), Errno> {
        either!(self, fd => {
            rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))
        }, node, world => world.dress(node, Some((uid, gid)), mode))
    }

    /// Gives the owner of the directory `name` all rights to it, whatever it was, following no link.
    pub fn open_up(&self, name: &OsStr) -> Result<(), Errno> {
        either!(self, fd => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = here(fd, name, flags)?;
            if rustix::fs::fstat(&found)?.st_mode & 0o700 != 0o700 {
                // By descriptor: a link put in its place must not have its target's mode changed.
                rustix::fs::chmod(format!("/proc/self/fd/{}", found.as_raw_fd()), Mode::RWXU)?;
            }
            Ok(())
        }, node, world => world.find(node, name).map(drop))
    }

    /// Free bytes of its file system, for others than root.
    pub fn free(&self) -> Result<u64, Errno> {
        either!(self, fd => rustix::fs::fstatvfs(fd).map(|room| room.f_bavail.saturating_mul(room.f_frsize)),
            node, world => world.free(node))
    }

    /// Waits until nobody else has it locked, and locks it until it is closed.
    pub fn lock(&self) -> Result<(), Errno> {
        // In the simulation there is one process at a time.
        either!(self, fd => rustix::fs::flock(fd, FlockOperation::LockExclusive), _node, _world => Ok(()))
    }

    /// Mount, device (major, minor) of the directory `path`; of this one where `path` is empty.
    pub fn identity(&self, path: &Path) -> Result<(u64, u32, u32), Errno> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
        either!(self, fd => {
            let found = if path.as_os_str().is_empty() {
                rustix::fs::statx(fd.as_fd(), path, AtFlags::EMPTY_PATH, wanted)?
            } else {
                rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, wanted)?
            };
            if found.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
                return Err(Errno::NOTSUP);
            }
            Ok((found.stx_mnt_id, found.stx_dev_major, found.stx_dev_minor))
        }, _node, _world => Ok((1, 0, 1)))
    }
}

impl OpenFile {
    /// The kernel's own descriptor, for what is not done on the simulated disk.
    pub fn into_kernel(self) -> io::Result<std::fs::File> {
        match self {
            Self::Kernel(file) => Ok(file),
            #[cfg(feature = "simulation")]
            Self::Simulated(..) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// What it is.
    pub fn seen(&self) -> Result<Seen, Errno> {
        match self {
            Self::Kernel(file) => rustix::fs::fstat(file).map(Seen::from),
            #[cfg(feature = "simulation")]
            Self::Simulated(node, _) => simulated::with(|world| world.look(*node)),
        }
    }

    /// Makes its content survive power loss.
    pub fn sync_all(&self) -> io::Result<()> {
        match self {
            Self::Kernel(file) => file.sync_all(),
            #[cfg(feature = "simulation")]
            Self::Simulated(node, _) => Ok(simulated::with(|world| world.sync(*node))?),
        }
    }

    /// Fills `buffer` from `offset` on, or fails.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self.read_at(buffer, offset)? {
            read if read == buffer.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Fills `buffer` from `offset` on, as far as there is anything.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Kernel(file) => {
                let mut filled = 0;
                while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                    match std::os::unix::fs::FileExt::read_at(file, rest, offset + filled as u64) {
                        Ok(0) => break,
                        Ok(n) => filled += n,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(filled)
            }
            #[cfg(feature = "simulation")]
            Self::Simulated(node, _) => {
                let content = simulated::with(|world| world.read(*node))?;
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                content.get(from..).unwrap_or_default().read(buffer)
            }
        }
    }

    /// Lets the next reader see what is on the disk, and not what is still in memory, as far as that can be had.
    pub fn forget_cached(&self) {
        match self {
            Self::Kernel(file) => drop(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)),
            #[cfg(feature = "simulation")]
            Self::Simulated(..) => {}
        }
    }

    /// Has the kernel begin to write it to the disk, without waiting for it: what POSIX_FADV_DONTNEED does with pages that are not on
    /// the disk yet (posix_fadvise(2)). Only advice, so a failure is none.
    pub fn write_back(&self) {
        self.forget_cached();
    }

    /// Makes it a clone of `source`, when the file system can (ioctl_ficlone(2)).
    pub fn clone_of(&self, source: &Self) -> bool {
        match (self, source) {
            (Self::Kernel(to), Self::Kernel(from)) => rustix::fs::ioctl_ficlone(to, from).is_ok(),
            #[cfg(feature = "simulation")]
            _ => false,
        }
    }
}

impl Read for OpenFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Kernel(file) => file.read(buffer),
            #[cfg(feature = "simulation")]
            Self::Simulated(node, read) => {
                let content = simulated::with(|world| world.read(*node))?;
                let n = content.get(*read..).unwrap_or_default().read(buffer)?;
                *read += n;
                Ok(n)
            }
        }
    }
}

impl Write for OpenFile {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        match self {
            Self::Kernel(file) => file.write(content),
            #[cfg(feature = "simulation")]
            Self::Simulated(node, _) => {
                simulated::with(|world| world.append(*node, content))?;
                Ok(content.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The uid that this process works as.
pub fn own_uid() -> u32 {
    #[cfg(feature = "simulation")]
    if simulated::is_on() {
        return simulated::with(|world| world.uid());
    }
    rustix::process::geteuid().as_raw()
}
