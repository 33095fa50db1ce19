//! Bindings: which installed version an instance runs, one symlink per user, switched atomically.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{AtFlags, fsync, renameat, symlinkat, unlinkat};
use rustix::io::Errno;

use super::Store;
use super::store::names;
use super::tree::open_directory;
use crate::domain::{UserName, Version};

/// What a binding begins with; relative, so that the store can be looked at from elsewhere (a backup, a chroot).
const TO_VERSIONS: &str = "../versions/";

impl Store {
    /// The version `user` is bound to: where `bindings/USER` points.
    pub fn binding(&self, user: &UserName) -> io::Result<Option<Version>> {
        let path = self.bindings().join(user.as_str());
        match std::fs::read_link(&path) {
            Ok(target) => parse(&target).map(Some).ok_or_else(|| {
                let why = format!("{} points to {}, which is no version of the store", path.display(), target.display());
                io::Error::new(io::ErrorKind::InvalidData, why)
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Points `bindings/USER` to `version` (relative symlink, renamed over the old one, directory synced). Refuses a version
    /// that is not usable. Repeating it is fine.
    pub fn bind(&self, user: &UserName, version: &Version) -> io::Result<()> {
        if self.get(version)?.is_none() {
            let why = format!("t3 {version} is not in the version store, so {user} cannot be bound to it");
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        let directory = open_directory(&self.bindings())?;
        // A user name never begins with a dot, so this is nobody's binding.
        let temporary = format!(".{user}.new");
        match unlinkat(directory.as_fd(), &temporary, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        symlinkat(format!("{TO_VERSIONS}{version}"), directory.as_fd(), &temporary)?;
        renameat(directory.as_fd(), &temporary, directory.as_fd(), user.as_str())?;
        Ok(fsync(directory.as_fd())?)
    }

    /// Users that are bound to some version, or to what is none any more.
    pub fn bound_users(&self) -> io::Result<Vec<UserName>> {
        Ok(names(&self.bindings())?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Versions that somebody is bound to.
    pub(super) fn bound(&self) -> io::Result<BTreeSet<Version>> {
        let links = names(&self.bindings())?;
        Ok(links
            .iter()
            .filter_map(|name| std::fs::read_link(self.bindings().join(name)).ok())
            .filter_map(|target| parse(&target))
            .collect())
    }
}

fn parse(target: &Path) -> Option<Version> {
    target.to_str()?.strip_prefix(TO_VERSIONS)?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::super::store::tests::put;
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("t3pin")).unwrap();
        (root, store)
    }

    #[test]
    fn a_binding_moves_between_usable_versions_and_stays_when_repeated() {
        let (_root, store) = store();
        let (a, b) = (put(&store, "0.0.24"), put(&store, "0.0.25"));
        let user: UserName = "alice".parse().unwrap();
        assert_eq!(store.binding(&user).unwrap(), None);
        for version in [&a, &b, &b, &a] {
            store.bind(&user, version).unwrap();
            assert_eq!(store.binding(&user).unwrap().as_ref(), Some(version));
            assert!(store.bindings().join("alice/bin").is_dir(), "the link leads to the version");
        }
        assert_eq!(names(&store.bindings()).unwrap(), ["alice"]);
    }

    #[test]
    fn binding_to_an_unusable_version_is_refused_and_changes_nothing() {
        let (_root, store) = store();
        let a = put(&store, "0.0.24");
        let user: UserName = "alice".parse().unwrap();
        store.bind(&user, &a).unwrap();
        let error = store.bind(&user, &"0.0.25".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("0.0.25"), "{error}");
        assert_eq!(store.binding(&user).unwrap(), Some(a));
    }

    #[test]
    fn a_crash_between_link_and_rename_does_not_block_the_next_bind() {
        let (_root, store) = store();
        let a = put(&store, "0.0.24");
        std::os::unix::fs::symlink("../versions/0.0.1", store.bindings().join(".alice.new")).unwrap();
        store.bind(&"alice".parse().unwrap(), &a).unwrap();
        assert_eq!(names(&store.bindings()).unwrap(), ["alice"]);
    }

    #[test]
    fn a_binding_that_leads_elsewhere_is_an_error_and_not_a_version() {
        let (_root, store) = store();
        let user: UserName = "alice".parse().unwrap();
        for target in ["/usr", "../versions/../../etc", "../versions/latest"] {
            let link = store.bindings().join("alice");
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(target, &link).unwrap();
            assert!(store.binding(&user).is_err(), "{target}");
        }
    }
}
