//! A snapshot on disk: `snapshots/USER/BUMP/{manifest.json,userdata/}`, root's alone.

use super::custody::Manifest;
use super::secure::refuse_changed;
use super::vault_dirs::{own_uid, private, private_dir};
use super::{StateError, Vault};
use crate::domain::{EntryKind, Snapshot, SnapshotId, UserName, copied_entries};
use crate::worker::files::{Deadline, Dir, copy_entries, during, hash_file, remove_tree, sync_tree};

const MANIFEST: &str = "manifest.json";
/// The entries lie in here.
pub const CONTENT: &str = "userdata";

/// What the snapshot of a bump will be, once its custody is archived.
pub fn to_be(vault: &Vault, manifest: &Manifest) -> Snapshot {
    Snapshot {
        id: manifest.bump,
        user: manifest.user.clone(),
        version: manifest.version.clone(),
        migration_level: manifest.seed.migration_level,
        created_ms: manifest.created_ms,
        bytes: manifest.seed.originals.iter().map(|entry| entry.bytes).sum(),
        path: vault.root.join("snapshots").join(manifest.user.as_str()).join(manifest.bump.to_string()),
        entries: Vec::new(),
    }
}

/// Copies the originals in custody into the archive, having seen before and after that they are what was taken, and returns the
/// finished, synced snapshot. One that is there already is kept when it holds the same, else exchanged.
pub fn make(vault: &Vault, manifest: &Manifest, original: &Dir, until: Deadline) -> Result<Snapshot, StateError> {
    let user_dir = vault.user_dir("snapshots", &manifest.user)?;
    let (name, draft) = (manifest.bump.to_string(), draft_name(manifest.bump));
    remove_tree(&user_dir, &draft)?;
    refuse_changed(original, manifest)?;
    if let Some(there) = load(vault, &manifest.user, manifest.bump)?
        && holds(&there, original, manifest, until)?
        && verify(vault, &there, until).is_ok()
    {
        return Ok(there);
    }
    let made = private_dir(&user_dir, &draft)?;
    let content = private_dir(&made, CONTENT)?;
    let (entries, _) = copy_entries(original, &copied_entries(), manifest.uid, &content, until)?;
    refuse_changed(original, manifest)?;
    let snapshot = Snapshot { entries, ..to_be(vault, manifest) };
    let json = serde_json::to_vec_pretty(&snapshot).map_err(during(|| "writing the snapshot's manifest".to_owned()))?;
    sync_tree(&content, own_uid())?;
    made.write_synced(MANIFEST, &json)?;
    if user_dir.stat(&name)?.is_some() {
        user_dir.exchange(&draft, &name)?;
        user_dir.sync()?;
        remove_tree(&user_dir, &draft)?;
    } else {
        user_dir.move_to(&draft, &user_dir, &name)?;
        user_dir.sync()?;
    }
    Ok(snapshot)
}

/// Removes what an interrupted [`make`] left.
pub fn remove_draft(vault: &Vault, user: &UserName, id: SnapshotId) -> Result<(), StateError> {
    Ok(remove_tree(&vault.user_dir("snapshots", user)?, draft_name(id))?)
}

/// The snapshot `id` of `user`; `None` when there is none. What its manifest says of its place and name is not believed.
pub fn load(vault: &Vault, user: &UserName, id: SnapshotId) -> Result<Option<Snapshot>, StateError> {
    let user_dir = vault.user_dir("snapshots", user)?;
    let Some(dir) = user_dir.dir_if_there(&id.to_string())? else { return Ok(None) };
    let dir = private(dir)?;
    let mismatch = |why: String| StateError::Mismatch { path: dir.path().join(MANIFEST), why };
    let content = dir.read(MANIFEST, own_uid(), 4 << 20)?.ok_or_else(|| mismatch("is missing".to_owned()))?;
    let snapshot: Snapshot = serde_json::from_slice(&content).map_err(|error| mismatch(format!("cannot be read: {error}")))?;
    if snapshot.user != *user || snapshot.id != id {
        return Err(mismatch(format!("is that of {} of {}, not of {id} of {user}", snapshot.id, snapshot.user)));
    }
    Ok(Some(Snapshot { path: dir.path().to_owned(), ..snapshot }))
}

/// Re-reads every byte of a snapshot: [`StateError::Mismatch`] unless it is whole.
pub fn verify(vault: &Vault, snapshot: &Snapshot, until: Deadline) -> Result<(), StateError> {
    let content = content(vault, snapshot)?;
    for entry in &snapshot.entries {
        let broken = |why: &str| StateError::Mismatch { path: content.path().join(&entry.path), why: why.to_owned() };
        let (holder, name) = content.holder(&entry.path).map_err(|error| broken(&error.to_string()))?;
        let seen = holder.stat(name)?.ok_or_else(|| broken("is missing from the snapshot"))?;
        if seen.kind != Some(entry.kind) {
            return Err(broken("is not what the snapshot's manifest says"));
        }
        if entry.kind == EntryKind::File && hash_file(&holder, name, own_uid(), until)? != (entry.bytes, entry.blake3.clone()) {
            return Err(broken("does not have the content that was taken: the disk lost or changed it"));
        }
    }
    Ok(())
}

/// The directory of a snapshot's entries.
pub fn content(vault: &Vault, snapshot: &Snapshot) -> Result<Dir, StateError> {
    let dir = vault.user_dir("snapshots", &snapshot.user)?.dir(snapshot.id.to_string())?;
    private(private(dir)?.dir(CONTENT)?)
}

/// Whether a finished snapshot holds the very content of `original`: an archive that was broken off may be repeated.
fn holds(snapshot: &Snapshot, original: &Dir, manifest: &Manifest, until: Deadline) -> Result<bool, StateError> {
    if snapshot.version != manifest.version || snapshot.entries.len() != manifest.seed.originals.len() {
        return Ok(false);
    }
    for lying in &manifest.seed.originals {
        let Some(entry) = snapshot.entries.iter().find(|entry| entry.path == lying.path && entry.kind == lying.kind) else {
            return Ok(false);
        };
        let (holder, name) = original.holder(&lying.path)?;
        let same = entry.kind == EntryKind::Directory
            || (entry.bytes == lying.bytes && hash_file(&holder, name, manifest.uid, until)?.1 == entry.blake3);
        if !same || entry.mode != lying.mode {
            return Ok(false);
        }
    }
    Ok(true)
}

fn draft_name(id: SnapshotId) -> String {
    format!("{id}.tmp")
}
