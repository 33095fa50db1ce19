//! Which snapshots may go.

use std::time::Duration;

use super::archive::keep::{self, recipe};
use super::archive::shelf::{GONE, Shelf};
use super::archive::sweep::sweep;
use super::custody::{Custody, Phase};
use super::snapshot::{self, Kept};
use super::{StateError, Vault};
use crate::domain::{BumpId, Snapshot, SnapshotId, UserName, Version};
use crate::kill_point::{self, Point};
use crate::worker::files::{Deadline, remove_tree};

/// How long snapshots are kept, for each user. The newest always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// At most this many.
    pub keep: usize,
    /// Not longer than this.
    pub max_age: Option<Duration>,
    /// Not more than this on disk.
    pub max_bytes: Option<u64>,
}

/// See [`Vault::retain`].
pub fn retain(
    vault: &Vault,
    user: &UserName,
    retention: Retention,
    until: Deadline,
) -> Result<Vec<(Snapshot, String)>, StateError> {
    let shelf = Shelf::open(vault, user)?;
    let (all, broken) = snapshot::list(&shelf)?;
    for (id, why) in broken {
        tracing::warn!(T3PIN_USER = %user, "snapshot {id} is left alone, its manifest cannot be read: {why}");
    }
    let mut removed = Vec::new();
    let mut newest_is_whole = false;
    for (at, kept) in all.iter().enumerate() {
        // Counted are those that are left, not those that were asked for: custody may still count on one.
        let left = all.len() - removed.len();
        let too_many = (left > retention.keep.max(1)).then(|| format!("{} newer ones are kept", left - 1));
        let too_old = retention
            .max_age
            .filter(|age| is_older(kept, *age))
            .map(|age| format!("it is older than {} days", age.as_secs() / 86_400));
        let bytes = if too_many.is_none() && too_old.is_none() { shelf.bytes()? } else { 0 };
        let too_big = retention
            .max_bytes
            .filter(|most| bytes > *most)
            .map(|most| format!("the archive of {user} takes {} MB, and {} MB are allowed", bytes / 1_000_000, most / 1_000_000));
        let (Some(why), true) = (too_many.or(too_old).or(too_big), at + 1 < all.len()) else { continue };
        if !newest_is_whole {
            refuse_damaged(&shelf, all.last(), until)?;
            newest_is_whole = true;
        }
        if forget(vault, &shelf, kept.snapshot.id)? {
            tracing::info!(T3PIN_USER = %user, "snapshot {} of {} is removed: {why}", kept.snapshot.id, kept.snapshot.version);
            removed.push((kept.snapshot.clone(), why));
            if retention.max_bytes.is_some() {
                tidy(&shelf, until)?;
            }
        }
    }
    tidy(&shelf, until)?;
    kill_point::reach(Some(user), Point::Amid("swept"));
    Ok(removed)
}

/// Removes one snapshot by order; not the only whole one, and not one that custody counts on.
pub fn remove(vault: &Vault, user: &UserName, id: SnapshotId, until: Deadline) -> Result<u64, StateError> {
    let shelf = Shelf::open(vault, user)?;
    let (all, _) = snapshot::list(&shelf)?;
    let refuse = |why: &str| StateError::Mismatch { path: shelf.dir.path().join(id.to_string()), why: why.to_owned() };
    if shelf.dir.stat(id.to_string())?.is_none() {
        return Err(refuse("is not there"));
    }
    let others: Vec<Kept> = all.into_iter().filter(|kept| kept.snapshot.id != id).collect();
    let whole = keep::verify(&shelf, &others, until, |_, _| ())?.iter().any(Option::is_none);
    if !whole {
        return Err(refuse("is the last snapshot of this user that is whole, and stays"));
    }
    let before = shelf.bytes()?;
    if !forget(vault, &shelf, id)? {
        return Err(refuse("is still counted on by custody, and stays"));
    }
    tidy(&shelf, until)?;
    Ok(before.saturating_sub(shelf.bytes()?))
}

fn is_older(kept: &Kept, age: Duration) -> bool {
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    snapshot::now_ms().saturating_sub(kept.snapshot.created_ms) > age_ms
}

