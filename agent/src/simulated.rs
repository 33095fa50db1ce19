//! Where the project's simulation takes the place of the kernel and of the user's processes, below the product's own code.
//! Only built with the feature `simulation`, which no package has; and even then nothing changes before [`install`].

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::rc::Rc;

pub use rustix::io::Errno;

use crate::domain::{Account, EntryKind};
pub use crate::state::{Retention, StateError, Vault};
pub use crate::systemd::{SystemdError, UnitState};
pub use crate::worker::files::{Seen, Target};
pub use crate::worker::{Answer, LiveCopyReport, Task, TaskError, TaskErrorKind, WorkerError, tasks::perform};

/// A simulated kernel with its disk, by inodes, and what else is outside of the agent's process.
pub trait World {
    /// Opens the directory `path` below `from` (or the root).
    fn open(&self, from: Option<u64>, path: &Path) -> Result<u64, Errno>;
    /// What has the name `name` in `dir`.
    fn find(&self, dir: u64, name: &OsStr) -> Result<u64, Errno>;
    /// What a node is.
    fn look(&self, node: u64) -> Result<Seen, Errno>;
    /// All names in a directory.
    fn names(&self, dir: u64) -> Result<Vec<OsString>, Errno>;
    /// Makes a new file or directory, private to the calling user.
    fn create(&self, dir: u64, name: &OsStr, kind: EntryKind) -> Result<u64, Errno>;
    /// rename(2).
    fn rename(&self, from: (u64, &OsStr), to: (u64, &OsStr), target: Target) -> Result<(), Errno>;
    /// unlink(2), rmdir(2).
    fn remove(&self, dir: u64, name: &OsStr, directory: bool) -> Result<(), Errno>;
    /// fsync(2).
    fn sync(&self, node: u64) -> Result<(), Errno>;
    /// chown(2), chmod(2).
    fn dress(&self, node: u64, owner: Option<(u32, u32)>, mode: u32) -> Result<(), Errno>;
    /// The whole content.
    fn read(&self, node: u64) -> Result<Rc<[u8]>, Errno>;
    /// write(2) at the end.
    fn append(&self, node: u64, content: &[u8]) -> Result<(), Errno>;
    /// Free bytes.
    fn free(&self, node: u64) -> Result<u64, Errno>;
    /// As whom the calling process works.
    fn uid(&self) -> u32;
    /// Who, outside of the control group `server`, has one of these files open.
    fn holders(&self, owner: u32, server: &str, files: &[u64]) -> Vec<String>;
    /// A worker's task.
    fn work(&self, account: &Account, task: &Task) -> Result<Answer, WorkerError>;
    /// What SQLite makes of the copied database in `dir`: up to date, without sidecars; its migration level.
    fn finish_database(&self, dir: u64) -> Result<Option<u32>, TaskError>;
    /// The time, nanoseconds since the Unix epoch.
    fn now_ns(&self) -> i64;
}

thread_local! {
    static WORLD: RefCell<Option<Rc<dyn World>>> = const { RefCell::new(None) };
}

/// Puts `world` under this thread; `None` takes it away again.
pub fn install(world: Option<Rc<dyn World>>) {
    WORLD.with(|now| *now.borrow_mut() = world);
}

/// Whether this thread works on a simulated world.
pub fn is_on() -> bool {
    WORLD.with(|now| now.borrow().is_some())
}

/// Asks the simulated world of this thread. Without one there is nothing to be asked: a handle of it has outlived it.
#[allow(clippy::expect_used)]
pub fn with<T>(ask: impl FnOnce(&dyn World) -> T) -> T {
    let world = WORLD.with(|now| now.borrow().clone());
    ask(world.expect("a simulated world").as_ref())
}
