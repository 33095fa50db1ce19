//! Who has a user's database open?
//!
//! Only processes of the user's and of root's are asked about: nobody else can write the file, and a stranger who merely
//! reads a world-readable database (T3-CONTRACT section 2) must not be able to hold up its owner's bump.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags};

use super::StateError;
use crate::systemd::is_member;
use crate::worker::files::Dir;

/// The database and what SQLite keeps open beside it.
const FILES: [&str; 4] = ["state.sqlite", "state.sqlite-wal", "state.sqlite-shm", "state.sqlite-journal"];
/// Holders beyond this are not named.
const NAMED: usize = 8;

/// A process that has a database open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

/// [`StateError::Held`] if there is one of [`holders`].
pub fn refuse_held(dir: &Dir, owner: u32, server: &str, ours: &[u32]) -> Result<(), StateError> {
    let holders = holders(dir, owner, server, ours)?;
    if holders.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    for (index, Holder { pid, name }) in holders.iter().take(NAMED).enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        write!(text, "{separator}{name} (pid {pid})").ok();
    }
    Err(StateError::Held { path: dir.path().join("state.sqlite"), holders: text })
}

/// The processes of `owner`'s or root's, other than this one, workers of `ours` and those in the control group `server` (empty:
/// none), that have a file of the database in `dir` open or mapped.
pub fn holders(dir: &Dir, owner: u32, server: &str, ours: &[u32]) -> Result<Vec<Holder>, StateError> {
    let mut files = Vec::new();
    for name in FILES {
        if let Some(seen) = dir.stat(name)? {
            files.push((rustix::fs::major(seen.dev), rustix::fs::minor(seen.dev), seen.ino));
        }
    }
    let mut holders = Vec::new();
    if files.is_empty() {
        return Ok(holders);
    }
    #[cfg(feature = "simulation")]
    if crate::simulated::is_on() {
        let inodes: Vec<u64> = files.iter().map(|file| file.2).collect();
        let names = crate::simulated::with(|world| world.holders(owner, server, &inodes));
        return Ok(names.into_iter().map(|name| Holder { pid: 0, name }).collect());
    }
    let failed = |source| StateError::Io { context: "listing processes".to_owned(), source };
    for process in std::fs::read_dir("/proc").map_err(failed)? {
        let process = process.map_err(failed)?;
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process that ends while we look holds nothing any more: errors below only mean that.
        let Ok(owned_by) = process.metadata().map(|meta| meta.uid()) else { continue };
        if pid == std::process::id() || ours.contains(&pid) || (owned_by != owner && owned_by != 0) {
            continue;
        }
        if (has_open(&process.path(), &files) || has_mapped(&process.path(), &files)) && !is_member(pid, server) {
            let comm = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            holders.push(Holder { pid, name: comm.trim().chars().filter(|c| !c.is_control()).collect() });
        }
    }
    Ok(holders)
}

/// By descriptor. The link's text is looked at first: only what is named like the database is asked for its inode, so
/// that a descriptor into a file system that hangs (FUSE, NFS) is never touched. A rename keeps that name.
fn has_open(process: &Path, files: &[(u32, u32, u64)]) -> bool {
    let Ok(descriptors) = std::fs::read_dir(process.join("fd")) else { return false };
    descriptors.flatten().any(|descriptor| {
        let path = descriptor.path();
        if !std::fs::read_link(&path).is_ok_and(|target| is_named_like_it(target.as_os_str())) {
            return false;
        }
        rustix::fs::statx(CWD, &path, AtFlags::STATX_DONT_SYNC, StatxFlags::INO)
            .is_ok_and(|found| files.contains(&(found.stx_dev_major, found.stx_dev_minor, found.stx_ino)))
    })
}

/// By mapping (proc(5), `maps`): a descriptor may be closed after mmap(2). Devices are not compared, since btrfs shows another
/// one here than stat does.
fn has_mapped(process: &Path, files: &[(u32, u32, u64)]) -> bool {
    let Ok(maps) = std::fs::read(process.join("maps")) else { return false };
    maps.split(|byte| *byte == b'\n').any(|line| {
        is_named_like_it(OsStr::from_bytes(line))
            && std::str::from_utf8(line)
                .ok()
                .or_else(|| line.get(..80).and_then(|head| std::str::from_utf8(head).ok()))
                .and_then(|line| line.split_ascii_whitespace().nth(4))
                .and_then(|ino| ino.parse::<u64>().ok())
                .is_some_and(|ino| files.iter().any(|file| file.2 == ino))
    })
}

fn is_named_like_it(target: &OsStr) -> bool {
    let last = target.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    last.starts_with(b"state.sqlite")
}
