//! What is kept of a user, for people: looked at without waiting for anybody, and without changing anything.

use std::path::PathBuf;

use super::archive::shelf::Shelf;
use super::custody::Custody;
use super::snapshot::{self, Verified};
use super::{StateError, Vault};
use crate::domain::{KeptId, UnixMs, UserName, Version};
use crate::worker::files::{Dir, remove_tree, survey};

/// Everything that is kept of one user.
#[derive(Debug, Clone, Default)]
pub struct Overview {
    /// Bytes on disk of all snapshots together.
    pub disk_bytes: u64,
    /// Oldest first.
    pub kept: Vec<KeptView>,
}

/// A snapshot, or salvage.
#[derive(Debug, Clone)]
pub struct KeptView {
    /// Its name.
    pub id: KeptId,
    /// The version whose data it is; unknown here for salvage.
    pub version: Option<Version>,
    /// The uid of the account that it was taken from, when it is known.
    pub uid: Option<u32>,
    /// Highest migration applied.
    pub migration_level: Option<u32>,
    /// When it was taken or set aside.
    pub created_ms: UnixMs,
    /// Bytes of its files as they were.
    pub bytes: u64,
    /// What the last reading of it showed.
    pub verified: Option<Verified>,
    /// Where it lies.
    pub path: PathBuf,
    /// Path and size of its files.
    pub files: Vec<(String, u64)>,
}

impl Vault {
    /// Users of whom something is kept.
    pub fn kept_users(&self) -> Result<Vec<UserName>, StateError> {
        let mut users = self.users_of("snapshots")?;
        users.extend(self.users_of("custody")?);
        users.sort();
        users.dedup();
        Ok(users)
    }

    /// What is kept of `user`.
    pub fn overview(&self, user: &UserName) -> Result<Overview, StateError> {
        let shelf = Shelf::look(self, user)?;
        let (all, broken) = snapshot::list(&shelf)?;
        let mut disk_bytes = shelf.bytes()?;
        let mut kept = Vec::new();
        for one in all {
            let snapshot = &one.snapshot;
            disk_bytes = disk_bytes.saturating_add(survey(&shelf.dir, snapshot.id.to_string()).bytes);
            kept.push(KeptView {
                id: KeptId::Snapshot(snapshot.id),
                version: Some(snapshot.version.clone()),
                uid: one.uid,
                migration_level: snapshot.migration_level,
                created_ms: snapshot.created_ms,
                bytes: snapshot.bytes,
                verified: one.verified(&shelf),
                path: snapshot.path.clone(),
                files: snapshot.entries.iter().map(|entry| (entry.path.clone(), entry.bytes)).collect(),
            });
        }
        for (id, why) in broken {
            kept.push(KeptView {
                id: KeptId::Snapshot(id),
                version: None,
                uid: None,
                migration_level: None,
                created_ms: 0,
                bytes: 0,
                verified: Some(Verified { at_ms: 0, wrong: Some(why) }),
                path: shelf.dir.path().join(id.to_string()),
                files: Vec::new(),
            });
        }
        for (bump, found) in self.noted_custodies(user)? {
            let Some((custody, manifest)) = found else { continue };
            for round in 1..=manifest.round {
                let Some(dir) = custody.salvage_if_there(round)? else { continue };
                let names: Vec<String> = dir.some_names(10_000)?.into_iter().filter_map(|name| name.into_string().ok()).collect();
                if names.is_empty() {
                    continue;
                }
                let seen = dir.seen()?;
                let files: Vec<(String, u64)> = names
                    .into_iter()
                    .map(|name| {
                        let bytes = survey(&dir, &name).bytes;
                        (name, bytes)
                    })
                    .collect();
                kept.push(KeptView {
                    id: KeptId::Salvage(bump, round),
                    version: None,
                    uid: Some(manifest.uid),
                    migration_level: None,
                    created_ms: i64::try_from(seen.mtime_ns / 1_000_000).unwrap_or_default(),
                    bytes: files.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes)),
                    verified: None,
                    path: dir.path().to_owned(),
                    files,
                });
            }
        }
        kept.sort_by_key(|one| one.created_ms);
        Ok(Overview { disk_bytes, kept })
    }

    /// Removes salvage by order, and custody if nothing else is in it.
    pub fn remove_salvage(&self, user: &UserName, bump: crate::domain::BumpId, round: u32) -> Result<u64, StateError> {
        let _lock = self.lock(user)?;
        let (custody, dir) = self.salvage_dir(user, bump, round)?;
        let name = dir.path().file_name().unwrap_or_default().to_owned();
        let bytes = survey(&Dir::open(custody.path())?, &name).bytes;
        remove_tree(&Dir::open(custody.path())?, &name)?;
        let phase = custody.read()?.map(|manifest| manifest.phase);
        if phase != Some(super::custody::Phase::Taken) && custody.is_bare()? {
            self.forget_custody(user, bump)?;
            custody.remove()?;
        }
        Ok(bytes)
    }

    /// The custody and the directory of some salvage.
    pub(super) fn salvage_dir(
        &self,
        user: &UserName,
        bump: crate::domain::BumpId,
        round: u32,
    ) -> Result<(Custody, Dir), StateError> {
        let missing = || StateError::Mismatch {
            path: self.root.join("custody").join(user.as_str()).join(bump.to_string()),
            why: format!("has no salvage {}", KeptId::Salvage(bump, round)),
        };
        let custody = self.noted_custody(user, bump)?.as_deref().map(Custody::open).transpose()?.flatten().ok_or_else(missing)?;
        let dir = custody.salvage_if_there(round)?.ok_or_else(missing)?;
        Ok((custody, dir))
    }
}
