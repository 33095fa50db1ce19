//! Custody: `<fs>/.t3pin/USER/BUMP/`, root's alone, where the originals lie while the new version runs on a copy.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::vault_dirs::{lasting_dir, own_uid, private, private_dir};
use super::{StateError, Vault};
use crate::domain::{BumpId, Place, SeedReport, SnapshotId, UnixMs, UserName, Version};
use crate::worker::files::{Dir, during, remove_tree};

/// Directory of all custody on a file system.
pub const TOP: &str = ".t3pin";
const MANIFEST: &str = "manifest.json";
const ORIGINAL: &str = "original";
const BUILDING: &str = "original.new";
const DISCARD: &str = "discard";

/// Where the originals are in their life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// They are being, or have been, taken into custody.
    Taken,
    /// They are back in `userdata/`.
    Restored,
    /// The bump is settled: the archive has them, custody need not.
    Settled,
}

/// One top-level entry of `userdata/` that custody takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// One of `STATE_ENTRIES`.
    pub name: String,
    /// Its inode, which a rename keeps: tells an original from what was put in its place.
    pub ino: u64,
}

/// What custody holds and whose it is; written, synced, before the first original is moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of this file: 2.
    pub format: u32,
    /// Whose data.
    pub user: UserName,
    /// Their uid.
    pub uid: u32,
    /// t3's base directory.
    pub base_dir: PathBuf,
    /// For which bump.
    pub bump: BumpId,
    /// The version that wrote the originals.
    pub version: Version,
    /// t3's own id of this server, when it had one.
    pub environment_id: Option<String>,
    /// When they were taken.
    pub created_ms: UnixMs,
    /// What was written after this (nanoseconds since the Unix epoch) is not the seed as the worker left it.
    pub seeded_ns: i64,
    /// What the copy was made from: every original as it lay.
    pub seed: SeedReport,
    /// The top-level entries.
    pub taken: Vec<Taken>,
    /// Which time the originals are in custody for this bump, from 1: a rollback to an archived snapshot is another round.
    pub round: u32,
    /// Where the originals are.
    pub phase: Phase,
    /// The snapshot that they were made from again, when they were: the archive has it, whatever becomes of custody.
    #[serde(default)]
    pub from_archive: Option<SnapshotId>,
    /// Whether the attachments move with the rest. Earlier versions of t3pin left them where they were, and so does what came from
    /// their snapshots.
    #[serde(default)]
    pub with_attachments: bool,
}

/// One bump's custody, open.
#[derive(Debug)]
pub struct Custody {
    dir: Dir,
}

impl Custody {
    /// Makes, or opens, the custody of `user` and `bump` below `top`. Every level must be root's alone.
    pub fn make(top: &Path, user: &UserName, bump: BumpId) -> Result<Self, StateError> {
        let all = lasting_dir(&Dir::open(top)?, TOP)?;
        let users = lasting_dir(&all, user.as_str())?;
        Ok(Self { dir: lasting_dir(&users, &bump.to_string())? })
    }

    /// The custody noted for this bump, with its manifest, when there is one. That it is noted but gone, or is another's, is
    /// [`StateError::Mismatch`].
    pub fn find(vault: &Vault, place: &Place, bump: BumpId) -> Result<Option<(Self, Manifest)>, StateError> {
        let user = &place.account.user;
        let Some(path) = vault.noted_custody(user, bump)? else { return Ok(None) };
        let found = Self::open(&path)?;
        let (custody, manifest) = match found.map(|custody| custody.read().map(|manifest| (custody, manifest))).transpose()? {
            Some((custody, Some(manifest))) => (custody, manifest),
            _ => {
                let archived = vault.root.join("snapshots").join(user.as_str()).join(bump.to_string());
                let why = format!(
                    "is gone, although the original data of {user} was put there; nothing was changed. Mount its file system or \
                     bring the directory back; if it is lost, {} (if there) is the verified copy",
                    archived.display()
                );
                return Err(StateError::Mismatch { path, why });
            }
        };
        let same = manifest.user == *user
            && manifest.bump == bump
            && manifest.uid == place.account.uid
            && manifest.base_dir == place.base_dir;
        if !same {
            let why =
                format!("holds the data of {} (uid {}), not of {user} (uid {})", manifest.user, manifest.uid, place.account.uid);
            return Err(StateError::Mismatch { path: custody.path().to_owned(), why });
        }
        Ok(Some((custody, manifest)))
    }

