//! The bump is settled: the archive alone keeps the original from now on.

use super::custody::{Custody, Manifest, Phase};
use super::{StateError, Vault, snapshot};
use crate::domain::{BumpId, Place};
use crate::worker::files::Deadline;

/// See [`Vault::archive`].
pub fn archive(vault: &Vault, place: &Place, bump: BumpId, until: Deadline) -> Result<(), StateError> {
    let user = &place.account.user;
    let Some((custody, manifest)) = Custody::find(vault, place, bump)? else {
        let path = vault.root.join("custody").join(user.as_str()).join(bump.to_string());
        return Err(StateError::Mismatch { path, why: format!("nothing of {user}'s is in custody for {bump}") });
    };
    match manifest.phase {
        Phase::Restored => return Ok(()),
        Phase::Settled => {}
        Phase::Taken => {
            let lacking = |why: &str| StateError::Mismatch { path: custody.path().to_owned(), why: why.to_owned() };
            let original = custody.original_if_there()?.ok_or_else(|| lacking("has lost its original"))?;
            let snapshot = snapshot::make(vault, &manifest, &original, until)?;
            snapshot::verify(vault, &snapshot, until)?;
            // Noted first: a half-removed original must never be taken for a whole one.
            custody.write(&Manifest { phase: Phase::Settled, ..manifest })?;
        }
    }
    custody.remove_original()?;
    custody.remove_building()?;
    custody.remove_discard()
}
