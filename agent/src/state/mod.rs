//! A user's data: work copies, custody, snapshot, restore, archive.
//!
//! Root does only four things here: renames between `userdata/` and custody by directory descriptors that were reached
//! without following a link of the user's, copies between custody and the archive (both root's own), holds, and reading
//! `/proc`. Everything else is the worker's. Promises 1 and 2 of DESIGN live in this module.
//!
//! Where things lie for bump `b000042` of alice:
//! `~alice/.t3/.t3pin/b000042/` work copies (hers); `<fs>/.t3pin/alice/b000042/{original,salvage}/` and `manifest.json`
//! custody (root's, 0700); `/var/lib/t3pin/snapshots/alice/b000042/` archive (root's).
//! `/var/lib/t3pin/custody/alice/b000042` notes where that custody is: no original is moved before this is on disk.
//! `/var/lib/t3pin/holds/alice` exists while the data is in our hands: the unit has
//! `ConditionPathExists=!/var/lib/t3pin/holds/%i`, so that nothing can start a server on half a state, not even a reboot.

mod archive;
mod custody;
mod export;
mod hold;
mod holders;
mod inventory;
mod overview;
mod patience;
mod preflight;
mod reach;
mod restore;
mod retain;
mod secure;
mod seeding;
mod snapshot;
mod stir;
mod strays;
mod switch;
#[cfg(test)]
mod tests;
mod unarchive;
mod vault_dirs;

pub use overview::KeptView;
pub use retain::Retention;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use inventory::{CustodySeen, Whereabouts};

use futures_util::stream::{self, StreamExt};

use self::archive::shelf::Shelf;
use self::patience::{CHANGE, LOOK, at_home};
use crate::domain::{BumpId, KeptId, Place, Salvage, SeedReport, Snapshot, SnapshotId, StrayServer, UnixMs, UserName, Version};
use crate::worker::files::{Deadline, FileError, is_full};
use crate::worker::{self, Answer, LiveCopyReport, Task, TaskErrorKind, WorkerError};

pub use patience::{hangs, leave};
pub use stir::{Stamp, stamp, stamp_soon};

/// Removing work copies takes no longer than this, however many files a candidate left in them.
const DISCARD: Duration = Duration::from_secs(120);
/// A few renames and syncs.
const SWITCH: Duration = Duration::from_secs(60);
/// That many homes are looked at together.
const AT_ONCE: usize = 8;
/// Re-reading or copying a snapshot of some GB from a slow disk.
const REREAD: Duration = Duration::from_secs(1800);

/// The root-owned side of users' data, below `/var/lib/t3pin`.
#[derive(Debug, Clone)]
pub struct Vault {
    root: PathBuf,
    seeding: seeding::Seedings,
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
    /// A disk, or somebody's share of it, ran full on the way.
    #[error("no room is left, or a quota is used up: {context}: {source}")]
    Full {
        /// What was being done.
        context: String,
        /// What the system said.
        source: std::io::Error,
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
    /// What holds a user's home does not answer.
    #[error(
        "{home} does not answer (a mount below it? a file server?): what was asked there goes on when it does, and until then nothing can be \
         done with {user}'s data"
    )]
    Hangs {
        /// Which home.
        home: PathBuf,
        /// Whose.
        user: UserName,
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

impl StateError {
    /// Whether there was no room.
    pub fn is_full(&self) -> bool {
        match self {
            Self::NoSpace { .. } | Self::Full { .. } => true,
            Self::Worker(WorkerError::Task(task)) => task.kind == TaskErrorKind::NoSpace,
            _ => false,
        }
    }
}

impl From<FileError> for StateError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Bad { path, why } => Self::BadPath { path, why },
            FileError::Io { context, source } if is_full(&source) => Self::Full { context, source },
            FileError::Io { context, source } => Self::Io { context, source },
        }
    }
}

