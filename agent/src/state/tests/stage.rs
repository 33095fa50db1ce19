//! A user with data, on a file system of their own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use crate::domain::{Account, BumpId, Place, STATE_ENTRIES, Salvage, SeedReport, Snapshot, Version};
use crate::state::{StateError, Vault, restore, secure, switch};
use crate::worker::{Answer, Task, TaskError, tasks::perform};

pub use crate::worker::tasks::stage::{UID, as_user, events, make_database};

pub const BUMP: BumpId = BumpId(42);

/// A mounted tmpfs, unmounted when dropped.
pub struct FileSystem {
    dir: TempDir,
}

impl FileSystem {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), None).expect("these tests run as root");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    /// The disk below the temporary directory as a mount of its own (a bind mount), for measurements.
    pub fn on_disk() -> Self {
        let dir = tempfile::tempdir().unwrap();
        rustix::mount::mount_bind(dir.path(), dir.path()).expect("these tests run as root");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        unmount(self.dir.path(), UnmountFlags::DETACH).ok();
    }
}

/// One user and a vault.
pub struct Stage {
    pub place: Place,
    pub vault: Vault,
}

/// Path -> (mode, uid, gid, content); directories have no content.
pub type Tree = BTreeMap<String, (u32, u32, u32, Option<Vec<u8>>)>;

impl Stage {
    /// The user `name` on `fs`, with a vault beside the home.
    pub fn new(fs: &FileSystem, name: &str) -> Self {
        let root = fs.path().join("vaults").join(name);
        fs::create_dir_all(&root).unwrap();
        let home = fs.path().join("home").join(name);
        fs::create_dir_all(&home).unwrap();
        std::os::unix::fs::chown(&home, Some(UID), Some(UID)).unwrap();
        let account = Account { user: name.parse().unwrap(), uid: UID, gid: UID, home, shell: "/bin/sh".into() };
        Self { place: Place::of(account), vault: Vault::open(&root).unwrap() }
    }

    pub fn userdata(&self) -> PathBuf {
        self.place.userdata()
    }

    pub fn custody(&self) -> PathBuf {
        let top = self.place.account.home.ancestors().nth(2).unwrap();
        top.join(".t3pin").join(self.place.account.user.as_str()).join(BUMP.to_string())
    }

    /// Writes a file of the user's.
    pub fn write(&self, name: &str, content: &[u8], mode: u32) {
        let (path, content) = (self.userdata().join(name), content.to_owned());
        as_user(move || {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::remove_file(&path).ok();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        });
    }

    /// A database in WAL mode with `rows` rows; with `killed` its last rows are in the WAL only, and all sidecars are left.
    pub fn database(&self, rows: usize, killed: bool) {
        let path = self.userdata().join("state.sqlite");
        as_user(move || make_database(&path, rows, killed));
    }

    /// Has the worker's task done as the user.
    pub fn work(&self, task: Task) -> Result<Answer, TaskError> {
        as_user(move || perform(task))
    }

    pub fn seed_dir(&self) -> PathBuf {
        self.place.base_dir.join(".t3pin").join(BUMP.to_string()).join("seed")
    }

    /// As `Vault::secure`, with the worker on a thread.
    pub fn secure(&self, version: &str) -> Result<(SeedReport, Snapshot), StateError> {
        let version: Version = version.parse().unwrap();
        let _lock = self.vault.lock(&self.place.account.user)?;
        if let Some(done) = secure::resume(&self.vault, &self.place, BUMP)? {
            return Ok(done);
        }
        secure::refuse_held(&self.place, "", &[])?;
        let answer = self.work(Task::Seed { userdata: self.userdata(), dest: self.seed_dir() });
        let Answer::Seed(seed) = answer.map_err(crate::worker::WorkerError::from)? else { panic!("no seed") };
        secure::begin(&self.vault, &self.place, BUMP, &version, 1_700_000_000_000, seed)
    }

    /// As `Vault::switch_in`.
    pub fn switch_in(&self) -> Result<(), StateError> {
        switch::refuse_unsecured(&self.vault, &self.place, BUMP)?;
        self.work(Task::SwitchIn { seed: self.seed_dir(), userdata: self.userdata() })
            .map_err(crate::worker::WorkerError::from)?;
        switch::check_switched(&self.vault, &self.place, BUMP)
    }

    /// As `Vault::restore`.
    pub fn restore(&self, keep_salvage: bool) -> Result<Option<Salvage>, StateError> {
        let _lock = self.vault.lock(&self.place.account.user)?;
        restore::restore(&self.vault, &self.place, BUMP, keep_salvage)
    }

    /// The state entries in `userdata/`.
    pub fn state(&self) -> Tree {
        let mut all = tree(&self.userdata());
        all.retain(|path, _| STATE_ENTRIES.contains(&path.split('/').next().unwrap()));
        all
    }
}

/// Everything below `root`.
pub fn tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.map(|entry| entry.unwrap()) {
            let meta = entry.metadata().unwrap();
            let content = meta.is_file().then(|| fs::read(entry.path()).unwrap());
            if meta.is_dir() {
                todo.push(entry.path());
            }
            let path = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.insert(path, (meta.mode(), meta.uid(), meta.gid(), content));
        }
    }
    found
}
