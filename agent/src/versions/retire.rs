//! Retiring a version: out of the store, and its room given back.

use std::io;
use std::path::PathBuf;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::Store;
use super::manifest::{Entry, Marker, read_manifest};
use super::remove::remove;
use super::running::running_from;
use super::share;
use super::tree::sync_directory;
use crate::domain::{UserName, Version};

/// How a version went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retired {
    /// It is gone.
    Gone {
        /// Bytes on disk that it alone had.
        freed: u64,
    },
    /// It is still used and stays, with the reason for people.
    Needed(String),
    /// There is no such version.
    Missing,
}

impl Store {
    /// Removes `version`, unless somebody is bound to it or a process runs from it. After a crash it is either there as it was, or
    /// on its way out in `staging/`, from where [`Store::clean_half_made`] removes it.
    pub fn retire(&self, version: &Version) -> io::Result<Retired> {
        let place = self.path(version);
        if self.get(version)?.is_none() {
            return Ok(Retired::Missing);
        }
        if self.bound()?.contains(version) {
            return Ok(Retired::Needed("users are bound to it".to_owned()));
        }
        if let Some(process) = running_from(&place.canonicalize()?)? {
            return Ok(Retired::Needed(format!("{process} runs from it")));
        }
        let freed = share::own_bytes(&place)?;
        let gone = format!("retired-{version}");
        remove(&self.staging(), &gone)?;
        renameat_with(CWD, &place, CWD, self.staging().join(&gone), RenameFlags::NOREPLACE)?;
        sync_directory(&self.versions())?;
        remove(&self.staging(), &gone)?;
        Ok(Retired::Gone { freed })
    }

    /// Who is bound to what, of everybody who has a binding.
    pub fn all_bindings(&self) -> io::Result<Vec<(UserName, Version)>> {
        let mut all = Vec::new();
        for name in super::store::names(&self.bindings())? {
            let Ok(user) = name.parse::<UserName>() else { continue };
            all.extend(self.binding(&user)?.map(|version| (user, version)));
        }
        Ok(all)
    }

    /// Shares the files of the sealed `tree`, still in staging, with those of the installed versions. That it cannot be done costs
    /// room and is no reason not to install.
    pub(super) fn share(&self, version: &Version, tree: &std::path::Path, entries: &[Entry]) {
        let shared = self.sealed_manifests().and_then(|others| {
            let others: Vec<_> = others.iter().map(|(path, entries)| (path.as_path(), entries.as_slice())).collect();
            share::share(tree, entries, &others, &self.staging().join(version.to_string()))
        });
        match shared {
            Ok(bytes) => tracing::info!(%version, "t3 {version} shares {} MB with other installed versions", bytes / 1_000_000),
            Err(error) => tracing::warn!(%version, "t3 {version} takes its whole size, its files could not be shared: {error}"),
        }
    }

    /// The trees of all usable versions with what is in them, newest first: most of a version is as in the one before.
    fn sealed_manifests(&self) -> io::Result<Vec<(PathBuf, Vec<Entry>)>> {
        let mut found = Vec::new();
        for installed in self.list()?.into_iter().rev() {
            let Some(marker) = Marker::read(&installed.path)? else { continue };
            found.extend(read_manifest(&installed.path, &marker)?.map(|entries| (installed.path, entries)));
        }
        Ok(found)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::super::store::tests::put;
    use super::*;

    #[test]
    fn a_version_goes_only_when_nobody_is_bound_to_it_and_nothing_runs_from_it() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("t3pin")).unwrap();
        let (a, b) = (put(&store, "0.0.24"), put(&store, "0.0.25"));
        let user: UserName = "alice".parse().unwrap();
        store.bind(&user, &b).unwrap();
        assert_eq!(store.all_bindings().unwrap(), [(user, b.clone())]);
        assert!(matches!(store.retire(&b).unwrap(), Retired::Needed(why) if why.contains("bound")));
        let mut child = std::process::Command::new("cat")
            .current_dir(store.path(&a).join("bin"))
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let while_it_runs = store.retire(&a).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(while_it_runs, Retired::Needed(why) if why.contains("pid")));
        std::fs::write(store.path(&a).join("file"), [7; 100_000]).unwrap();
        assert!(matches!(store.retire(&a).unwrap(), Retired::Gone { freed } if freed >= 100_000));
        assert_eq!(store.retire(&a).unwrap(), Retired::Missing);
        assert_eq!(super::super::store::names(&store.staging()).unwrap().len(), 0);
        assert!(store.get(&b).unwrap().is_some());
    }

    #[test]
    fn a_version_that_was_half_way_out_is_removed_at_the_next_start() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("t3pin")).unwrap();
        let a = put(&store, "0.0.24");
        std::fs::rename(store.path(&a), store.staging().join("retired-0.0.24")).unwrap();
        store.clean_half_made().unwrap();
        assert_eq!(super::super::store::names(&store.staging()).unwrap().len(), 0);
    }
}
