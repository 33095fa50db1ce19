//! What is written down of a snapshot: `snapshots/USER/BUMP/manifest.json`, root's alone.
//!
//! Its content lies beside it: a `recipe` of pages that all snapshots of the user share ([`super::archive`]), or, as earlier
//! versions of t3pin left it, the files themselves in `userdata/` ([`super::archive::raw`]).

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::archive::shelf::Shelf;
use super::custody::Manifest;
use super::vault_dirs::{own_uid, private};
use super::{StateError, Vault};
use crate::domain::{Snapshot, SnapshotId, UnixMs};
use crate::worker::files::{Dir, during};

const MANIFEST: &str = "manifest.json";
const VERIFIED: &str = "verified.json";
const MAX_MANIFEST: u64 = 64 << 20;

/// A snapshot as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// What it is.
    #[serde(flatten)]
    pub snapshot: Snapshot,
    /// The user's id, when it is known: a name can be given to another person.
    #[serde(default)]
    pub uid: Option<u32>,
    /// t3's own id of the server that it was taken from.
    #[serde(default)]
    pub environment_id: Option<String>,
    /// The digest of all its pages; `None` for the files of earlier versions of t3pin.
    #[serde(default)]
    pub pages_digest: Option<String>,
    /// Whether the attachments of the time are in it, if there were any; not in those of earlier versions of t3pin.
    #[serde(default)]
    pub with_attachments: bool,
}

/// When a snapshot was last read from end to end, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// When.
    pub at_ms: UnixMs,
    /// What was wrong with it.
    pub wrong: Option<String>,
}

/// Snapshots whose manifest cannot be read, with the reason.
pub type Broken = Vec<(SnapshotId, String)>;

/// What the snapshot of a bump will be, once its custody is archived.
pub fn to_be(vault: &Vault, manifest: &Manifest) -> Snapshot {
    let id = manifest.from_archive.unwrap_or(manifest.bump);
    Snapshot {
        id,
        user: manifest.user.clone(),
        version: manifest.version.clone(),
        migration_level: manifest.seed.migration_level,
        created_ms: manifest.created_ms,
        bytes: manifest.seed.originals.iter().map(|entry| entry.bytes).sum::<u64>()
            + manifest.seed.attachments.as_ref().map_or(0, |all| all.bytes),
        path: vault.root.join("snapshots").join(manifest.user.as_str()).join(id.to_string()),
        entries: Vec::new(),
    }
}

impl Kept {
    /// Writes it into the snapshot's directory (synced).
    pub fn write(&self, dir: &Dir) -> Result<(), StateError> {
        let json = serde_json::to_vec(self).map_err(during(|| "writing the snapshot's manifest".to_owned()))?;
        Ok(dir.write_synced(MANIFEST, &json)?)
    }

    /// Its directory.
    pub fn dir(&self, shelf: &Shelf) -> Result<Dir, StateError> {
        private(shelf.dir.dir(self.snapshot.id.to_string())?)
    }

    /// Notes what reading it has shown. That this cannot be noted is no reason to distrust the snapshot.
    pub fn note_verified(&self, shelf: &Shelf, wrong: Option<&str>) {
        let verified = Verified { at_ms: now_ms(), wrong: wrong.map(str::to_owned) };
        let noted = self.dir(shelf).and_then(|dir| {
            let json = serde_json::to_vec(&verified).map_err(during(|| "noting a verification".to_owned()))?;
            Ok(dir.write_synced(VERIFIED, &json)?)
        });
        if let Err(error) = noted {
            tracing::warn!(T3PIN_USER = %shelf.user, "that snapshot {} was verified could not be noted: {error}", self.snapshot.id);
        }
    }

    /// When it was last verified.
    pub fn verified(&self, shelf: &Shelf) -> Option<Verified> {
        let content = self.dir(shelf).ok()?.read(VERIFIED, own_uid(), 65_536).ok()??;
        serde_json::from_slice(&content).ok()
    }
}

/// The snapshot `id`; `None` when there is none. What its manifest says of its place and name is not believed.
pub fn load(shelf: &Shelf, id: SnapshotId) -> Result<Option<Kept>, StateError> {
    let Some(dir) = shelf.dir.dir_if_there(&id.to_string())? else { return Ok(None) };
    let dir = private(dir)?;
    let mismatch = |why: String| StateError::Mismatch { path: dir.path().join(MANIFEST), why };
    let content = dir.read(MANIFEST, own_uid(), MAX_MANIFEST)?.ok_or_else(|| mismatch("is missing".to_owned()))?;
    let mut kept: Kept = serde_json::from_slice(&content).map_err(|error| mismatch(format!("cannot be read: {error}")))?;
    if kept.snapshot.user != shelf.user || kept.snapshot.id != id {
        let (whose, named) = (&kept.snapshot.user, kept.snapshot.id);
        return Err(mismatch(format!("is that of {named} of {whose}, not of {id} of {}", shelf.user)));
    }
    kept.snapshot.path = dir.path().to_owned();
    Ok(Some(kept))
}

/// All snapshots, oldest first, and those whose manifest cannot be read, with the reason.
pub fn list(shelf: &Shelf) -> Result<(Vec<Kept>, Broken), StateError> {
    let (mut found, mut broken) = (Vec::new(), Vec::new());
    for name in shelf.dir.names(100_000)? {
        let Ok(id) = name.parse::<SnapshotId>() else { continue };
        match load(shelf, id) {
            Ok(kept) => found.extend(kept),
            Err(error) => broken.push((id, error.to_string())),
        }
    }
    // Not by time: a clock that was set back would make the newest snapshot the first to go.
    found.sort_by_key(|kept| kept.snapshot.id);
    Ok((found, broken))
}

/// The time, ms since the epoch.
pub fn now_ms() -> UnixMs {
    #[cfg(feature = "simulation")]
    if crate::simulated::is_on() {
        return crate::simulated::with(|world| world.now_ns()) / 1_000_000;
    }
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMs::try_from(since.as_millis()).unwrap_or(UnixMs::MAX)
}
