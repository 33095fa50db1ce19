//! The copy for the new version, made with the server stopped.

use std::path::Path;

use super::work_copy::{DATABASE, SIDECARS, empty, finish_database, fresh, open_userdata};
use crate::domain::{STATE_ENTRIES, SeedReport, StateEntry};
use crate::worker::files::{Deadline, copy_entries, dress, sync_tree};
use crate::worker::protocol::{TaskError, TaskErrorKind};

/// See [`crate::worker::Task::Seed`].
///
/// The database is copied with its `-wal` (and a rollback journal, if something left one) and then brought up to date in
/// the copy by SQLite itself; its journal mode stays what it was. The copy has the modes of the originals.
pub fn seed(userdata: &Path, dest: &Path) -> Result<SeedReport, TaskError> {
    let owner = rustix::process::geteuid().as_raw();
    let source = open_userdata(userdata, owner)?;
    let copy = fresh(dest)?;
    let Some(source) = source else {
        sync_tree(&copy, owner)?;
        return Ok(SeedReport { originals: Vec::new(), migration_level: None, bytes: 0, method: method(false), marks: Default::default() });
    };
    match source.stat(DATABASE)? {
        Some(seen) if seen.bytes == 0 && seen.kind.is_some() => {
            seen.check(&userdata.join(DATABASE), owner)?;
            if seen.kind == Some(crate::domain::EntryKind::File) {
                return Err(empty(&userdata.join(DATABASE)));
            }
        }
        Some(_) => {}
        None => refuse_orphans(&source)?,
    }
    if let Some(name) = misplaced(&source)? {
        return Err(crate::worker::files::FileError::bad(userdata.join(name), "is a directory, or is none where one belongs").into());
    }
    let names: Vec<&str> = STATE_ENTRIES.into_iter().filter(|name| *name != "state.sqlite-shm").collect();
    let (originals, all_cloned) = copy_entries(&source, &names, owner, &copy, Deadline::NONE)?;
    let holdings = finish_database(&copy)?;
    let left: Vec<StateEntry> = originals.iter().filter(|entry| !SIDECARS.contains(&entry.path.as_str())).cloned().collect();
    // Synced first: a file may have a mode with which its owner cannot open it again.
    sync_tree(&copy, owner)?;
    dress(&copy, &left, None)?;
    copy.sync()?;
    Ok(SeedReport {
        bytes: originals.iter().map(|entry| entry.bytes).sum(),
        originals,
        migration_level: holdings.level,
        method: method(all_cloned),
        marks: holdings.marks,
    })
}

fn method(all_cloned: bool) -> String {
    if all_cloned { "reflink" } else { "copy" }.to_owned()
}

/// Sidecars with content but without their database: what they belong to is lost, and SQLite would throw them away.
fn refuse_orphans(source: &crate::worker::files::Dir) -> Result<(), TaskError> {
    for sidecar in SIDECARS {
        if sidecar != "state.sqlite-shm" && source.stat(sidecar)?.is_some_and(|seen| seen.bytes > 0) {
            let message = format!("{} is there, but its database is not", source.path().join(sidecar).display());
            return Err(TaskError { kind: TaskErrorKind::Corrupt, message });
        }
    }
    Ok(())
}

/// A state entry that is a directory where a file belongs, or the other way round.
fn misplaced(source: &crate::worker::files::Dir) -> Result<Option<&'static str>, TaskError> {
    use crate::domain::EntryKind::{Directory, File};
    for name in STATE_ENTRIES {
        let right = if name == "secrets" { Directory } else { File };
        if source.stat(name)?.and_then(|seen| seen.kind).is_some_and(|kind| kind != right) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
