//! How root reaches a user's `userdata/`, and where custody for it can lie.

use std::path::{Component, Path, PathBuf};

use super::StateError;
use crate::domain::{EntryKind, Place};
use crate::worker::files::{Dir, FileError, during};

/// The user's `userdata/`, reached from the home without following a link or crossing a mount; `None` when there is none yet.
///
/// The home itself is opened by its path, as the part above it is root's; everything below is the user's and is not trusted.
pub fn userdata(place: &Place) -> Result<Option<Dir>, StateError> {
    let (home, below) = home(place)?;
    let Some(dir) = home.beneath(&below.join("userdata"))? else { return Ok(None) };
    dir.seen()?.check(dir.path(), place.account.uid)?;
    Ok(Some(dir))
}

/// As [`userdata`], but makes it, owned by the user, when only the base directory is there.
pub fn userdata_made(place: &Place) -> Result<Dir, StateError> {
    if let Some(dir) = userdata(place)? {
        return Ok(dir);
    }
    let (home, below) = home(place)?;
    let base = home.beneath(&below)?.ok_or_else(|| FileError::bad(&place.base_dir, "is not there"))?;
    base.seen()?.check(base.path(), place.account.uid)?;
    let made = base.make_dir("userdata")?;
    made.dress_self((place.account.uid, place.account.gid), 0o755)?;
    base.sync()?;
    Ok(made)
}

/// Refuses a place for work copies that is a link, no directory, or a mount point: a worker that goes there might never come back.
pub fn refuse_odd_work(place: &Place) -> Result<(), StateError> {
    let (home, below) = home(place)?;
    Ok(home.beneath(&below.join(".t3pin")).map(drop)?)
}

/// The deepest directory of home, base directory and `userdata/` that exists: what its file system is, `userdata/` will be on.
pub fn deepest(place: &Place) -> Result<Dir, StateError> {
    let (home, below) = home(place)?;
    let below = below.join("userdata");
    for part in below.ancestors().filter(|part| !part.as_os_str().is_empty()) {
        if let Some(dir) = home.beneath(part)? {
            dir.seen()?.check(dir.path(), place.account.uid)?;
            return Ok(dir);
        }
    }
    Ok(home)
}

/// The topmost directory above `dir` of the same mount and the same device. Between the two a rename cannot fail with
/// `EXDEV` (rename(2): also bind mounts of one file system are different ones; btrfs subvolumes differ by device).
pub fn custody_top(dir: &Dir) -> Result<PathBuf, StateError> {
    let start = dir.identity(Path::new(""))?;
    let mut top = dir.path().to_owned();
    while let Some(above) = top.parent() {
        if dir.identity(above)? != start {
            break;
        }
        top = above.to_owned();
    }
    Ok(top)
}

/// The home, and the base directory below it.
fn home(place: &Place) -> Result<(Dir, PathBuf), StateError> {
    let account = &place.account;
    let below = place
        .base_dir
        .strip_prefix(&account.home)
        .ok()
        .filter(|below| below.components().all(|part| matches!(part, Component::Normal(_))))
        .filter(|below| !below.as_os_str().is_empty())
        .ok_or_else(|| FileError::bad(&place.base_dir, format!("is not below the home {}", account.home.display())))?;
    let path = canonical(&account.home).map_err(during(|| format!("looking for the home {}", account.home.display())))?;
    let home = Dir::open(&path)?;
    let seen = home.seen()?;
    if seen.kind != Some(EntryKind::Directory) || (seen.uid != account.uid && seen.uid != 0) {
        return Err(FileError::bad(path, format!("belongs to uid {}, not to {}", seen.uid, account.user)).into());
    }
    Ok((home, below.to_owned()))
}

fn canonical(path: &Path) -> std::io::Result<PathBuf> {
    #[cfg(feature = "simulation")]
    if crate::simulated::is_on() {
        return Ok(path.to_owned());
    }
    path.canonicalize()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::state::tests::stage::{FileSystem, Stage};

    #[test]
    fn custody_lies_at_the_top_of_the_mount_that_the_data_is_on() {
        let fs = FileSystem::new();
        let stage = Stage::new(&fs, "alice");
        let top = fs.path().canonicalize().unwrap();
        assert_eq!(custody_top(&deepest(&stage.place).unwrap()).unwrap(), top, "without any data yet");
        stage.database(1, false);
        assert_eq!(custody_top(&deepest(&stage.place).unwrap()).unwrap(), top);
        // A bind mount is another mount, even of the same file system: a rename across it would fail.
        let home = &stage.place.account.home;
        rustix::mount::mount_bind(home, home).unwrap();
        let bound = deepest(&stage.place).and_then(|dir| custody_top(&dir));
        rustix::mount::unmount(home, rustix::mount::UnmountFlags::DETACH).unwrap();
        assert_eq!(bound.unwrap(), home.canonicalize().unwrap());
    }

    #[test]
    fn a_base_directory_outside_of_the_home_is_refused() {
        let fs = FileSystem::new();
        let mut stage = Stage::new(&fs, "alice");
        for base in [fs.path().join("elsewhere"), stage.place.account.home.join("../bob/.t3"), stage.place.account.home.clone()] {
            stage.place.base_dir = base;
            assert!(matches!(userdata(&stage.place), Err(StateError::BadPath { .. })));
        }
    }
}
