//! Removing a work directory.

use std::path::Path;

use super::work_copy::{is_there, split};
use crate::worker::files::{Dir, FileError, remove_tree};
use crate::worker::protocol::TaskError;

/// See [`crate::worker::Task::Discard`]. The `.t3pin` above it goes too when nothing else is in it.
pub fn discard(path: &Path) -> Result<(), TaskError> {
    let (parent, name) = split(path)?;
    if parent.file_name().is_none_or(|name| name != ".t3pin") || matches!(name, "." | "..") {
        return Err(FileError::bad(path, "is not a work directory of t3pin's").into());
    }
    if !is_there(parent)? {
        return Ok(());
    }
    let dir = Dir::open(parent)?;
    remove_tree(&dir, name)?;
    if dir.some_names(1)?.is_empty() {
        // Somebody else may put something there in between: then it stays.
        if let Some((above, name)) = parent.parent().zip(parent.file_name()) {
            Dir::open(above)?.remove_dir(name).ok();
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::worker::tasks::stage::{UID, as_user};

    #[test]
    fn only_work_directories_go_whatever_they_hold_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(UID), Some(UID)).unwrap();
        as_user(|| {
            let work = dir.path().join(".t3pin/b000001");
            let precious = dir.path().join("precious");
            fs::create_dir_all(work.join("home/shut")).unwrap();
            fs::create_dir(&precious).unwrap();
            fs::write(precious.join("file"), b"mine").unwrap();
            symlink(&precious, work.join("link")).unwrap();
            fs::write(work.join("home/shut/file"), b"x").unwrap();
            fs::write(work.join(std::ffi::OsStr::from_bytes(b"not \xff utf-8")), b"x").unwrap();
            fs::set_permissions(work.join("home/shut"), fs::Permissions::from_mode(0o000)).unwrap();
            discard(&work).unwrap();
            discard(&work).unwrap();
            assert!(!dir.path().join(".t3pin").exists());
            assert_eq!(fs::read(precious.join("file")).unwrap(), b"mine");
            assert!(discard(&precious).is_err() && discard(&work.join("..")).is_err());
        });
    }
}
