//! Removing a tree, sealed or half made.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, renameat, unlinkat};
use rustix::io::Errno;

use super::tree::{MAX_DEPTH, kind, names, open_directory, open_directory_at};

/// One descriptor is open per level. What lies deeper (no npm install, but somebody's trap) is first moved up.
const LEVELS: usize = 2 * MAX_DEPTH;

/// Removes `name` below `directory`, whatever it is and however deep. Links are removed, not followed. Missing is fine.
pub(super) fn remove(directory: &Path, name: &str) -> io::Result<()> {
    remove_at(open_directory(directory)?, CString::new(name)?)
}

/// The same below an open directory.
pub(super) fn remove_at(directory: OwnedFd, name: CString) -> io::Result<()> {
    let mut removal = Removal { top: directory, moved_up: 0, pending: vec![name] };
    while let Some(name) = removal.pending.pop() {
        let top = removal.top.try_clone()?;
        removal.entry(top.as_fd(), &name, 0)?;
    }
    Ok(())
}

struct Removal {
    top: OwnedFd,
    moved_up: usize,
    pending: Vec<CString>,
}

impl Removal {
    fn entry(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
        match kind(parent, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
            Ok(FileType::Directory) => {}
            Ok(_) => return forgive_missing(unlinkat(parent, name, AtFlags::empty())),
        }
        if depth > LEVELS {
            self.moved_up += 1;
            let free = CString::new(format!(".removing-{}-{}", std::process::id(), self.moved_up))?;
            renameat(parent, name, self.top.as_fd(), &free)?;
            self.pending.push(free);
            return Ok(());
        }
        let directory = open_directory_at(parent, name)?;
        for child in names(directory.as_fd(), usize::MAX)? {
            self.entry(directory.as_fd(), &child, depth + 1)?;
        }
        forgive_missing(unlinkat(parent, name, AtFlags::REMOVEDIR))
    }
}

fn forgive_missing(outcome: rustix::io::Result<()>) -> io::Result<()> {
    match outcome {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_tree_without_write_bits_is_removed_and_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("outside")).unwrap();
        fs::write(root.path().join("outside/precious"), "x").unwrap();
        let tree = root.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/file"), "x").unwrap();
        symlink("../../outside", tree.join("a/link")).unwrap();
        for directory in ["a/b", "a", ""] {
            fs::set_permissions(tree.join(directory), fs::Permissions::from_mode(0o555)).unwrap();
        }
        remove(root.path(), "tree").unwrap();
        assert!(!tree.exists());
        assert!(root.path().join("outside/precious").exists());
        remove(root.path(), "tree").unwrap();
    }

    #[test]
    fn no_depth_protects_a_tree_from_being_removed() {
        let root = tempfile::tempdir().unwrap();
        let mut deepest = open_directory(root.path()).unwrap();
        for _ in 0..600 {
            rustix::fs::mkdirat(&deepest, "d", rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
            deepest = open_directory_at(&deepest, "d").unwrap();
        }
        remove(root.path(), "d").unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