impl Vault {
    /// The vault below `root` (`/var/lib/t3pin`); makes `snapshots/`, `custody/` and `holds/` if missing.
    pub fn open(root: &Path) -> std::io::Result<Self> {
        #[cfg(feature = "simulation")]
        if crate::simulated::is_on() {
            return Ok(Self { root: root.to_owned(), seeding: seeding::Seedings::default() });
        }
        use std::os::unix::fs::DirBuilderExt;
        for (name, mode) in [("snapshots", 0o700), ("custody", 0o700), ("holds", 0o755), (export::EXPORTS, 0o711)] {
            std::fs::DirBuilder::new().recursive(true).mode(mode).create(root.join(name))?;
        }
        // What an export that was broken off left: copies of what is kept anyway.
        for left in std::fs::read_dir(root.join(export::EXPORTS))? {
            std::fs::remove_dir_all(left?.path())?;
        }
        std::fs::File::open(root)?.sync_all()?;
        Ok(Self { root: root.to_owned(), seeding: seeding::Seedings::default() })
    }

    /// Before anything: the paths are what they must be (no links, regular files owned by the user, `nlink` 1), custody can
    /// be made on the same file system, there is room for work copies and salvage there and for the snapshot here.
    /// Changes nothing. No data yet (fresh user) is fine.
    pub async fn preflight(&self, place: &Place) -> Result<Preflight, StateError> {
        let (vault, whose) = (self.clone(), place.clone());
        at_home(place, LOOK, move || preflight::preflight(&vault, &whose)).await
    }

    /// Whether there is room for bumps of all of these, before the first begins: copies and originals lie side by side until a bump
    /// is settled, and then its snapshot stays. [`StateError::NoSpace`] names the file system that is too small. Changes nothing.
    pub async fn preflight_all(&self, places: Vec<Place>) -> Result<(), StateError> {
        // Whose data cannot be looked at is refused when it is their turn, and takes no room.
        let look = async |place: Place| {
            let (vault, whose) = (self.clone(), place.clone());
            at_home(&place, LOOK, move || preflight::rooms(&vault, &whose)).await
        };
        let looks: Vec<_> = places.into_iter().map(look).collect();
        let rooms: Vec<_> = stream::iter(looks).buffered(AT_ONCE).collect().await;
        preflight::refuse_short(&rooms.into_iter().flatten().flatten().collect::<Vec<_>>())
    }

    /// The live copy for the rehearsal; returns the home directory to bind into the sandbox, in which `.t3/userdata/` is
    /// the copy, and what it holds.
    pub async fn copy_live(
        &self,
        place: &Place,
        bump: BumpId,
        deadline: Duration,
    ) -> Result<(PathBuf, LiveCopyReport), StateError> {
        let home = work_dir(place, bump).join("home");
        let task = Task::CopyLive { userdata: place.userdata(), dest: home.join(".t3/userdata") };
        match worker::run(&place.account, &task, deadline).await? {
            Answer::LiveCopy(report) => Ok((home, report)),
            _ => Err(nonsense(place)),
        }
    }

    /// Removes the bump's work copies (as the user). Missing is fine.
    pub async fn discard_work(&self, place: &Place, bump: BumpId) -> Result<(), StateError> {
        match worker::run(&place.account, &Task::Discard { path: work_dir(place, bump) }, DISCARD).await? {
            Answer::Done => Ok(()),
            _ => Err(nonsense(place)),
        }
    }

    /// Marks the user's data as in our hands (synced). See the module's text.
    pub fn hold(&self, user: &UserName, bump: BumpId) -> Result<(), StateError> {
        self.put_hold(user, bump)
    }

    /// Lets go again (synced). Missing is fine.
    pub fn release(&self, user: &UserName) -> Result<(), StateError> {
        self.lift_hold(user)
    }

    /// Users whose data is held, with the bump that holds it.
    pub fn held(&self) -> Result<Vec<(UserName, BumpId)>, StateError> {
        self.list_holds()
    }