/// Nothing old goes while the newest cannot take its place.
fn refuse_damaged(shelf: &Shelf, newest: Option<&Kept>, until: Deadline) -> Result<(), StateError> {
    let Some(newest) = newest else { return Ok(()) };
    match keep::verify(shelf, std::slice::from_ref(newest), until, |_, _| ())?.into_iter().flatten().next() {
        None => Ok(()),
        Some(why) => {
            let why = format!("the newest snapshot is damaged ({why}), so no older one is removed");
            Err(StateError::Mismatch { path: newest.snapshot.path.clone(), why })
        }
    }
}

/// Takes one snapshot out of the archive, and custody's empty shell; not while custody still has the originals. Says whether it did.
fn forget(vault: &Vault, shelf: &Shelf, id: SnapshotId) -> Result<bool, StateError> {
    let noted = vault.noted_custody(&shelf.user, id)?;
    let custody = noted.as_deref().map(Custody::open).transpose()?.flatten();
    let manifest = custody.as_ref().map(Custody::read).transpose()?.flatten();
    if noted.is_some() && manifest.as_ref().is_none_or(|manifest| manifest.phase == Phase::Taken) {
        return Ok(false);
    }
    let gone = format!("{id}{GONE}");
    shelf.dir.move_to(&id.to_string(), &shelf.dir, &gone)?;
    shelf.dir.sync()?;
    kill_point::reach(Some(&shelf.user), Point::Amid("retired"));
    remove_tree(&shelf.dir, &gone)?;
    kill_point::reach(Some(&shelf.user), Point::Amid("forgotten"));
    if let Some(custody) = custody
        && custody.is_bare()?
    {
        // The note goes first: a noted custody that is not there counts as a disaster.
        vault.forget_custody(&shelf.user, id)?;
        custody.remove()?;
    }
    Ok(true)
}

/// Gives the room of pages back that nobody needs. While any snapshot cannot be read, what it needs is not known and all stays.
fn tidy(shelf: &Shelf, until: Deadline) -> Result<(), StateError> {
    let (all, broken) = snapshot::list(shelf)?;
    let mut recipes = Vec::new();
    for kept in all.iter().filter(|kept| kept.pages_digest.is_some()) {
        match recipe(shelf, kept) {
            Ok(recipe) => recipes.push((kept.dir(shelf)?, recipe)),
            Err(error) => {
                tracing::warn!(T3PIN_USER = %shelf.user, "no room is given back in the archive: {error}");
                return Ok(());
            }
        }
    }
    if broken.is_empty() { sweep(shelf, recipes, until) } else { Ok(()) }
}

impl Vault {
    /// The bumps whose originals lie in custody, and whose they are; last, whether they are only a copy that was made from the archive.
    pub fn waiting_in_custody(&self) -> Result<Vec<(UserName, BumpId, bool)>, StateError> {
        let mut waiting = Vec::new();
        for user in self.users_of("custody")? {
            let found = self.noted_custodies(&user)?.into_iter().filter_map(|(bump, found)| Some((bump, found?.1)));
            let taken = found.filter(|(_, manifest)| manifest.phase == Phase::Taken);
            waiting.extend(taken.map(|(bump, manifest)| (user.clone(), bump, manifest.from_archive.is_some())));
        }
        Ok(waiting)
    }

    /// The versions that snapshots and originals in custody belong to, and what each is needed by: without it, they could not be
    /// brought back.
    pub fn needed_versions(&self) -> Result<Vec<(Version, String)>, StateError> {
        let mut needed = Vec::new();
        for user in self.users_of("snapshots")? {
            let (all, broken) = snapshot::list(&Shelf::look(self, &user)?)?;
            if let Some((id, why)) = broken.into_iter().next() {
                let path = self.root.join("snapshots").join(user.as_str()).join(id.to_string());
                return Err(StateError::Mismatch { path, why });
            }
            needed
                .extend(all.into_iter().map(|kept| (kept.snapshot.version, format!("snapshot {} of {user}", kept.snapshot.id))));
        }
        for user in self.users_of("custody")? {
            for (bump, found) in self.noted_custodies(&user)? {
                match found {
                    Some((_, manifest)) if manifest.phase != Phase::Taken => {}
                    Some((_, manifest)) => {
                        needed.push((manifest.version, format!("the original data of {user} ({bump})")));
                    }
                    None => {
                        let path = self.root.join("custody").join(user.as_str()).join(bump.to_string());
                        return Err(StateError::Mismatch { path, why: "notes custody that cannot be found".to_owned() });
                    }
                }
            }
        }
        Ok(needed)
    }
}
