//! The originals into custody: from then on they are whole there, and the way back.
//!
//! Nothing here takes time in proportion to the data: the originals are renamed, and what they held is told by size and time of
//! the last change. Their content is read and archived later, while the new version runs ([`Vault::archive`]).

use std::time::SystemTime;

use super::custody::{Custody, Manifest, Phase, Taken};
use super::{StateError, Vault, holders, reach, restore, snapshot};
use crate::domain::{
    ATTACHMENTS, BumpId, EntryKind, Lying, Place, REBUILT, STATE_ENTRIES, SeedReport, Snapshot, UnixMs, Version, copied_entries,
};
use crate::worker::files::{Dir, FileError, Listing, lying};

/// Finishes what an earlier process began; `None` when nothing was begun (or it was undone since).
pub fn resume(vault: &Vault, place: &Place, bump: BumpId) -> Result<Option<(SeedReport, Snapshot)>, StateError> {
    let Some((custody, manifest)) = Custody::find(vault, place, bump)? else { return Ok(None) };
    match manifest.phase {
        Phase::Restored => Ok(None),
        Phase::Settled => {
            let why = format!("{bump} is settled already; its data must not be taken a second time");
            Err(StateError::Mismatch { path: custody.path().to_owned(), why })
        }
        Phase::Taken => {
            tracing::info!(T3PIN_USER = %place.account.user, T3PIN_BUMP = %bump, "going on where securing the data was interrupted");
            complete(vault, place, &custody, manifest).map(Some)
        }
    }
}

/// [`StateError::Held`] while a process that is not in the control group `server` (empty: any) and is no worker of `ours` has the
/// user's database open.
pub fn refuse_held(place: &Place, server: &str, ours: &[u32]) -> Result<(), StateError> {
    match reach::userdata(place)? {
        Some(userdata) => holders::refuse_held(&userdata, place.account.uid, server, ours),
        None => Ok(()),
    }
}

/// Makes custody's directories while the server still runs: making them lasting takes its time.
pub fn prepare(vault: &Vault, place: &Place, bump: BumpId) -> Result<(), StateError> {
    if vault.noted_custody(&place.account.user, bump)?.is_none() {
        Custody::make(&reach::custody_top(&reach::deepest(place)?)?, &place.account.user, bump)?.original()?;
    }
    Ok(())
}

/// Takes the originals that the worker just copied as `seed`.
pub fn begin(
    vault: &Vault,
    place: &Place,
    bump: BumpId,
    version: &Version,
    now_ms: UnixMs,
    seed: SeedReport,
) -> Result<(SeedReport, Snapshot), StateError> {
    let seeded_ns = now_ns();
    let userdata = reach::userdata(place)?;
    let taken = choose(place, userdata.as_ref(), &seed)?;
    let earlier = Custody::find(vault, place, bump)?;
    let custody = match &earlier {
        Some((custody, _)) => Custody::open(custody.path())?,
        None => None,
    };
    let custody = match custody {
        Some(custody) => {
            // What an earlier round made room with would be taken for a restore of this one.
            custody.remove_discard()?;
            custody
        }
        None => Custody::make(&reach::custody_top(&reach::deepest(place)?)?, &place.account.user, bump)?,
    };
    if !custody.original()?.some_names(1)?.is_empty() {
        let why = "holds data that nobody noted down (was /var/lib/t3pin emptied?); look at it and move it away".to_owned();
        return Err(StateError::Mismatch { path: custody.path().to_owned(), why });
    }
    let manifest = Manifest {
        format: 2,
        user: place.account.user.clone(),
        uid: place.account.uid,
        base_dir: place.base_dir.clone(),
        bump,
        version: version.clone(),
        environment_id: userdata.as_ref().map(|dir| environment_id(dir, place)).transpose()?.flatten(),
        created_ms: now_ms,
        seeded_ns,
        seed,
        taken,
        round: earlier.map_or(1, |(_, manifest)| manifest.round.saturating_add(1)),
        phase: Phase::Taken,
        from_archive: None,
        with_attachments: true,
    };
    custody.write(&manifest)?;
    vault.note_custody(&place.account.user, bump, custody.path())?;
    complete(vault, place, &custody, manifest)
}

/// From the noted manifest to custody that is whole; undone when it cannot be.
fn complete(vault: &Vault, place: &Place, custody: &Custody, manifest: Manifest) -> Result<(SeedReport, Snapshot), StateError> {
    let original = custody.original()?;
    let result = take(place, &original, &manifest)
        .and_then(|()| holders::refuse_held(&original, place.account.uid, "", &[]))
        .and_then(|()| refuse_changed(&original, &manifest));
    match result {
        Ok(()) => {
            let snapshot = snapshot::to_be(vault, &manifest);
            Ok((manifest.seed, snapshot))
        }
        Err(error) => {
            if let Err(undo) = restore::restore(vault, place, manifest.bump, false) {
                tracing::error!(
                    T3PIN_USER = %place.account.user, T3PIN_BUMP = %manifest.bump,
                    "securing failed ({error}), and so did putting the originals back: {undo}. They are in {}", custody.path().display()
                );
            }
            Err(error)
        }
    }
}

