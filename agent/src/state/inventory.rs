//! What lies in custody and in the archive, told by their own manifests: for when the journal cannot tell any more.

use std::path::Path;

use super::archive::shelf::Shelf;
use super::custody::{Custody, Phase, TOP};
use super::vault_dirs::private;
use super::{StateError, Vault, reach, snapshot};
use crate::domain::{BumpId, Place, UserName, Version};
use crate::worker::files::Dir;

/// More bumps than any user ever has.
const MANY: usize = 100_000;

/// Where the originals of a bump are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// In custody, or on the way there or back.
    InCustody,
    /// Back in their place.
    Back,
    /// In the archive alone.
    Archived,
}

/// What one custody says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustodySeen {
    /// For which bump.
    pub bump: BumpId,
    /// The version that wrote the originals.
    pub version: Version,
    /// Where they are.
    pub originals: Whereabouts,
}

/// See [`Vault::custodies`].
pub fn custodies(vault: &Vault, place: &Place) -> Result<Vec<CustodySeen>, StateError> {
    let user = &place.account.user;
    // Whoever emptied /var/lib/t3pin took the notes, not what lies beside the home.
    let top = reach::custody_top(&reach::deepest(place)?)?;
    for bump in bumps_below(&Dir::open(&top)?, &[TOP, user.as_str()])? {
        let path = top.join(TOP).join(user.as_str()).join(bump.to_string());
        let taken = manifest_phase(&path)? == Some(Phase::Taken);
        if taken && vault.noted_custody(user, bump)?.is_none() {
            tracing::warn!(T3PIN_USER = %user, T3PIN_BUMP = %bump, "{} was not noted any more; it is now", path.display());
            vault.note_custody(user, bump, &path)?;
        }
    }
    let mut seen = vec![];
    for bump in bumps_below(&vault.user_dir("custody", user)?, &[])? {
        let Some((_, manifest)) = Custody::find(vault, place, bump)? else { continue };
        let originals = match manifest.phase {
            Phase::Taken => Whereabouts::InCustody,
            Phase::Restored => Whereabouts::Back,
            Phase::Settled => Whereabouts::Archived,
        };
        seen.push(CustodySeen { bump, version: manifest.version, originals });
    }
    // Custody that held nothing any more is gone; what the archive has tells of it.
    for kept in snapshot::list(&Shelf::look(vault, user)?)?.0 {
        let (bump, version) = (kept.snapshot.id, kept.snapshot.version);
        if seen.iter().all(|seen| seen.bump != bump) {
            seen.push(CustodySeen { bump, version, originals: Whereabouts::Archived });
        }
    }
    seen.sort_by_key(|seen| seen.bump);
    Ok(seen)
}

/// See [`Vault::last_bump`].
pub fn last_bump(vault: &Vault) -> Result<Option<BumpId>, StateError> {
    let mut last = vault.list_holds()?.into_iter().map(|(_, bump)| bump).max();
    for part in ["custody", "snapshots"] {
        let dir = Dir::open(&vault.root.join(part))?;
        for user in dir.names(MANY)?.iter().filter(|name| name.parse::<UserName>().is_ok()) {
            last = last.max(bumps_below(&dir, &[user])?.last().copied());
        }
    }
    Ok(last)
}

fn manifest_phase(path: &Path) -> Result<Option<Phase>, StateError> {
    let Some(custody) = Custody::open(path)? else { return Ok(None) };
    Ok(custody.read()?.map(|manifest| manifest.phase))
}

/// The names of bumps in the directory at `path` below `dir`, sorted; none when it is not there.
fn bumps_below(dir: &Dir, path: &[&str]) -> Result<Vec<BumpId>, StateError> {
    let names = match path.split_first() {
        None => dir.names(MANY)?,
        Some((first, rest)) => {
            let Some(below) = dir.dir_if_there(first)? else { return Ok(vec![]) };
            return bumps_below(&private(below)?, rest);
        }
    };
    let mut bumps: Vec<BumpId> = names.iter().filter_map(|name| name.parse().ok()).collect();
    bumps.sort_unstable();
    Ok(bumps)
}
