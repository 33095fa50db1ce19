//! Is there room, and are the paths what they must be? Looks only, changes nothing.

use std::path::{Path, PathBuf};

use super::custody::TOP;
use super::vault_dirs::private;
use super::{Preflight, StateError, Vault, reach};
use crate::domain::{ATTACHMENTS, Place, STATE_ENTRIES};
use crate::worker::files::{Dir, Listing, measure};

/// Room that is wanted beyond the copies, for manifests, SQLite's sidecars and whoever else writes meanwhile.
pub const SLACK: u64 = 64 << 20;
/// Copies of all but the attachments on the user's file system that are gone when their turn is over: for the rehearsal, and what it
/// and the new version add to theirs.
const COPIES_FOR_NOW: u64 = 2;

/// Room that one user's bump takes on one file system, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    dev: u64,
    shown: PathBuf,
    free: u64,
    /// Until the bump is settled, and longer.
    lasting: u64,
    /// Only while it is this user's turn.
    passing: u64,
}

/// See [`Vault::preflight`]. What a quota would allow cannot be known beforehand.
pub fn preflight(vault: &Vault, place: &Place) -> Result<Preflight, StateError> {
    let (found, rooms) = look(vault, place)?;
    refuse_short(&rooms)?;
    Ok(found)
}

/// See [`Vault::preflight_all`]: what one user's bump takes.
pub fn rooms(vault: &Vault, place: &Place) -> Result<Vec<Room>, StateError> {
    look(vault, place).map(|(_, rooms)| rooms)
}

/// [`StateError::NoSpace`] unless all file systems have room for what lasts of everybody's, and for what passes of the one who takes
/// most: turns are taken one after the other. As if nothing could be cloned, compressed or shared.
pub fn refuse_short(rooms: &[Room]) -> Result<(), StateError> {
    for first in rooms {
        let there = || rooms.iter().filter(|room| room.dev == first.dev);
        let lasting = there().fold(SLACK, |sum, room| sum.saturating_add(room.lasting));
        let passing = there().map(|room| room.passing).max().unwrap_or_default();
        let needed = lasting.saturating_add(passing);
        if first.free < needed {
            return Err(StateError::NoSpace { path: first.shown.clone(), needed, free: first.free });
        }
    }
    Ok(())
}

/// What is there and where custody will be, and the room that a bump takes.
fn look(vault: &Vault, place: &Place) -> Result<(Preflight, Vec<Room>), StateError> {
    let deepest = reach::deepest(place)?;
    let top = reach::custody_top(&deepest)?;
    let mut custody = Some(Dir::open(&top)?);
    for name in [TOP, place.account.user.as_str()] {
        let below = custody.as_ref().map(|dir| dir.dir_if_there(name)).transpose()?.flatten();
        custody = below.map(private).transpose()?;
    }
    reach::refuse_odd_work(place)?;
    let (mut working, mut attached) = (0, 0);
    if let Some(userdata) = reach::userdata(place)? {
        let names: Vec<&str> = STATE_ENTRIES.into_iter().filter(|name| *name != ATTACHMENTS).collect();
        working = measure(&userdata, &names, place.account.uid)?;
        attached = Listing::of(&userdata, ATTACHMENTS, place.account.uid)?.map_or(0, |listing| listing.summary().bytes);
    }
    let state_bytes = working.saturating_add(attached);
    let snapshots = Dir::open(&vault.root.join("snapshots"))?;
    let room = |dir: &Dir, shown: &Path, passing| {
        let (dev, free) = (dir.seen()?.dev, dir.free()?);
        Ok::<_, StateError>(Room { dev, shown: shown.to_owned(), free, lasting: state_bytes, passing })
    };
    let there = room(&deepest, &top, working.saturating_mul(COPIES_FOR_NOW))?;
    let here = room(&snapshots, snapshots.path(), 0)?;
    let found = Preflight { state_bytes, custody: top.join(TOP).join(place.account.user.as_str()) };
    Ok((found, vec![there, here]))
}

/// [`StateError::NoSpace`] unless `needed` bytes are free where `dir` is.
pub fn refuse_full(dir: &Dir, shown: &Path, needed: u64) -> Result<(), StateError> {
    let free = dir.free()?;
    if free < needed {
        return Err(StateError::NoSpace { path: shown.to_owned(), needed, free });
    }
    Ok(())
}