/// Nanoseconds since the Unix epoch.
fn now_ns() -> i64 {
    #[cfg(feature = "simulation")]
    if crate::simulated::is_on() {
        return crate::simulated::with(|world| world.now_ns());
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

/// [`StateError::Mismatch`] unless custody's `original` holds what was taken, unchanged since it was looked at before the switch.
pub fn refuse_changed(original: &Dir, manifest: &Manifest) -> Result<(), StateError> {
    let now = lying(original, &copied_entries(), manifest.uid)?;
    match difference(&manifest.seed.originals, &now) {
        None => Ok(()),
        Some(path) => Err(written_to(original, path)),
    }
}

/// As [`refuse_changed`], and every single one of the attachments is looked at, too: once nobody waits for their server.
pub fn refuse_changed_whole(original: &Dir, manifest: &Manifest) -> Result<(), StateError> {
    refuse_changed(original, manifest)?;
    let now = || Ok::<_, FileError>(Listing::of(original, ATTACHMENTS, manifest.uid)?.map(|listing| listing.summary()));
    if manifest.with_attachments && now()? != manifest.seed.attachments {
        return Err(written_to(original, ATTACHMENTS));
    }
    Ok(())
}

fn written_to(original: &Dir, path: &str) -> StateError {
    let why = "is not as it was when the copy for the new version was made from it: something wrote to it since".to_owned();
    StateError::Mismatch { path: original.path().join(path), why }
}

/// The first path at which two lists of the same entries differ.
fn difference<'l>(then: &'l [Lying], now: &'l [Lying]) -> Option<&'l str> {
    let lost = then.iter().find(|entry| !now.contains(entry));
    lost.or_else(|| now.iter().find(|entry| !then.contains(entry))).map(|entry| entry.path.as_str())
}

/// Renames every original that is not there yet into custody.
fn take(place: &Place, original: &Dir, manifest: &Manifest) -> Result<(), StateError> {
    let Some(userdata) = reach::userdata(place)? else {
        return match manifest.taken.iter().find(|taken| original.stat(&taken.name).ok().flatten().is_none()) {
            None => Ok(()),
            Some(taken) => Err(changed(place, &taken.name, "is gone")),
        };
    };
    let mut moved = false;
    for taken in &manifest.taken {
        let path = place.userdata().join(&taken.name);
        if let Some(there) = original.stat(&taken.name)? {
            if there.ino != taken.ino {
                let why = "is not the file that was taken into custody".to_owned();
                return Err(StateError::Mismatch { path: original.path().join(&taken.name), why });
            }
            continue;
        }
        let before = userdata.stat(&taken.name)?.ok_or_else(|| changed(place, &taken.name, "is gone"))?;
        before.check(&path, place.account.uid)?;
        if before.ino != taken.ino {
            return Err(changed(place, &taken.name, "was replaced"));
        }
        userdata.move_to(&taken.name, original, &taken.name)?;
        moved = true;
        // What counts is what arrived: the user may have exchanged it in between.
        let after = original.stat(&taken.name)?.ok_or_else(|| changed(place, &taken.name, "is gone"))?;
        let right = after.check(&path, place.account.uid);
        if right.is_err() || !after.is_same(&before) {
            original.move_to(&taken.name, &userdata, &taken.name)?;
            right?;
            return Err(changed(place, &taken.name, "was replaced"));
        }
    }
    let new = STATE_ENTRIES.iter().find(|name| userdata.stat(name).is_ok_and(|seen| seen.is_some()));
    if let (true, Some(name)) = (moved, new) {
        return Err(changed(place, name, "appeared"));
    }
    original.sync()?;
    userdata.sync()?;
    Ok(())
}

/// What there is to take: exactly what the worker copied, and the file that SQLite rebuilds.
fn choose(place: &Place, userdata: Option<&Dir>, seed: &SeedReport) -> Result<Vec<Taken>, StateError> {
    let now = userdata.map(|dir| lying(dir, &copied_entries(), place.account.uid)).transpose()?.unwrap_or_default();
    if let Some(path) = difference(&seed.originals, &now) {
        let (was, is) = (seed.originals.iter().any(|e| e.path == path), now.iter().any(|e| e.path == path));
        let what = if !is {
            "is gone"
        } else if !was {
            "appeared"
        } else {
            "was changed"
        };
        return Err(changed(place, path, what));
    }
    let mut taken: Vec<Taken> = now
        .iter()
        .filter(|entry| !entry.path.contains('/'))
        .map(|entry| Taken { name: entry.path.clone(), ino: entry.ino })
        .collect();
    if let Some((dir, seen)) = userdata.map(|dir| Ok::<_, FileError>((dir, dir.stat(REBUILT)?))).transpose()?
        && let Some(seen) = seen
    {
        let path = dir.path().join(REBUILT);
        if seen.check(&path, place.account.uid)? != EntryKind::File {
            return Err(FileError::bad(path, seen.what).into());
        }
        taken.push(Taken { name: REBUILT.to_owned(), ino: seen.ino });
    }
    Ok(taken)
}

fn changed(place: &Place, name: &str, what: &str) -> StateError {
    let why = format!("{what} while the server was stopped and its data was being copied; is something else running on it?");
    StateError::Mismatch { path: place.userdata().join(name), why }
}

/// t3's id of this server, if it looks like one (T3-CONTRACT section 2: a uuid).
fn environment_id(userdata: &Dir, place: &Place) -> Result<Option<String>, StateError> {
    let content = userdata.read("environment-id", place.account.uid, 4096)?.unwrap_or_default();
    let id = String::from_utf8(content).unwrap_or_default().trim().to_owned();
    let plain = !id.is_empty() && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    Ok(plain.then_some(id))
}
