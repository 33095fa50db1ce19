//! The originals back by rename, from any half-way point.
//!
//! Order: what lies in `userdata/` aside, synced; the originals back, the database last, so that where the database is the
//! original everything is; synced; then noted. Nothing is ever renamed over anything. A repeat starts from what it finds.

use super::custody::{Custody, Manifest, Phase, TOP};
use super::{REREAD, StateError, Vault, reach, unarchive};
use crate::domain::{ATTACHMENTS, BumpId, Place, REBUILT, STATE_ENTRIES, Salvage};
use crate::worker::files::{Deadline, Dir, survey};

const DATABASE: &str = "state.sqlite";

/// Makes custody's originals from the archive, where only that has them: what takes long of [`restore`]. Says whether it did: then the new
/// version has run, and what it wrote is kept.
pub fn fetch(vault: &Vault, place: &Place, bump: BumpId) -> Result<bool, StateError> {
    let archived = match Custody::find(vault, place, bump)? {
        Some((_, manifest)) => manifest.phase == Phase::Settled,
        None => vault.user_dir("snapshots", &place.account.user)?.stat(bump.to_string())?.is_some(),
    };
    // Settled: going back to the old version on what lies there now would break promise 3. Or settled as far as custody knows: the
    // bump may not have learned of it, when archiving failed on its last steps.
    if archived {
        unarchive::unarchive(vault, place, bump, bump, Deadline::after(REREAD))?;
    }
    Ok(archived)
}

/// See [`Vault::restore`].
pub fn restore(vault: &Vault, place: &Place, bump: BumpId, keep_salvage: bool) -> Result<Option<Salvage>, StateError> {
    let fetched = fetch(vault, place, bump)?;
    let Some((custody, manifest)) = Custody::find(vault, place, bump)? else { return Ok(None) };
    if manifest.phase == Phase::Restored {
        return salvage(&custody, manifest.round);
    }
    let original = custody.original()?;
    let userdata = match reach::userdata(place)? {
        None if manifest.taken.is_empty() => None,
        None => Some(reach::userdata_made(place)?),
        Some(dir) => Some(dir),
    };
    if let Some(userdata) = userdata {
        refuse_lost(&userdata, &original, &manifest)?;
        set_aside(&custody, &manifest, &userdata, &original, keep_salvage || fetched)?;
        bring_back(&userdata, &original, &manifest)?;
    }
    custody.write(&Manifest { phase: Phase::Restored, ..manifest.clone() })?;
    let salvage = salvage(&custody, manifest.round)?;
    tracing::info!(
        T3PIN_USER = %place.account.user, T3PIN_BUMP = %bump, T3PIN_VERSION = %manifest.version,
        "the data as {} left it is back in place; set aside: {}", manifest.version,
        salvage.as_ref().map_or_else(|| "nothing".to_owned(), |s| format!("{} bytes in {}", s.bytes, s.path.display()))
    );
    Ok(salvage)
}

/// See [`Vault::clear_away`].
pub fn clear_away(vault: &Vault, place: &Place, bump: BumpId) -> Result<(), StateError> {
    match Custody::find(vault, place, bump)? {
        Some((custody, manifest)) if manifest.phase == Phase::Restored => custody.remove_discard(),
        Some(_) => Ok(()),
        // Directories that were only made in advance.
        None => {
            let path =
                reach::custody_top(&reach::deepest(place)?)?.join(TOP).join(place.account.user.as_str()).join(bump.to_string());
            match Custody::open(&path)? {
                Some(custody) if custody.is_bare()? => custody.remove(),
                _ => Ok(()),
            }
        }
    }
}

