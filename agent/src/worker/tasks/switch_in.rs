//! Putting the copy in place.

use std::path::Path;

use super::work_copy::{DATABASE, SIDECARS, make_all, open_userdata};
use crate::domain::STATE_ENTRIES;
use crate::worker::files::{Dir, FileError, own_uid};
use crate::worker::protocol::TaskError;

/// See [`crate::worker::Task::SwitchIn`]. Nothing is ever replaced: what lies in the way is an error.
pub fn switch_in(seed: &Path, userdata: &Path) -> Result<(), TaskError> {
    let owner = own_uid();
    let from = Dir::open(seed)?;
    let mut waiting = Vec::new();
    for name in STATE_ENTRIES {
        if let Some(seen) = from.stat(name)? {
            seen.check(&seed.join(name), owner)?;
            waiting.push(name);
        }
    }
    if waiting.is_empty() {
        return Ok(());
    }
    let to = match open_userdata(userdata, owner)? {
        Some(dir) => dir,
        None => {
            make_all(userdata)?;
            Dir::open(userdata)?
        }
    };
    // The database goes last, and only when nothing lies there that would be played back into it (SNAPSHOTS, trap 8); its own log
    // follows it. Between the two nobody starts on it: whoever repeats or undoes this finds both.
    waiting.sort_by_key(|name| if *name == DATABASE { 1 } else { 2 * u8::from(name.starts_with(DATABASE)) });
    for name in &waiting {
        if *name == DATABASE {
            refuse_stale(&to)?;
        }
        from.move_to(name, &to, name)?;
    }
    to.sync()?;
    from.sync()?;
    Ok(())
}

fn refuse_stale(userdata: &Dir) -> Result<(), FileError> {
    for sidecar in SIDECARS {
        if userdata.stat(sidecar)?.is_some() {
            return Err(FileError::bad(userdata.path().join(sidecar), "belongs to another database than the one to put here"));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::fs;

    use super::*;
    use crate::worker::tasks::stage::{UID, as_user};

    #[test]
    fn nothing_is_replaced_and_no_stale_wal_is_left_beside_the_copy() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(UID), Some(UID)).unwrap();
        as_user(|| {
            let (seed, userdata) = (dir.path().join("seed"), dir.path().join("userdata"));
            fs::create_dir(&seed).unwrap();
            fs::create_dir(&userdata).unwrap();
            fs::write(seed.join("state.sqlite"), b"copy").unwrap();
            fs::write(seed.join("settings.json"), b"copy").unwrap();
            fs::write(userdata.join("state.sqlite-wal"), b"stale").unwrap();
            assert!(switch_in(&seed, &userdata).is_err());
            fs::remove_file(userdata.join("state.sqlite-wal")).unwrap();
            fs::write(userdata.join("state.sqlite"), b"in the way").unwrap();
            assert!(switch_in(&seed, &userdata).is_err());
            assert_eq!(fs::read(userdata.join("state.sqlite")).unwrap(), b"in the way");
            fs::remove_file(userdata.join("state.sqlite")).unwrap();
            switch_in(&seed, &userdata).unwrap();
            fs::write(userdata.join("state.sqlite-wal"), b"of the new version").unwrap();
            switch_in(&seed, &userdata).unwrap();
            assert_eq!(fs::read(userdata.join("state.sqlite")).unwrap(), b"copy");
            assert!(switch_in(&dir.path().join("no seed"), &userdata).is_err());
        });
    }
}
