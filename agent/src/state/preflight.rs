//! Is there room, and are the paths what they must be? Looks only, changes nothing.

use std::path::Path;

use super::custody::TOP;
use super::vault_dirs::private;
use super::{Preflight, StateError, Vault, reach};
use crate::domain::{Place, STATE_ENTRIES};
use crate::worker::files::{Dir, measure};

/// Room that is wanted beyond the copies, for manifests, SQLite's sidecars and whoever else writes meanwhile.
pub const SLACK: u64 = 64 << 20;
/// Copies on the user's file system: for the rehearsal, for the new version, and what either adds to them.
const COPIES_THERE: u64 = 3;

/// See [`Vault::preflight`]. What a quota would allow cannot be known beforehand.
pub fn preflight(vault: &Vault, place: &Place) -> Result<Preflight, StateError> {
    let deepest = reach::deepest(place)?;
    let top = reach::custody_top(&deepest)?;
    let mut custody = Some(Dir::open(&top)?);
    for name in [TOP, place.account.user.as_str()] {
        let below = custody.as_ref().map(|dir| dir.dir_if_there(name)).transpose()?.flatten();
        custody = below.map(private).transpose()?;
    }
    let state_bytes = match reach::userdata(place)? {
        Some(userdata) => measure(&userdata, &STATE_ENTRIES, place.account.uid)?,
        None => 0,
    };
    let snapshots = Dir::open(&vault.root.join("snapshots"))?;
    let same = deepest.seen()?.dev == snapshots.seen()?.dev;
    let there = state_bytes.saturating_mul(COPIES_THERE).saturating_add(SLACK);
    let here = state_bytes.saturating_add(SLACK);
    refuse_full(&deepest, &top, if same { there.saturating_add(here) } else { there })?;
    refuse_full(&snapshots, snapshots.path(), here)?;
    Ok(Preflight { state_bytes, custody: top.join(TOP).join(place.account.user.as_str()) })
}

/// [`StateError::NoSpace`] unless `needed` bytes are free where `dir` is.
pub fn refuse_full(dir: &Dir, shown: &Path, needed: u64) -> Result<(), StateError> {
    let free = dir.free()?;
    if free < needed {
        return Err(StateError::NoSpace { path: shown.to_owned(), needed, free });
    }
    Ok(())
}
