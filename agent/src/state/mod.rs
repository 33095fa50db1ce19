//! A user's data: work copies, custody, snapshot, restore, archive.
//!
//! Root does only four things here: renames between `userdata/` and custody by directory descriptors that were reached
//! without following a link of the user's, copies between custody and the archive (both root's own), holds, and reading
//! `/proc`. Everything else is the worker's. Promises 1 and 2 of DESIGN live in this module.
//!
//! Where things lie for bump `b000042` of alice:
//! `~alice/.t3/.t3pin/b000042/` work copies (hers); `<fs>/.t3pin/alice/b000042/{original,salvage}/` and `manifest.json`
//! custody (root's, 0700); `/var/lib/t3pin/snapshots/alice/b000042/` archive (root's).
//! `/var/lib/t3pin/holds/alice` exists while the data is in our hands: the unit has
//! `ConditionPathExists=!/var/lib/t3pin/holds/%i`, so that nothing can start a server on half a state, not even a reboot.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::{BumpId, Place, Salvage, SeedReport, Snapshot, UnixMs, UserName, Version};
use crate::worker::{LiveCopyReport, WorkerError};

/// The root-owned side of users' data, below `/var/lib/t3pin`.
#[derive(Debug, Clone)]
pub struct Vault {
    root: PathBuf,
}

/// Why something could not be done to a user's data. Unless it says otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Not enough room.
    #[error("not enough room on {path}: {needed} bytes are needed, {free} are free")]
    NoSpace {
        /// File system.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// A path of the user's is not what it must be.
    #[error("{path} {why}; t3pin leaves it alone")]
    BadPath {
        /// Which.
        path: PathBuf,
        /// What is wrong, e.g. "is a symbolic link".
        why: String,
    },
    /// A process still has the database open.
    #[error("{path} is still open in {holders}")]
    Held {
        /// The database.
        path: PathBuf,
        /// Pids and names.
        holders: String,
    },
    /// Two things that must agree do not (hash, manifest).
    #[error("{path}: {why}")]
    Mismatch {
        /// Where.
        path: PathBuf,
        /// What does not agree.
        why: String,
    },
    /// Disk or permissions.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The worker.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

/// What the disk must hold for one bump, and what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preflight {
    /// Bytes of the user's state entries.
    pub state_bytes: u64,
    /// Where custody will be.
    pub custody: PathBuf,
}

impl Vault {
    /// The vault below `root` (`/var/lib/t3pin`); makes `snapshots/` and `holds/` if missing.
    pub fn open(root: &Path) -> std::io::Result<Self> {
        let _ = root;
        unimplemented!()
    }

    /// Before anything: the paths are what they must be (no links, regular files owned by the user, `nlink` 1), custody can
    /// be made on the same file system, there is room for work copies and salvage there and for the snapshot here.
    /// Changes nothing. No data yet (fresh user) is fine.
    pub async fn preflight(&self, place: &Place) -> Result<Preflight, StateError> {
        let _ = place;
        unimplemented!()
    }

    /// The live copy for the rehearsal; returns the home directory to bind into the sandbox, in which `.t3/userdata/` is
    /// the copy, and what it holds.
    pub async fn copy_live(
        &self,
        place: &Place,
        bump: BumpId,
        deadline: Duration,
    ) -> Result<(PathBuf, LiveCopyReport), StateError> {
        let _ = (place, bump, deadline);
        unimplemented!()
    }

    /// Removes the bump's work copies (as the user). Missing is fine.
    pub async fn discard_work(&self, place: &Place, bump: BumpId) -> Result<(), StateError> {
        let _ = (place, bump);
        unimplemented!()
    }

    /// Marks the user's data as in our hands (synced). See the module's text.
    pub fn hold(&self, user: &UserName, bump: BumpId) -> Result<(), StateError> {
        let _ = (user, bump);
        unimplemented!()
    }

    /// Lets go again (synced). Missing is fine.
    pub fn release(&self, user: &UserName) -> Result<(), StateError> {
        let _ = user;
        unimplemented!()
    }

    /// Users whose data is held, with the bump that holds it.
    pub fn held(&self) -> Result<Vec<(UserName, BumpId)>, StateError> {
        unimplemented!()
    }

    /// With the server stopped: nobody has the database open (else [`StateError::Held`]); the copy for the new version,
    /// made and checked as the user; the originals into custody by rename, synced; a root-owned snapshot from custody,
    /// verified against the hashes. Repeating it after a crash finishes it.
    pub async fn secure(
        &self,
        place: &Place,
        bump: BumpId,
        version: &Version,
        now_ms: UnixMs,
        deadline: Duration,
    ) -> Result<(SeedReport, Snapshot), StateError> {
        let _ = (place, bump, version, now_ms, deadline);
        unimplemented!()
    }

    /// The seeded copy into place. Repeating it is fine.
    pub async fn switch_in(&self, place: &Place, bump: BumpId) -> Result<(), StateError> {
        let _ = (place, bump);
        unimplemented!()
    }

    /// The original back by rename; what lies in its place goes to salvage when `keep_salvage`, else (the new version never
    /// ran) it is removed. From any half-way point of [`Vault::secure`] and [`Vault::switch_in`]; repeating it is fine; without
    /// custody it does nothing. Returns what was set aside.
    pub async fn restore(&self, place: &Place, bump: BumpId, keep_salvage: bool) -> Result<Option<Salvage>, StateError> {
        let _ = (place, bump, keep_salvage);
        unimplemented!()
    }

    /// Makes custody's `original/` from the archived snapshot (owned by the user again, hashes checked), so that
    /// [`Vault::restore`] can bring it back after the bump was settled. Custody that is still there is left alone.
    pub fn unarchive(&self, place: &Place, snapshot: &Snapshot) -> Result<(), StateError> {
        let _ = (place, snapshot);
        unimplemented!()
    }

    /// The bump is settled: re-reads the snapshot, and only when it is whole removes custody's original. Salvage stays.
    pub fn archive(&self, place: &Place, bump: BumpId) -> Result<(), StateError> {
        let _ = (place, bump);
        unimplemented!()
    }

    /// All snapshots of a user, oldest first; unreadable ones are skipped and logged.
    pub fn snapshots(&self, user: &UserName) -> Result<Vec<Snapshot>, StateError> {
        let _ = user;
        unimplemented!()
    }

    /// Removes all but the newest `keep` (at least one) snapshots, after verifying that the newest is whole.
    pub fn retain(&self, user: &UserName, keep: usize) -> Result<Vec<Snapshot>, StateError> {
        let _ = (user, keep);
        unimplemented!()
    }
}
