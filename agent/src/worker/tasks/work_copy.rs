//! What the live copy and the seed have in common: where they go, and what must never be copied.

use std::path::Path;
use std::time::Duration;

use super::database::Database;
use crate::worker::files::{Dir, FileError, during, remove_tree};
use crate::worker::protocol::{TaskError, TaskErrorKind};

/// The database's name in `userdata/`.
pub const DATABASE: &str = "state.sqlite";
/// Files that belong to a database that is, or was, open.
pub const SIDECARS: [&str; 3] = ["state.sqlite-wal", "state.sqlite-shm", "state.sqlite-journal"];
/// One look into a copy must be over by then. A check of 2 GB takes 10 s from a cold disk (SNAPSHOTS section 4).
const LOOK: Duration = Duration::from_secs(300);

/// What a finished copy's database holds.
#[derive(Debug, Default)]
pub struct Holdings {
    /// Highest migration applied; `None` without a database.
    pub level: Option<u32>,
    /// Sessions neither revoked nor expired.
    pub sessions: u64,
}

/// Opens `userdata`; `None` when the user has none yet. It must be the user's own directory.
pub fn open_userdata(userdata: &Path, owner: u32) -> Result<Option<Dir>, FileError> {
    if !is_there(userdata)? {
        return Ok(None);
    }
    let dir = Dir::open(userdata)?;
    dir.seen()?.check(userdata, owner)?;
    Ok(Some(dir))
}

/// Whether there is anything of that name, whatever it is.
pub fn is_there(path: &Path) -> Result<bool, FileError> {
    #[cfg(feature = "simulation")]
    if crate::simulated::is_on() {
        return Ok(Dir::open(path).is_ok());
    }
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(during(|| format!("looking at {}", path.display()))(error)),
        Ok(_) => Ok(true),
    }
}

/// Makes the empty directory `dest`, mode 0700, with what is missing above it; what was there is removed.
pub fn fresh(dest: &Path) -> Result<Dir, FileError> {
    let (parent, name) = split(dest)?;
    make_all(parent)?;
    let parent = Dir::open(parent)?;
    remove_tree(&parent, name)?;
    parent.make_dir(name)
}

/// Makes `path` and what is missing above it, mode 0700 (the worker's umask).
pub fn make_all(path: &Path) -> Result<(), FileError> {
    #[cfg(feature = "simulation")]
    if crate::simulated::is_on() {
        let below = path.strip_prefix("/").unwrap_or(path);
        return below.iter().try_fold(Dir::open(Path::new("/"))?, |dir, name| dir.make_dir(&name.to_string_lossy())).map(drop);
    }
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(during(|| format!("making {}", path.display())))
}

/// A path's directory and last component.
pub fn split(path: &Path) -> Result<(&Path, &str), FileError> {
    path.parent()
        .zip(path.file_name().and_then(|name| name.to_str()))
        .ok_or_else(|| FileError::bad(path, "is not a path of a work copy"))
}

/// Brings a copied database up to its last write, checks it, and says what it holds; no sidecar is left.
pub fn finish_database(dir: &Dir) -> Result<Holdings, TaskError> {
    let path = dir.path().join(DATABASE);
    let Some(seen) = dir.stat(DATABASE)? else { return Ok(Holdings::default()) };
    if seen.bytes == 0 {
        return Err(empty(&path));
    }
    #[cfg(feature = "simulation")]
    if crate::simulated::is_on() {
        return Ok(Holdings { level: dir.finish_simulated_database()?, sessions: 0 });
    }
    let database = Database::open_copy(&path, LOOK)?;
    database.checkpoint()?;
    database.quick_check()?;
    let holdings = Holdings { level: database.level()?, sessions: database.sessions()? };
    database.close()?;
    for sidecar in SIDECARS {
        if dir.stat(sidecar)?.is_some() {
            let message =
                format!("{} is still there after the copy of the database was closed", dir.path().join(sidecar).display());
            return Err(TaskError { kind: TaskErrorKind::Corrupt, message });
        }
    }
    Ok(holdings)
}

/// A database of no bytes: t3 would take it and start silently with nothing (T3-CONTRACT section 7).
pub fn empty(path: &Path) -> TaskError {
    let message = format!("{} is empty (0 bytes): whatever it held is lost; t3 would start as if it were new", path.display());
    TaskError { kind: TaskErrorKind::Corrupt, message }
}
