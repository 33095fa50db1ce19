//! The root-owned directories below the vault, the lock on a user's data, and the ledger that says where custody lies.
//!
//! `custody/USER/BUMP` holds the path of the bump's custody. It is written, synced, after custody's manifest and before
//! the first rename: while it is missing, nothing was taken; once it is there, a missing custody is a disaster and no
//! "nothing to do". It also keeps custody found when mount points look different to the next process.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::custody::{Custody, Manifest};
use super::{StateError, Vault};
use crate::domain::{BumpId, UserName};
use crate::worker::files::{Dir, FileError, during};

/// The uid that custody and vault must belong to: root's, as only root runs this.
pub use crate::worker::files::own_uid;

/// Custody that is noted, and what is found of it.
pub type Noted = (BumpId, Option<(Custody, Manifest)>);

/// Held while something changes a user's data; the kernel lets go of it when the process ends.
#[derive(Debug)]
pub struct Lock {
    _dir: Dir,
}

/// Refuses a directory that others own or can look into.
pub fn private(dir: Dir) -> Result<Dir, StateError> {
    let seen = dir.seen()?;
    if seen.uid != own_uid() {
        let why = format!("belongs to uid {}, not to root: somebody else made it; move it away", seen.uid);
        return Err(FileError::bad(dir.path(), why).into());
    }
    if seen.mode & 0o077 != 0 {
        let why = format!("has mode {:o}: it holds users' data and must be root's alone; chmod it to 700", seen.mode);
        return Err(FileError::bad(dir.path(), why).into());
    }
    Ok(dir)
}

/// Makes or opens the private subdirectory `name` of `parent`; the caller syncs `parent` before it counts on it.
pub fn private_dir(parent: &Dir, name: &str) -> Result<Dir, StateError> {
    private(parent.make_dir(name)?)
}

/// Directories, by device and inode, whose names this process has synced. A sync costs milliseconds of somebody's downtime.
static LASTING: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());
/// So many are remembered.
const REMEMBERED: usize = 10_000;

/// As [`private_dir`], and syncs `parent`: also where it is there already, because whoever made it may have died, or failed,
/// before its sync, and with this name everything below it would be gone after a power cut. Once for each in a process's life.
pub fn lasting_dir(parent: &Dir, name: &str) -> Result<Dir, StateError> {
    let was_there = parent.stat(name)?.is_some();
    let dir = private_dir(parent, name)?;
    let seen = dir.seen()?;
    let lasting = || LASTING.lock().unwrap_or_else(PoisonError::into_inner);
    // One that was just made may have the inode of one that is gone.
    if !was_there {
        lasting().remove(&(seen.dev, seen.ino));
    }
    #[cfg(feature = "simulation")]
    if crate::simulated::is_on() {
        lasting().clear();
    }
    if lasting().contains(&(seen.dev, seen.ino)) {
        return Ok(dir);
    }
    parent.sync()?;
    let mut lasting = lasting();
    if lasting.len() >= REMEMBERED {
        lasting.clear();
    }
    lasting.insert((seen.dev, seen.ino));
    Ok(dir)
}

impl Vault {
    /// Waits until nobody else (another task, `t3pin recover`) works on this user's data.
    pub(super) fn lock(&self, user: &UserName) -> Result<Lock, StateError> {
        let dir = self.user_dir("custody", user)?;
        dir.lock()?;
        Ok(Lock { _dir: dir })
    }

    /// The user's private directory in `custody/` or `snapshots/`.
    pub(super) fn user_dir(&self, part: &str, user: &UserName) -> Result<Dir, StateError> {
        lasting_dir(&Dir::open(&self.root.join(part))?, user.as_str())
    }

    /// Users who have a directory in `custody/` or `snapshots/`.
    pub(super) fn users_of(&self, part: &str) -> Result<Vec<UserName>, StateError> {
        Ok(Dir::open(&self.root.join(part))?.names(100_000)?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// All custody that is noted for `user`, with its manifest; `None` where it cannot be found.
    pub(super) fn noted_custodies(&self, user: &UserName) -> Result<Vec<Noted>, StateError> {
        let mut found = Vec::new();
        for name in self.user_dir("custody", user)?.names(100_000)? {
            let Ok(bump) = name.parse::<BumpId>() else { continue };
            let custody = self.noted_custody(user, bump)?.as_deref().map(Custody::open).transpose()?.flatten();
            let manifest = custody.as_ref().map(Custody::read).transpose()?.flatten();
            found.push((bump, custody.zip(manifest)));
        }
        Ok(found)
    }

    /// Notes where the bump's custody lies (synced).
    pub(super) fn note_custody(&self, user: &UserName, bump: BumpId, custody: &Path) -> Result<(), StateError> {
        let dir = self.user_dir("custody", user)?;
        let content = serde_json::to_vec(custody).map_err(during(|| "writing down where custody is".to_owned()))?;
        Ok(dir.write_synced(&bump.to_string(), &content)?)
    }

    /// Where the bump's custody lies; `None` when nothing was ever taken for it.
    pub(super) fn noted_custody(&self, user: &UserName, bump: BumpId) -> Result<Option<PathBuf>, StateError> {
        let dir = self.user_dir("custody", user)?;
        let Some(content) = dir.read(&bump.to_string(), own_uid(), 8192)? else { return Ok(None) };
        serde_json::from_slice(&content).map(Some).map_err(|error| StateError::Mismatch {
            path: dir.path().join(bump.to_string()),
            why: format!("does not say where the data of {user} lies ({error}); look for .t3pin/{user}/{bump} on the file system of their home"),
        })
    }

    /// Forgets where the bump's custody was.
    pub(super) fn forget_custody(&self, user: &UserName, bump: BumpId) -> Result<(), StateError> {
        let dir = self.user_dir("custody", user)?;
        dir.unlink(bump.to_string())?;
        Ok(dir.sync()?)
    }
}
