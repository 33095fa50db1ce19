//! One user's archive, `snapshots/USER/`: a directory per snapshot, and `store/` with the packs that they share.

use super::super::vault_dirs::lasting_dir;
use super::super::{StateError, Vault};
use super::pack::{self, Pack};
use crate::domain::UserName;
use crate::worker::files::{Dir, OpenFile, remove_tree};

/// A snapshot on its way out has this behind its name: half removed, it must not be taken for one.
pub const GONE: &str = ".gone";
/// And one that is being made, this.
pub const DRAFT: &str = ".tmp";
const STORE: &str = "store";
const PACK_DRAFT: &str = "draft";

/// A user's archive, locked: nobody else (another task, `t3pin recover`) works on it meanwhile. It is another lock than
/// that of [`Vault::lock`], so that a server that waits to be started never waits for somebody who reads the archive.
/// Who needs both takes that one first.
#[derive(Debug)]
pub struct Shelf {
    /// `snapshots/USER/`.
    pub dir: Dir,
    /// `snapshots/USER/store/`.
    pub store: Dir,
    /// Whose.
    pub user: UserName,
}

impl Shelf {
    /// Waits for the lock, and removes what an interrupted process left half made or half removed.
    pub fn open(vault: &Vault, user: &UserName) -> Result<Self, StateError> {
        let dir = vault.user_dir("snapshots", user)?;
        dir.lock()?;
        for name in dir.names(100_000)?.iter().filter(|name| name.ends_with(GONE) || name.ends_with(DRAFT)) {
            remove_tree(&dir, name)?;
        }
        let store = lasting_dir(&dir, STORE)?;
        store.unlink(PACK_DRAFT)?;
        Ok(Self { dir, store, user: user.clone() })
    }

    /// Only for looking at what is there: does not wait, and removes nothing. Every snapshot appears and goes by one rename.
    pub fn look(vault: &Vault, user: &UserName) -> Result<Self, StateError> {
        let dir = vault.user_dir("snapshots", user)?;
        let store = lasting_dir(&dir, STORE)?;
        Ok(Self { dir, store, user: user.clone() })
    }

    /// The numbers of all packs, sorted.
    pub fn packs(&self) -> Result<Vec<u32>, StateError> {
        let mut numbers: Vec<u32> = self.store.names(1_000_000)?.iter().filter_map(|name| pack::number_of(name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// All packs that can be used. A damaged one is left out: nothing new is to be built on it.
    pub fn good_packs(&self) -> Result<Vec<Pack>, StateError> {
        let mut packs = Vec::new();
        for number in self.packs()? {
            match Pack::open(&self.store, number) {
                Ok(pack) => packs.push(pack),
                Err(error @ StateError::Mismatch { .. }) => tracing::warn!(T3PIN_USER = %self.user, "{error}"),
                Err(error) => return Err(error),
            }
        }
        Ok(packs)
    }

    /// A pack that is being written, see [`Shelf::keep_pack`].
    pub fn draft_pack(&self) -> Result<OpenFile, StateError> {
        self.store.unlink(PACK_DRAFT)?;
        Ok(self.store.create(PACK_DRAFT)?)
    }

    /// Gives the finished draft its number, for good (synced).
    pub fn keep_pack(&self) -> Result<Pack, StateError> {
        let number = self.packs()?.last().map_or(1, |last| last + 1);
        self.store.move_to(PACK_DRAFT, &self.store, &pack::file_name(number))?;
        self.store.sync()?;
        Pack::open(&self.store, number)
    }

    /// Bytes that the packs take on disk.
    pub fn bytes(&self) -> Result<u64, StateError> {
        self.packs()?.into_iter().try_fold(0u64, |sum, number| {
            let seen = self.store.stat(pack::file_name(number))?;
            Ok(sum.saturating_add(seen.map_or(0, |seen| seen.allocated)))
        })
    }
}