    /// Opens the custody at `path`, checking its three levels; `None` when it is not there.
    pub fn open(path: &Path) -> Result<Option<Self>, StateError> {
        let levels: Vec<&Path> = path.ancestors().take(4).collect();
        let [_, _, _, top] = levels.as_slice() else { return Ok(None) };
        let Ok(mut dir) = Dir::open(top) else { return Ok(None) };
        for name in path.strip_prefix(top).unwrap_or(Path::new("")).iter() {
            let Some(name) = name.to_str() else { return Ok(None) };
            let Some(below) = dir.dir_if_there(name)? else { return Ok(None) };
            dir = private(below)?;
        }
        Ok(Some(Self { dir }))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The manifest; `None` when there is none yet.
    pub fn read(&self) -> Result<Option<Manifest>, StateError> {
        let Some(content) = self.dir.read(MANIFEST, own_uid(), 4 << 20)? else { return Ok(None) };
        serde_json::from_slice(&content).map(Some).map_err(|error| StateError::Mismatch {
            path: self.path().join(MANIFEST),
            why: format!("cannot be read ({error}); the originals beside it are left alone"),
        })
    }

    /// Writes the manifest (synced, atomic).
    pub fn write(&self, manifest: &Manifest) -> Result<(), StateError> {
        let content = serde_json::to_vec_pretty(manifest).map_err(during(|| "writing custody's manifest".to_owned()))?;
        Ok(self.dir.write_synced(MANIFEST, &content)?)
    }

    /// The directory of the originals, made if missing; lasting once the manifest is written.
    pub fn original(&self) -> Result<Dir, StateError> {
        private_dir(&self.dir, ORIGINAL)
    }

    /// The directory of the originals, if there.
    pub fn original_if_there(&self) -> Result<Option<Dir>, StateError> {
        self.dir.dir_if_there(ORIGINAL)?.map(private).transpose()
    }

    /// An empty directory in which to build originals anew, see [`Custody::put_built`].
    pub fn building(&self) -> Result<Dir, StateError> {
        remove_tree(&self.dir, BUILDING)?;
        private_dir(&self.dir, BUILDING)
    }

    /// Removes what was begun to be built.
    pub fn remove_building(&self) -> Result<(), StateError> {
        Ok(remove_tree(&self.dir, BUILDING)?)
    }

    /// Makes what was built the originals. Earlier ones, which the archive holds, are removed.
    pub fn put_built(&self) -> Result<(), StateError> {
        self.remove_original()?;
        self.dir.move_to(BUILDING, &self.dir, ORIGINAL)?;
        Ok(self.dir.sync()?)
    }

    /// Removes the originals, which the archive holds.
    pub fn remove_original(&self) -> Result<(), StateError> {
        remove_tree(&self.dir, ORIGINAL)?;
        Ok(self.dir.sync()?)
    }

    /// The salvage directory of a round, made if missing. What several rounds set aside is never mixed: a database and its WAL
    /// belong together.
    pub fn salvage(&self, round: u32) -> Result<Dir, StateError> {
        lasting_dir(&self.dir, &salvage_name(round))
    }

    /// The salvage directory of a round, if there.
    pub fn salvage_if_there(&self, round: u32) -> Result<Option<Dir>, StateError> {
        self.dir.dir_if_there(&salvage_name(round))?.map(private).transpose()
    }

    /// Where copies that never ran wait for their removal, made if missing.
    pub fn discard(&self) -> Result<Dir, StateError> {
        private_dir(&self.dir, DISCARD)
    }

    /// Whether a restore of this round has moved anything of the copy out of the way.
    pub fn is_setting_aside(&self, round: u32) -> Result<bool, StateError> {
        for aside in [self.salvage_if_there(round)?, self.dir.dir_if_there(DISCARD)?] {
            if aside.map(|dir| dir.some_names(1)).transpose()?.is_some_and(|names| !names.is_empty()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes the copies that never ran.
    pub fn remove_discard(&self) -> Result<(), StateError> {
        Ok(remove_tree(&self.dir, DISCARD)?)
    }

    /// Whether nothing is in here that anybody could miss: no original, no salvage.
    pub fn is_bare(&self) -> Result<bool, StateError> {
        let empty = self.original_if_there()?.map(|dir| dir.some_names(1)).transpose()?.is_none_or(|names| names.is_empty());
        Ok(empty && self.dir.names(10_000)?.iter().all(|name| name == MANIFEST || name == ORIGINAL))
    }

    /// Removes a bare custody.
    pub fn remove(self) -> Result<(), StateError> {
        self.dir.remove_dir(ORIGINAL)?;
        self.dir.unlink(MANIFEST)?;
        if let Some((parent, name)) = self.path().parent().zip(self.path().file_name()) {
            Dir::open(parent)?.remove_dir(name)?;
        }
        Ok(())
    }
}

fn salvage_name(round: u32) -> String {
    if round <= 1 { "salvage".to_owned() } else { format!("salvage.{round}") }
}
