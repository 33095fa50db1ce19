//! The store on disk: what is installed, and cleaning up what never became usable.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::manifest::Marker;
use super::remove::remove;
use super::{Installed, Store};
use crate::domain::Version;

impl Store {
    /// The store below `root` (`/var/lib/t3pin`); makes the directories if they are missing. Directories that others than
    /// their owner may write, or that are links, are refused.
    pub fn open(root: &Path) -> io::Result<Self> {
        let store = Self { root: root.to_owned() };
        for directory in [root.to_owned(), store.versions(), store.staging(), store.bindings()] {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(&directory)?;
            let found = fs::symlink_metadata(&directory)?;
            if !found.is_dir() || found.mode() & 0o022 != 0 || found.uid() != rustix::process::geteuid().as_raw() {
                let why = format!("{} has to be a directory of root that nobody else may write", directory.display());
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
            }
        }
        Ok(store)
    }

    /// All usable versions, sorted.
    pub fn list(&self) -> io::Result<Vec<Installed>> {
        let mut found = Vec::new();
        for name in names(&self.versions())? {
            if let Ok(version) = name.parse::<Version>() {
                found.extend(self.get(&version)?);
            }
        }
        found.sort_by(|a, b| a.version.cmp(&b.version));
        Ok(found)
    }

    /// A usable version.
    pub fn get(&self, version: &Version) -> io::Result<Option<Installed>> {
        let path = self.path(version);
        Ok(Marker::read(&path)?.filter(|marker| marker.version == *version).map(|marker| Installed {
            version: marker.version,
            path,
            bytes: marker.bytes,
            sealed_ms: marker.sealed_ms,
            integrity: marker.integrity,
        }))
    }

    /// The CLI of a version, `/var/lib/t3pin/versions/V/bin/t3`.
    pub fn cli(&self, version: &Version) -> PathBuf {
        self.path(version).join("bin/t3")
    }

    /// Removes what a dead install left in `staging/` and versions without `ok` marker. To be called before any install
    /// runs, and after the units [`super::UNIT_PREFIX`] are stopped. A version without marker that some user is bound to
    /// stays where it is: a server may be running from it.
    pub fn clean_half_made(&self) -> io::Result<()> {
        for name in names(&self.staging())? {
            tracing::info!(version = name, "removing a half-made install");
            remove(&self.staging(), &name)?;
        }
        let bound = self.bound()?;
        for name in names(&self.versions())? {
            let Ok(version) = name.parse::<Version>() else { continue };
            if self.get(&version)?.is_some() {
                continue;
            }
            if bound.contains(&version) {
                tracing::warn!(%version, "this version is not usable (no ok marker), but users are bound to it; it is left alone");
                continue;
            }
            tracing::info!(%version, "removing a version without ok marker");
            remove(&self.versions(), &name)?;
        }
        Ok(())
    }

    /// Where `version` lies or would lie.
    pub(super) fn path(&self, version: &Version) -> PathBuf {
        self.versions().join(version.to_string())
    }

    pub(super) fn versions(&self) -> PathBuf {
        self.root.join("versions")
    }

    pub(super) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    pub(super) fn bindings(&self) -> PathBuf {
        self.root.join("bindings")
    }
}

/// Names in one of the store's directories; one that is no UTF-8 is none of ours.
pub(super) fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub(super) mod tests {
    use super::*;

    /// A version as `install` leaves it, only smaller.
    pub(in crate::versions) fn put(store: &Store, version: &str) -> Version {
        let version: Version = version.parse().unwrap();
        fs::create_dir_all(store.path(&version).join("bin")).unwrap();
        let marker = Marker {
            version: version.clone(),
            integrity: "sha512-x".to_owned(),
            bytes: 7,
            sealed_ms: 1,
            manifest_blake3: String::new(),
        };
        marker.write(&store.path(&version)).unwrap();
        version
    }

    fn store() -> (tempfile::TempDir, Store) {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("t3pin")).unwrap();
        (root, store)
    }

    #[test]
    fn only_versions_with_their_own_marker_are_usable() {
        let (_root, store) = store();
        let good = put(&store, "0.0.25");
        put(&store, "0.0.24");
        let half: Version = "0.0.26".parse().unwrap();
        fs::create_dir_all(store.path(&half)).unwrap();
        let torn: Version = "0.0.27".parse().unwrap();
        fs::create_dir_all(store.path(&torn)).unwrap();
        fs::write(store.path(&torn).join("ok"), "{\"version\":").unwrap();
        let copied: Version = "0.0.28".parse().unwrap();
        fs::create_dir_all(store.path(&copied)).unwrap();
        fs::copy(store.path(&good).join("ok"), store.path(&copied).join("ok")).unwrap();
        let listed: Vec<String> = store.list().unwrap().iter().map(|i| i.version.to_string()).collect();
        assert_eq!(listed, ["0.0.24", "0.0.25"]);
        assert_eq!(store.get(&half).unwrap(), None);
        assert_eq!(store.get(&torn).unwrap(), None);
        assert_eq!(store.get(&copied).unwrap(), None);
    }

    #[test]
    fn cleaning_removes_what_is_half_made_and_nothing_else() {
        let (_root, store) = store();
        let good = put(&store, "0.0.25");
        let half: Version = "0.0.26".parse().unwrap();
        let bound: Version = put(&store, "0.0.27");
        store.bind(&"alice".parse().unwrap(), &bound).unwrap();
        fs::create_dir_all(store.path(&half).join("node_modules")).unwrap();
        fs::create_dir_all(store.staging().join("0.0.28/tree")).unwrap();
        fs::write(store.versions().join("README"), "of the operator").unwrap();
        fs::remove_file(store.path(&bound).join("ok")).unwrap();
        store.clean_half_made().unwrap();
        store.clean_half_made().unwrap();
        assert!(store.get(&good).unwrap().is_some());
        assert!(!store.path(&half).exists());
        assert!(store.path(&bound).exists(), "a server may run from it");
        assert!(store.versions().join("README").exists());
        assert!(names(&store.staging()).unwrap().is_empty());
    }

    #[test]
    fn a_store_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_root, store) = store();
        fs::set_permissions(store.versions(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Store::open(&store.root).is_err());
    }
}
