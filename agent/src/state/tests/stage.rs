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

/// A mounted file system, a tmpfs for most, unmounted when dropped.
pub struct FileSystem {
    dir: TempDir,
    /// What is mounted, where that is an image.
    _image: Option<tempfile::NamedTempFile>,
}

impl FileSystem {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), None).expect("these tests run as root");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // Every tmpfs counts its inodes from one, and who has mapped a file is known by its inode alone (see `holders`): two tests at
        // the same time would take each other's databases for their own.
        for _ in 0..std::process::id().wrapping_mul(7919) % 16_384 {
            fs::File::create(dir.path().join("x")).unwrap();
            fs::remove_file(dir.path().join("x")).unwrap();
        }
        Self { dir, _image: None }
    }

    /// A tmpfs of so many MB.
    pub fn sized(megabytes: u64) -> Self {
        let fs = Self::new();
        let size = std::ffi::CString::new(format!("size={megabytes}m")).unwrap();
        rustix::mount::mount_remount(fs.path(), MountFlags::empty(), size.as_c_str()).unwrap();
        fs
    }

    /// A real file system of this kind in an image, with `options` for mount(8); `None`, and said, where that cannot be had.
    pub fn image(kind: &str, make: &[&str], options: &str) -> Option<Self> {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(512 << 20).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (made, mounted) = (image.path().to_str().unwrap(), dir.path().to_str().unwrap());
        let mkfs: Vec<&str> = ["-q"].into_iter().chain(make.iter().copied()).chain([made]).collect();
        let options = format!("loop,{options}");
        for (program, arguments) in [(format!("mkfs.{kind}"), mkfs), ("mount".to_owned(), vec!["-o", &options, made, mounted])] {
            let said = std::process::Command::new(&program).args(&arguments).output();
            let why = match said {
                Ok(said) if said.status.success() => continue,
                Ok(said) => String::from_utf8_lossy(&said.stderr).into_owned(),
                Err(error) => error.to_string(),
            };
            eprintln!("SKIPPED: no {kind} with {options} can be had here: {program}: {why}");
            return None;
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Some(Self { dir, _image: Some(image) })
    }

    /// The disk below the temporary directory as a mount of its own (a bind mount), for measurements.
    pub fn on_disk() -> Self {
        let dir = tempfile::tempdir().unwrap();
        rustix::mount::mount_bind(dir.path(), dir.path()).expect("these tests run as root");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir, _image: None }
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
        Self::at(&fs.path().join("vaults").join(name), fs.path().join("home").join(name), name)
    }

    /// The user `name` at `home`, with a vault anywhere.
    pub fn at(root: &Path, home: PathBuf, name: &str) -> Self {
        fs::create_dir_all(root).unwrap();
        fs::create_dir_all(&home).unwrap();
        std::os::unix::fs::chown(&home, Some(UID), Some(UID)).unwrap();
        let account = Account { user: name.parse().unwrap(), uid: UID, gid: UID, home, shell: "/bin/sh".into() };
        Self { place: Place::of(account), vault: Vault::open(root).unwrap() }
    }

    pub fn userdata(&self) -> PathBuf {
        self.place.userdata()
    }

    pub fn custody(&self) -> PathBuf {
        let top = crate::state::reach::deepest(&self.place).and_then(|dir| crate::state::reach::custody_top(&dir)).unwrap();
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
