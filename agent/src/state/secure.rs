//! The originals into custody, and the snapshot from there.

use std::time::SystemTime;

use super::custody::{Custody, Manifest, Phase, Taken};
use super::{StateError, Vault, holders, reach, restore, snapshot};
use crate::domain::{BumpId, EntryKind, Place, STATE_ENTRIES, SeedReport, Snapshot, UnixMs, Version};
use crate::worker::files::{Deadline, Dir, FileError};

/// What SQLite rebuilds by itself: taken into custody, but neither copied nor hashed.
pub const REBUILT: &str = "state.sqlite-shm";

/// Finishes what an earlier process began; `None` when nothing was begun (or it was undone since).
pub fn resume(vault: &Vault, place: &Place, bump: BumpId, until: Deadline) -> Result<Option<(SeedReport, Snapshot)>, StateError> {
    let Some((custody, manifest)) = Custody::find(vault, place, bump)? else { return Ok(None) };
    match manifest.phase {
        Phase::Restored => Ok(None),
        Phase::Settled => {
            let why = format!("{bump} is settled already; its data must not be taken a second time");
            Err(StateError::Mismatch { path: custody.path().to_owned(), why })
        }
        Phase::Taken => {
            tracing::info!(T3PIN_USER = %place.account.user, T3PIN_BUMP = %bump, "going on where securing the data was interrupted");
            complete(vault, place, &custody, manifest, until).map(Some)
        }
    }
}

/// [`StateError::Held`] while a process that is not in the control group `server` (empty: any) has the user's database open.
pub fn refuse_held(place: &Place, server: &str) -> Result<(), StateError> {
    match reach::userdata(place)? {
        Some(userdata) => holders::refuse_held(&userdata, place.account.uid, server),
        None => Ok(()),
    }
}

/// Takes the originals that the worker just copied as `seed`.
pub fn begin(
    vault: &Vault,
    place: &Place,
    bump: BumpId,
    version: &Version,
    now_ms: UnixMs,
    seed: SeedReport,
    until: Deadline,
) -> Result<(SeedReport, Snapshot), StateError> {
    let seeded_ns = now_ns();
    refuse_absurd(&seed)?;
    let userdata = reach::userdata(place)?;
    let taken = choose(place, userdata.as_ref(), &seed)?;
    let earlier = Custody::find(vault, place, bump)?;
    let custody = match &earlier {
        Some((custody, _)) => Custody::open(custody.path())?,
        None => None,
    };
    let custody = match custody {
        Some(custody) => custody,
        None => Custody::make(&reach::custody_top(&reach::deepest(place)?)?, &place.account.user, bump)?,
    };
    if !custody.original()?.some_names(1)?.is_empty() {
        let why = "holds data that nobody noted down (was /var/lib/t3pin emptied?); look at it and move it away".to_owned();
        return Err(StateError::Mismatch { path: custody.path().to_owned(), why });
    }
    let manifest = Manifest {
        format: 1,
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
    };
    custody.write(&manifest)?;
    vault.note_custody(&place.account.user, bump, custody.path())?;
    complete(vault, place, &custody, manifest, until)
}

/// From the noted manifest to the finished snapshot; undone when it cannot be.
fn complete(
    vault: &Vault,
    place: &Place,
    custody: &Custody,
    manifest: Manifest,
    until: Deadline,
) -> Result<(SeedReport, Snapshot), StateError> {
    let original = custody.original()?;
    let result = take(place, &original, &manifest)
        .and_then(|()| holders::refuse_held(&original, place.account.uid, ""))
        .and_then(|()| snapshot::make(vault, &manifest, &original, until));
    match result {
        Ok(snapshot) => Ok((manifest.seed, snapshot)),
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
    let mut taken = Vec::new();
    for name in STATE_ENTRIES {
        let copied = seed.originals.iter().find(|entry| entry.path == name);
        let there = userdata.map(|dir| dir.stat(name)).transpose()?.flatten();
        match (copied, there) {
            (None, None) => {}
            (Some(_), None) => return Err(changed(place, name, "is gone")),
            (None, Some(_)) if name != REBUILT => return Err(changed(place, name, "appeared")),
            (copied, Some(seen)) => {
                let path = place.userdata().join(name);
                let kind = seen.check(&path, place.account.uid)?;
                if kind != copied.map_or(EntryKind::File, |entry| entry.kind) {
                    return Err(FileError::bad(path, seen.what).into());
                }
                taken.push(Taken { name: name.to_owned(), ino: seen.ino });
            }
        }
    }
    Ok(taken)
}

fn changed(place: &Place, name: &str, what: &str) -> StateError {
    let why = format!("{what} while the server was stopped and its data was being copied; is something else running on it?");
    StateError::Mismatch { path: place.userdata().join(name), why }
}

/// The worker's word is the user's: refuses a report that no right worker gives.
fn refuse_absurd(seed: &SeedReport) -> Result<(), StateError> {
    let plain = |path: &str| path.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'));
    let known = |path: &str| STATE_ENTRIES.iter().any(|name| path.split('/').next() == Some(name));
    let hashed = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut seen = std::collections::BTreeSet::new();
    for entry in &seed.originals {
        let hash_fits = if entry.kind == EntryKind::File { hashed(&entry.blake3) } else { entry.blake3.is_empty() };
        if !plain(&entry.path) || !known(&entry.path) || !hash_fits || !seen.insert(&entry.path) {
            let why = "is not what a copy of a user's state consists of; the worker's report is not believed".to_owned();
            return Err(StateError::Mismatch { path: entry.path.chars().take(100).collect::<String>().into(), why });
        }
    }
    Ok(())
}

/// t3's id of this server, if it looks like one (T3-CONTRACT section 2: a uuid).
fn environment_id(userdata: &Dir, place: &Place) -> Result<Option<String>, StateError> {
    let content = userdata.read("environment-id", place.account.uid, 4096)?.unwrap_or_default();
    let id = String::from_utf8(content).unwrap_or_default().trim().to_owned();
    let plain = !id.is_empty() && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    Ok(plain.then_some(id))
}
