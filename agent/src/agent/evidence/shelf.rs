//! The directory with the bundles: one is there whole or not at all, and only the newest are kept.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::bundle::FILE_BYTES;
use crate::domain::BumpId;

/// How many bundles are kept. Of a few hundred KiB each.
const KEEP: usize = 50;
/// What a bundle is called until it is whole.
const DRAFT: &str = "draft";

/// Puts a bundle of `files` at `place`, in place of one that is there, and removes the oldest where there are too many.
pub fn put(place: &Path, files: &[(&'static str, String)]) -> io::Result<()> {
    let shelf = place.parent().ok_or(io::ErrorKind::InvalidInput)?;
    private_dir(shelf)?;
    let draft = shelf.join(DRAFT);
    remove(&draft)?;
    let written = write(&draft, files).and_then(|()| {
        remove(place)?;
        fs::rename(&draft, place)?;
        File::open(shelf)?.sync_all()
    });
    if written.is_err() {
        // On a full disk what is half written only takes room; why it is half written is the error to tell.
        let _ = remove(&draft);
    }
    written?;
    keep_newest(shelf)
}

/// Reads a file of a bundle; cut where it is longer than one can be.
pub fn read(path: &Path) -> io::Result<String> {
    let mut bytes = vec![];
    File::open(path)?.take(FILE_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn write(draft: &Path, files: &[(&'static str, String)]) -> io::Result<()> {
    private_dir(draft)?;
    for (name, content) in files {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft.join(name))?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
    }
    File::open(draft)?.sync_all()
}

fn private_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The age of a bundle is the number of its bump, whatever the clock says. What is not ours is left alone.
fn keep_newest(shelf: &Path) -> io::Result<()> {
    let mut bundles = vec![];
    for entry in fs::read_dir(shelf)? {
        let entry = entry?;
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.split_once('-')?.0.parse::<BumpId>().ok());
        bundles.extend(id.map(|id| (id, name, entry.path())));
    }
    bundles.sort();
    for (_, _, path) in &bundles[..bundles.len().saturating_sub(KEEP)] {
        remove(path)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_bundle_is_for_its_owner_alone_and_replaces_one_of_the_same_name() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("evidence/b000007-stuck");
        put(&place, &[("facts.json", "1".to_owned()), ("unit.log", "x".to_owned())]).unwrap();
        put(&place, &[("facts.json", "2".to_owned())]).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(place.parent().unwrap()), mode(&place), mode(&place.join("facts.json"))), (0o700, 0o700, 0o600));
        assert_eq!(read(&place.join("facts.json")).unwrap(), "2");
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
        assert_eq!(fs::read_dir(place.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_and_what_is_not_ours_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("notes"), "mine").unwrap();
        for n in 0..KEEP + 3 {
            put(&dir.path().join(format!("b{:06}-refused", 999_970 + n)), &[("facts.json", String::new())]).unwrap();
        }
        assert!(dir.path().join("notes").exists());
        assert!(!dir.path().join("b999972-refused").exists());
        assert!(dir.path().join("b999973-refused").exists() && dir.path().join("b1000022-refused").exists());
    }

    #[test]
    fn a_half_bundle_of_a_dead_agent_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(DRAFT)).unwrap();
        fs::write(dir.path().join(DRAFT).join("facts.json"), "half").unwrap();
        put(&dir.path().join("b000001-stuck"), &[("facts.json", "whole".to_owned())]).unwrap();
        assert!(!dir.path().join(DRAFT).exists());
    }
}
