//! Which snapshots there are, and which may go.

use super::custody::{Custody, Phase};
use super::{StateError, Vault, snapshot};
use crate::domain::{BumpId, Snapshot, UserName};
use crate::worker::files::{Deadline, Dir, remove_tree};

/// A snapshot on its way out has this behind its name: half removed, it must not be taken for one.
const GONE: &str = ".gone";

/// See [`Vault::snapshots`].
pub fn list(vault: &Vault, user: &UserName) -> Result<Vec<Snapshot>, StateError> {
    let mut found = Vec::new();
    for name in vault.user_dir("snapshots", user)?.names(100_000)? {
        let Ok(id) = name.parse::<BumpId>() else { continue };
        match snapshot::load(vault, user, id) {
            Ok(snapshot) => found.extend(snapshot),
            Err(error) => tracing::warn!(T3PIN_USER = %user, "snapshot {id} is left out, it cannot be read: {error}"),
        }
    }
    // Not by time: a clock that was set back would make the newest snapshot the first to go.
    found.sort_by_key(|snapshot| snapshot.id);
    Ok(found)
}

/// See [`Vault::retain`].
pub fn retain(vault: &Vault, user: &UserName, keep: usize, until: Deadline) -> Result<Vec<Snapshot>, StateError> {
    let dir = vault.user_dir("snapshots", user)?;
    for name in dir.names(100_000)?.iter().filter(|name| name.ends_with(GONE)) {
        remove_tree(&dir, name)?;
    }
    let mut old = list(vault, user)?;
    let Some(newest) = old.last() else { return Ok(Vec::new()) };
    if old.len() <= keep.max(1) {
        return Ok(Vec::new());
    }
    snapshot::verify(vault, newest, until)?;
    old.truncate(old.len() - keep.max(1));
    let mut removed = Vec::new();
    for snapshot in old {
        if forget(vault, &dir, user, snapshot.id)? {
            tracing::info!(T3PIN_USER = %user, "snapshot {} of {} is removed: {keep} newer ones are kept", snapshot.id, snapshot.version);
            removed.push(snapshot);
        }
    }
    Ok(removed)
}

/// Removes one snapshot, and custody's empty shell; not while custody still has the originals. Says whether it did.
fn forget(vault: &Vault, dir: &Dir, user: &UserName, id: BumpId) -> Result<bool, StateError> {
    let noted = vault.noted_custody(user, id)?;
    let custody = noted.as_deref().map(Custody::open).transpose()?.flatten();
    let manifest = custody.as_ref().map(Custody::read).transpose()?.flatten();
    if noted.is_some() && manifest.as_ref().is_none_or(|manifest| manifest.phase == Phase::Taken) {
        return Ok(false);
    }
    let gone = format!("{id}{GONE}");
    dir.move_to(&id.to_string(), dir, &gone)?;
    dir.sync()?;
    remove_tree(dir, &gone)?;
    if let Some(custody) = custody
        && custody.is_bare()?
    {
        // The note goes first: a noted custody that is not there counts as a disaster.
        vault.forget_custody(user, id)?;
        custody.remove()?;
    }
    Ok(true)
}
