//! An archived snapshot into custody again, for a rollback after the bump was settled and for a restore.

use super::archive::keep;
use super::archive::shelf::Shelf;
use super::custody::{Custody, Manifest, Phase, Taken};
use super::snapshot::{self, Kept};
use super::{StateError, Vault, preflight, reach};
use crate::domain::{ATTACHMENTS, BumpId, Place, STATE_ENTRIES, SeedMethod, SeedReport, SnapshotId};
use crate::worker::files::{Deadline, Listing, dress, hash_file, lying, sync_tree};

/// See [`Vault::unarchive`].
pub fn unarchive(vault: &Vault, place: &Place, id: SnapshotId, bump: BumpId, until: Deadline) -> Result<(), StateError> {
    let account = &place.account;
    let noted = Custody::find(vault, place, bump)?;
    // In custody; or back in place, where the old version may have worked on it since: bringing it back once more would set
    // that work aside.
    let there = |manifest: &Manifest| match manifest.phase {
        Phase::Taken => true,
        Phase::Restored => manifest.from_archive == Some(id),
        Phase::Settled => false,
    };
    if noted.as_ref().is_some_and(|(_, manifest)| there(manifest)) {
        return Ok(());
    }
    let shelf = Shelf::open(vault, &account.user)?;
    let kept = snapshot::load(&shelf, id)?.ok_or_else(|| {
        let why =
            format!("is no snapshot of {}; retention may have removed it (section snapshots of the settings)", account.user);
        StateError::Mismatch { path: shelf.dir.path().join(id.to_string()), why }
    })?;
    refuse_others(place, &kept, until)?;
    let round = noted.as_ref().map_or(1, |(_, manifest)| manifest.round.saturating_add(1));
    let deepest = reach::deepest(place)?;
    let top = reach::custody_top(&deepest)?;
    preflight::refuse_full(&deepest, &top, kept.snapshot.bytes.saturating_add(preflight::SLACK))?;
    let custody = match noted {
        Some((custody, _)) => custody,
        None => Custody::make(&top, &account.user, bump)?,
    };
    // Until the manifest says "taken" again, what lies in custody is nobody's original and is built anew by a repeat.
    let building = custody.building()?;
    if let Err(error) = keep::unpack(&shelf, &kept, |_| true, &building, until) {
        custody.remove_building()?;
        return Err(error);
    }
    let snapshot = &kept.snapshot;
    // Synced after they were given away: else a power cut leaves the user files that belong to root.
    dress(&building, &snapshot.entries, Some((account.uid, account.gid)))?;
    sync_tree(&building, account.uid)?;
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
        attachments: Listing::of(&original, ATTACHMENTS, account.uid)?.map(|listing| listing.summary()),
    };
    custody.write(&Manifest {
        format: 2,
        user: account.user.clone(),
        uid: account.uid,
        base_dir: place.base_dir.clone(),
        bump,
        version: snapshot.version.clone(),
        environment_id: kept.environment_id.clone(),
        created_ms: snapshot.created_ms,
        // Nothing in place is a copy of ours that never ran: whatever makes room is kept.
        seeded_ns: i64::MIN,
        seed,
        taken,
        round,
        phase: Phase::Taken,
        from_archive: Some(id),
        with_attachments: kept.with_attachments,
    })?;
    vault.note_custody(&account.user, bump, custody.path())
}

/// A snapshot is never restored into another's state: it must have been taken from an account with this uid, and t3's own id of
/// the server must still be the one that it was taken with.
fn refuse_others(place: &Place, kept: &Kept, until: Deadline) -> Result<(), StateError> {
    const ID: &str = "environment-id";
    let (snapshot, account) = (&kept.snapshot, &place.account);
    if let Some(uid) = kept.uid.filter(|uid| *uid != account.uid) {
        let why =
            format!("was taken from uid {uid}; {} is uid {} now, another account of the same name", account.user, account.uid);
        return Err(StateError::Mismatch { path: snapshot.path.clone(), why });
    }
    let Some(then) = snapshot.entries.iter().find(|entry| entry.path == ID) else { return Ok(()) };
    let Some(userdata) = reach::userdata(place)? else { return Ok(()) };
    let Some(seen) = userdata.stat(ID)? else { return Ok(()) };
    if seen.bytes != then.bytes || hash_file(&userdata, ID, account.uid, until)?.1 != then.blake3 {
        let why = format!("names another server than the one that snapshot {} was taken from; it is left alone", snapshot.id);
        return Err(StateError::Mismatch { path: userdata.path().join(ID), why });
    }
    Ok(())
}