    /// What lies in custody for a user, by bump, told by its own manifests: for when the journal cannot tell any more. Custody on
    /// the file system of the user's home that is not noted any more is noted again.
    pub fn custodies(&self, place: &Place) -> Result<Vec<CustodySeen>, StateError> {
        let _lock = self.lock(&place.account.user)?;
        inventory::custodies(self, place)
    }

    /// Whether the originals of `bump` were put back into their place, as far as custody tells.
    pub fn is_back(&self, place: &Place, bump: BumpId) -> Result<bool, StateError> {
        let _lock = self.lock(&place.account.user)?;
        Ok(custody::Custody::find(self, place, bump)?.is_some_and(|(_, manifest)| manifest.phase == custody::Phase::Restored))
    }

    /// The last bump of anybody's that holds, custody or archive know of.
    pub fn last_bump(&self) -> Result<Option<BumpId>, StateError> {
        inventory::last_bump(self)
    }

    /// [`StateError::Held`] while a process of the user's or of root's has the database open, other than those in the control
    /// group `server` (empty when it does not run).
    pub async fn refuse_held(&self, place: &Place, server: &str) -> Result<(), StateError> {
        let (whose, server, ours) = (place.clone(), server.to_owned(), self.seeding.pids());
        at_home(place, LOOK, move || secure::refuse_held(&whose, &server, &ours)).await
    }

    /// Servers on the database that do not belong to the control group `server` (empty when the user's unit does not run).
    pub async fn stray_servers(&self, place: &Place, server: &str) -> Result<Vec<StrayServer>, StateError> {
        let (whose, server, ours) = (place.clone(), server.to_owned(), self.seeding.pids());
        at_home(place, LOOK, move || match reach::userdata(&whose)? {
            Some(userdata) => strays::servers(&userdata, whose.account.uid, &server, &ours),
            None => Ok(vec![]),
        })
        .await
    }

    /// The copy for the new version, made and checked as the user beside the running server, and kept within reach of what is
    /// written from then on until [`Vault::secure`] or [`Vault::discard_seed`]. `Some` says why there is none: then all of it is made when
    /// the server is stopped.
    pub async fn seed(&self, place: &Place, bump: BumpId, deadline: Duration) -> Result<Option<String>, StateError> {
        let (vault, whose) = (self.clone(), place.clone());
        at_home(place, CHANGE, move || secure::prepare(&vault, &whose, bump)).await?;
        self.seeding.begin(place, bump, deadline).await
    }

    /// Lets go of what [`Vault::seed`] made and holds, if anything. The copy itself goes with [`Vault::discard_work`].
    pub async fn discard_seed(&self, bump: BumpId) {
        self.seeding.end(bump).await;
    }

    /// With the server stopped: the copy for the new version brought up to the last write, as the user (or made now, when there is
    /// none); the originals into custody by rename, synced; nobody has the database open (else [`StateError::Held`]). From then
    /// on custody is whole: it is what a rollback brings back until [`Vault::archive`] has made a snapshot of it. Repeating it after
    /// a crash finishes it.
    ///
    /// When it fails after originals were moved, it moves them back itself; when even that fails, [`Vault::restore`] does.
    pub async fn secure(
        &self,
        place: &Place,
        bump: BumpId,
        version: &Version,
        now_ms: UnixMs,
        deadline: Duration,
    ) -> Result<(SeedReport, Snapshot), StateError> {
        let until = Deadline::after(deadline);
        let (vault, whose) = (self.clone(), place.clone());
        // The lock goes into every part of the work and stays until the last of them ends, even when this future is dropped.
        let (lock, done) = at_home(place, CHANGE, move || {
            let lock = vault.lock(&whose.account.user)?;
            let done = secure::resume(&vault, &whose, bump)?;
            Ok((lock, done))
        })
        .await?;
        if let Some(done) = done {
            return Ok(done);
        }
        let seed = match self.seeding.finish(place, bump, until.left()).await? {
            Some(seed) => seed,
            None => {
                // Copying all of it takes its time: not when somebody is in the way anyway.
                let whose = place.clone();
                at_home(place, LOOK, move || secure::refuse_held(&whose, "", &[])).await?;
                let task = Task::Seed { userdata: place.userdata(), dest: seed_dir(place, bump) };
                match worker::run(&place.account, &task, until.left()).await? {
                    Answer::Seed(seed) => seed,
                    _ => return Err(nonsense(place)),
                }
            }
        };
        let (vault, whose, version) = (self.clone(), place.clone(), version.clone());
        at_home(place, CHANGE, move || {
            let _lock = lock;
            secure::begin(&vault, &whose, bump, &version, now_ms, seed)
        })
        .await
    }