/// Before anything is changed: every original is in custody or in its place. The database in place must be the very file
/// that was taken: running the old version on another would break promise 3.
fn refuse_lost(userdata: &Dir, original: &Dir, manifest: &Manifest) -> Result<(), StateError> {
    let taken = |name: &str| manifest.taken.iter().find(|taken| taken.name == name);
    let database_in_place = match taken(DATABASE) {
        Some(database) => userdata.stat(DATABASE)?.is_some_and(|seen| seen.ino == database.ino),
        None => false,
    };
    for taken in &manifest.taken {
        let lost = |why: &str| {
            let why = format!(
                "{why}; nothing was changed. The snapshot {} of {} (if complete) holds a verified copy",
                manifest.bump, manifest.user
            );
            StateError::Mismatch { path: original.path().join(&taken.name), why }
        };
        match (original.stat(&taken.name)?, userdata.stat(&taken.name)?) {
            (Some(kept), _) if kept.ino == taken.ino => {}
            (Some(_), _) => return Err(lost("is not the file that was put there")),
            (None, Some(_)) if taken.name == DATABASE && !database_in_place => {
                return Err(lost("is gone, and what lies in its place is not the original"));
            }
            (None, Some(_)) => {}
            // Somebody opened and closed the original database where it belongs: SQLite took its sidecars away.
            (None, None) if taken.name.starts_with(DATABASE) && database_in_place => {}
            // What SQLite rebuilds by itself, and nobody syncs, may be gone after a power cut.
            (None, None) if taken.name == REBUILT => {}
            (None, None) => return Err(lost("is gone")),
        }
    }
    Ok(())
}

/// Moves out of the way what is not an original: into salvage, or, when the new version never ran and it shows, to where it
/// is removed afterwards.
fn set_aside(custody: &Custody, manifest: &Manifest, userdata: &Dir, original: &Dir, keep: bool) -> Result<(), StateError> {
    let mut names = Vec::new();
    for name in STATE_ENTRIES.into_iter().filter(|name| manifest.with_attachments || *name != ATTACHMENTS) {
        let Some(there) = userdata.stat(name)? else { continue };
        let is_original = match manifest.taken.iter().find(|taken| taken.name == name) {
            Some(taken) => taken.ino == there.ino || original.stat(name)?.is_none(),
            None => false,
        };
        if !is_original {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Ok(());
    }
    let was_written = || names.iter().any(|name| survey(userdata, name).newest_ns > i128::from(manifest.seeded_ns));
    let aside = if keep || was_written() { custody.salvage(manifest.round)? } else { custody.discard()? };
    for name in names {
        let free = free_name(&aside, name)?;
        userdata.move_to(name, &aside, &free)?;
    }
    aside.sync()?;
    Ok(userdata.sync()?)
}

/// `name`, or `name.2`, `name.3`... when something was set aside under it before.
fn free_name(dir: &Dir, name: &str) -> Result<String, StateError> {
    let mut free = name.to_owned();
    let mut n = 2;
    while dir.stat(&free)?.is_some() {
        free = format!("{name}.{n}");
        n += 1;
    }
    Ok(free)
}

fn bring_back(userdata: &Dir, original: &Dir, manifest: &Manifest) -> Result<(), StateError> {
    let mut order: Vec<&str> = manifest.taken.iter().map(|taken| taken.name.as_str()).collect();
    order.sort_by_key(|name| *name == DATABASE);
    for name in order {
        if original.stat(name)?.is_some() {
            original.move_to(name, userdata, name)?;
        }
    }
    userdata.sync()?;
    Ok(original.sync()?)
}

/// What lies in a round's salvage.
fn salvage(custody: &Custody, round: u32) -> Result<Option<Salvage>, StateError> {
    let Some(dir) = custody.salvage_if_there(round)? else { return Ok(None) };
    let names = dir.some_names(10_000)?;
    if names.is_empty() {
        return Ok(None);
    }
    let counted = names.iter().filter(|name| *name != ATTACHMENTS);
    let bytes = counted.fold(0u64, |sum, name| sum.saturating_add(survey(&dir, name).bytes));
    Ok(Some(Salvage { path: dir.path().to_owned(), bytes }))
}
