//! Around the switch: the new version never gets the original, and never gets less than a whole copy.

use super::custody::{Custody, Manifest, Phase};
use super::{StateError, Vault, reach};
use crate::domain::{BumpId, Place};

/// Refuses while not every original is in custody (promise 2), and once the way back has begun: what lies in place then may be half a
/// copy.
pub fn refuse_unsecured(vault: &Vault, place: &Place, bump: BumpId) -> Result<Manifest, StateError> {
    let unsecured = |why: String| StateError::Mismatch { path: place.userdata(), why };
    let Some((custody, manifest)) = Custody::find(vault, place, bump)? else {
        return Err(unsecured(format!("nothing of it is in custody for {bump}; the copy must not be put beside the original")));
    };
    if manifest.phase != Phase::Taken {
        return Err(unsecured(format!("{bump} was undone or settled; its copy must not be put in place any more")));
    }
    if custody.is_setting_aside(manifest.round)? {
        return Err(unsecured(format!("{bump} is on its way back: part of the copy is set aside already")));
    }
    let original = custody.original_if_there()?;
    for taken in &manifest.taken {
        let kept = original.as_ref().map(|dir| dir.stat(&taken.name)).transpose()?.flatten();
        if kept.is_none_or(|seen| seen.ino != taken.ino) {
            return Err(unsecured(format!("its original {} is not in custody for {bump}", taken.name)));
        }
    }
    Ok(manifest)
}

/// Afterwards: everything but the database's sidecars, which the copy has no need of, has a counterpart in place. Where a user
/// removed the seed's database, the new version would start silently with nothing (T3-CONTRACT section 7).
pub fn check_switched(vault: &Vault, place: &Place, bump: BumpId) -> Result<(), StateError> {
    let manifest = refuse_unsecured(vault, place, bump)?;
    let userdata = reach::userdata(place)?;
    let names = manifest.taken.iter().map(|taken| taken.name.as_str()).filter(|name| !name.starts_with("state.sqlite-"));
    for name in names.chain(manifest.seed.log.then_some("state.sqlite-wal")) {
        let path = place.userdata().join(name);
        let there = userdata.as_ref().map(|dir| dir.stat(name)).transpose()?.flatten();
        let Some(there) = there else {
            let why = "is missing after the copy was put in place: somebody removed it from the copy".to_owned();
            return Err(StateError::Mismatch { path, why });
        };
        there.check(&path, place.account.uid)?;
    }
    Ok(())
}