    /// Refuses while not every original is in custody for `bump`: what lies in place may be the original, on which the new version
    /// must not be started.
    pub async fn refuse_unsecured(&self, place: &Place, bump: BumpId) -> Result<(), StateError> {
        let (vault, whose) = (self.clone(), place.clone());
        at_home(place, CHANGE, move || {
            let _lock = vault.lock(&whose.account.user)?;
            switch::refuse_unsecured(&vault, &whose, bump).map(drop)
        })
        .await
    }

    /// The seeded copy into place. Repeating it is fine. Refuses while an original is not in custody, and says so when
    /// afterwards something of the copy is missing.
    pub async fn switch_in(&self, place: &Place, bump: BumpId) -> Result<(), StateError> {
        let (vault, whose) = (self.clone(), place.clone());
        let lock = at_home(place, CHANGE, move || {
            let lock = vault.lock(&whose.account.user)?;
            switch::refuse_unsecured(&vault, &whose, bump)?;
            Ok(lock)
        })
        .await?;
        let task = Task::SwitchIn { seed: seed_dir(place, bump), userdata: place.userdata() };
        let Answer::Done = worker::run(&place.account, &task, SWITCH).await? else { return Err(nonsense(place)) };
        let (vault, whose) = (self.clone(), place.clone());
        at_home(place, CHANGE, move || {
            let _lock = lock;
            switch::check_switched(&vault, &whose, bump)
        })
        .await
    }

    /// The original back by rename; what lies in its place goes to salvage when `keep_salvage`, else (the new version never
    /// ran) it is removed, unless it was written to after all. From any half-way point of [`Vault::secure`] and
    /// [`Vault::switch_in`]; repeating it is fine; without custody it does nothing. Returns what was set aside.
    pub async fn restore(&self, place: &Place, bump: BumpId, keep_salvage: bool) -> Result<Option<Salvage>, StateError> {
        let (vault, whose) = (self.clone(), place.clone());
        // Where only the archive has it, it takes as long as reading it.
        let (of, place_of) = (self.clone(), place.clone());
        let fetched = at_home(place, REREAD, move || {
            let _lock = of.lock(&place_of.account.user)?;
            restore::fetch(&of, &place_of, bump)
        })
        .await?;
        at_home(place, CHANGE, move || {
            let _lock = vault.lock(&whose.account.user)?;
            restore::restore(&vault, &whose, bump, keep_salvage || fetched)
        })
        .await
    }

    /// Removes the copies that never ran and made room for the original: once the old version is started, because removing
    /// large files takes its time.
    pub async fn clear_away(&self, place: &Place, bump: BumpId) -> Result<(), StateError> {
        let (vault, whose) = (self.clone(), place.clone());
        at_home(place, REREAD, move || {
            let _lock = vault.lock(&whose.account.user)?;
            restore::clear_away(&vault, &whose, bump)
        })
        .await
    }

    /// Makes the `original/` of `bump`'s custody from the archived snapshot `id` (owned by the user again, hashes checked), so that
    /// [`Vault::restore`] of that bump can bring it back. Custody that still has originals is left alone, and so is one from which
    /// this very snapshot was brought back already. Refused when the
    /// snapshot is that of another account or server. Takes as long as reading the snapshot: not for an async task's thread.
    pub fn unarchive(&self, place: &Place, id: SnapshotId, bump: BumpId) -> Result<(), StateError> {
        let _lock = self.lock(&place.account.user)?;
        unarchive::unarchive(self, place, id, bump, Deadline::after(REREAD))
    }

