//! The archive: what becomes of the originals once a bump is settled.
//!
//! All snapshots of a user share one store of pages ([`pack`]); a snapshot is a list of them ([`recipe`]). Only bytes are read
//! and written here: root never opens a user's database. What is written is read back before the original is let go.

pub mod check;
pub mod fetch;
pub mod keep;
pub mod pack;
pub mod put;
pub mod raw;
pub mod recipe;
pub mod shelf;
pub mod sweep;
#[cfg(test)]
mod tests;

use self::shelf::Shelf;
use super::custody::{self, Custody, Manifest, Phase};
use super::{StateError, Vault, reach, snapshot};
use crate::domain::{BumpId, Place};
use crate::worker::files::Deadline;

/// See [`Vault::archive`].
pub fn archive(vault: &Vault, place: &Place, bump: BumpId, until: Deadline) -> Result<(), StateError> {
    let user = &place.account.user;
    let shelf = Shelf::open(vault, user)?;
    let Some((custody, manifest)) = Custody::find(vault, place, bump)? else {
        if snapshot::load(&shelf, bump)?.is_some() {
            return drop_begun(place, bump);
        }
        let path = vault.root.join("custody").join(user.as_str()).join(bump.to_string());
        return Err(StateError::Mismatch { path, why: format!("nothing of {user}'s is in custody for {bump}") });
    };
    match manifest.phase {
        Phase::Restored => return Ok(()),
        Phase::Settled => {}
        Phase::Taken => {
            let lacking = |why: &str| StateError::Mismatch { path: custody.path().to_owned(), why: why.to_owned() };
            let original = custody.original_if_there()?.ok_or_else(|| lacking("has lost its original"))?;
            keep::make(vault, &shelf, &manifest, &original, until)?;
            // Noted first: a half-removed original must never be taken for a whole one.
            custody.write(&Manifest { phase: Phase::Settled, ..manifest })?;
        }
    }
    custody.remove_original()?;
    custody.remove_building()?;
    custody.remove_discard()?;
    drop_shell(vault, place, bump, custody)
}

/// Removes what was begun to be made from the archive, but never noted down as custody.
fn drop_begun(place: &Place, bump: BumpId) -> Result<(), StateError> {
    let top = reach::custody_top(&reach::deepest(place)?)?;
    let path = top.join(custody::TOP).join(place.account.user.as_str()).join(bump.to_string());
    let Some(custody) = Custody::open(&path)? else { return Ok(()) };
    custody.remove_building()?;
    if custody.is_bare()? { custody.remove() } else { Ok(()) }
}

/// Removes custody that holds neither an original nor salvage: the archive has what it had.
pub fn drop_shell(vault: &Vault, place: &Place, bump: BumpId, custody: Custody) -> Result<(), StateError> {
    if custody.is_bare()? {
        // The note goes first: a noted custody that is not there counts as a disaster.
        vault.forget_custody(&place.account.user, bump)?;
        custody.remove()?;
    }
    Ok(())
}
