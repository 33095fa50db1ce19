//! An archived snapshot into custody again, for a rollback after the bump was settled.

use super::custody::{Custody, Manifest, Phase, Taken};
use super::vault_dirs::own_uid;
use super::{StateError, Vault, reach, snapshot};
use crate::domain::{Place, STATE_ENTRIES, SeedMethod, SeedReport, Snapshot};
use crate::worker::files::{Deadline, copy_entries, dress, hash_file, lying, sync_tree};

/// See [`Vault::unarchive`].
pub fn unarchive(vault: &Vault, place: &Place, snapshot: &Snapshot, until: Deadline) -> Result<(), StateError> {
    let account = &place.account;
    let mismatch = |why: String| StateError::Mismatch { path: snapshot.path.clone(), why };
    let snapshot =
        snapshot::load(vault, &account.user, snapshot.id)?.filter(|found| found.user == snapshot.user).ok_or_else(|| {
            let why = format!("is no snapshot of {}; retention may have removed it (keep in section snapshots)", account.user);
            mismatch(why)
        })?;
    let noted = Custody::find(vault, place, snapshot.id)?;
    if noted.as_ref().is_some_and(|(_, manifest)| manifest.phase == Phase::Taken) {
        return Ok(());
    }
    refuse_other_environment(place, &snapshot, until)?;
    let round = noted.as_ref().map_or(1, |(_, manifest)| manifest.round.saturating_add(1));
    let environment_id = noted.as_ref().and_then(|(_, manifest)| manifest.environment_id.clone());
    let custody = match noted {
        Some((custody, _)) => custody,
        None => Custody::make(&reach::custody_top(&reach::deepest(place)?)?, &account.user, snapshot.id)?,
    };
    // Until the manifest says "taken" again, what lies in custody is nobody's original and is built anew by a repeat.
    let building = custody.building()?;
    let (entries, _) = copy_entries(&snapshot::content(vault, &snapshot)?, &STATE_ENTRIES, own_uid(), &building, until)?;
    refuse_rotten(&snapshot, &entries)?;
    sync_tree(&building, own_uid())?;
    dress(&building, &snapshot.entries, Some((account.uid, account.gid)))?;
    building.sync()?;
    custody.put_built()?;
    let original = custody.original()?;
    let mut taken = Vec::new();
    for name in STATE_ENTRIES {
        if let Some(seen) = original.stat(name)? {
            taken.push(Taken { name: name.to_owned(), ino: seen.ino });
        }
    }
    let seed = SeedReport {
        originals: lying(&original, &STATE_ENTRIES, account.uid)?,
        migration_level: snapshot.migration_level,
        bytes: snapshot.bytes,
        method: SeedMethod::Archive,
        late_bytes: 0,
        log: false,
    };
    custody.write(&Manifest {
        format: 2,
        user: account.user.clone(),
        uid: account.uid,
        base_dir: place.base_dir.clone(),
        bump: snapshot.id,
        version: snapshot.version.clone(),
        environment_id,
        created_ms: snapshot.created_ms,
        // Nothing in place is a copy of ours that never ran: whatever makes room is kept.
        seeded_ns: i64::MIN,
        seed,
        taken,
        round,
        phase: Phase::Taken,
    })?;
    vault.note_custody(&account.user, snapshot.id, custody.path())
}

/// A snapshot is never restored into another's state: t3's own id of the server must still be the one it was taken from.
fn refuse_other_environment(place: &Place, snapshot: &Snapshot, until: Deadline) -> Result<(), StateError> {
    const ID: &str = "environment-id";
    let Some(then) = snapshot.entries.iter().find(|entry| entry.path == ID) else { return Ok(()) };
    let Some(userdata) = reach::userdata(place)? else { return Ok(()) };
    let Some(seen) = userdata.stat(ID)? else { return Ok(()) };
    if seen.bytes != then.bytes || hash_file(&userdata, ID, place.account.uid, until)?.1 != then.blake3 {
        let why = format!("names another server than the one that snapshot {} was taken from; it is left alone", snapshot.id);
        return Err(StateError::Mismatch { path: userdata.path().join(ID), why });
    }
    Ok(())
}

/// What was copied must be what was taken, byte for byte. Modes are the archive's own.
fn refuse_rotten(snapshot: &Snapshot, copied: &[crate::domain::StateEntry]) -> Result<(), StateError> {
    let plain = |entries: &[crate::domain::StateEntry]| {
        let mut plain: Vec<_> = entries.iter().map(|entry| (entry.path.clone(), entry.kind, entry.blake3.clone())).collect();
        plain.sort_by(|a, b| a.0.cmp(&b.0));
        plain
    };
    if plain(&snapshot.entries) == plain(copied) {
        return Ok(());
    }
    let why = "does not have the content that was taken: the disk lost or changed it; it is not restored".to_owned();
    Err(StateError::Mismatch { path: snapshot.path.clone(), why })
}