    /// The bump is settled: makes the snapshot from custody, unless it is there, reads it back, and only when it is whole removes
    /// custody's original, and custody itself when it has no salvage either.
    /// A bump that was restored is left as it is. Takes as long as reading the data twice.
    pub fn archive(&self, place: &Place, bump: BumpId) -> Result<(), StateError> {
        let _lock = self.lock(&place.account.user)?;
        archive::archive(self, place, bump, Deadline::after(REREAD))
    }

    /// Reads all snapshots of `user` from end to end, or the one `id`: for each `None` when it is whole, else what is wrong.
    /// `progress` is told bytes done and bytes in all.
    pub fn verify_kept(
        &self,
        user: &UserName,
        id: Option<KeptId>,
        progress: impl FnMut(u64, u64),
    ) -> Result<Vec<(SnapshotId, Option<String>)>, StateError> {
        let shelf = Shelf::open(self, user)?;
        let (all, broken) = snapshot::list(&shelf)?;
        let asked = |of: SnapshotId| id.is_none_or(|id| id == KeptId::Snapshot(of));
        let all: Vec<_> = all.into_iter().filter(|kept| asked(kept.snapshot.id)).collect();
        let wrong = archive::keep::verify(&shelf, &all, Deadline::after(REREAD), progress)?;
        let found = all.iter().map(|kept| kept.snapshot.id).zip(wrong);
        Ok(found.chain(broken.into_iter().filter(|(of, _)| asked(*of)).map(|(of, why)| (of, Some(why)))).collect())
    }

    /// The snapshot `id` of `user`.
    pub fn snapshot(&self, user: &UserName, id: SnapshotId) -> Result<Snapshot, StateError> {
        let shelf = Shelf::look(self, user)?;
        let missing = || StateError::Mismatch { path: shelf.dir.path().join(id.to_string()), why: "is not there".to_owned() };
        Ok(snapshot::load(&shelf, id)?.ok_or_else(missing)?.snapshot)
    }

    /// Removes one snapshot, or salvage, by order; never the last snapshot that is whole. Returns the bytes that are free now.
    pub fn remove_kept(&self, user: &UserName, id: KeptId) -> Result<u64, StateError> {
        match id {
            KeptId::Salvage(bump, round) => self.remove_salvage(user, bump, round),
            KeptId::Snapshot(id) => {
                let _lock = self.lock(user)?;
                retain::remove(self, user, id, Deadline::after(REREAD))
            }
        }
    }

    /// Removes the snapshots that are beyond `retention`, oldest first and never the newest, after verifying that the newest is
    /// whole. What custody still counts on stays. Returns what was removed, and why.
    pub fn retain(&self, user: &UserName, retention: Retention) -> Result<Vec<(Snapshot, String)>, StateError> {
        let _lock = self.lock(user)?;
        retain::retain(self, user, retention, Deadline::after(REREAD))
    }
}

/// The bump's work copies, the user's own.
fn work_dir(place: &Place, bump: BumpId) -> PathBuf {
    place.base_dir.join(".t3pin").join(bump.to_string())
}

/// Where the copy for the new version is made.
fn seed_dir(place: &Place, bump: BumpId) -> PathBuf {
    work_dir(place, bump).join("seed")
}

fn nonsense(place: &Place) -> StateError {
    let user = place.account.user.to_string();
    WorkerError::Nonsense { user, what: "the answer to another question".to_owned() }.into()
}

/// Runs what waits for disks on a thread that may.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, StateError> + Send + 'static) -> Result<T, StateError> {
    #[cfg(feature = "simulation")]
    if crate::simulated::is_on() {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StateError::Io { context: "working on a user's data".to_owned(), source: error.into() }),
    }
}
