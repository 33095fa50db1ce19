//! A snapshot's or salvage's database as an ordinary SQLite file.
//!
//! Root only moves bytes: it puts the database and its WAL, as they were, into a directory that it then gives to the user; the
//! worker, as the user, makes one file of them; root opens that one (a regular file of the user's, by descriptor) and
//! removes the directory. What is left is an open file without a name, which goes with the agent at the latest.

use super::archive::keep;
use super::archive::shelf::Shelf;
use super::{REREAD, StateError, Vault, blocking, nonsense, preflight, snapshot};
use crate::domain::{EntryKind, KeptId, Place, StateEntry};
use crate::worker::files::{Deadline, Dir, OpenFile, copy_file, dress, remove_tree};
use crate::worker::{self, Answer, Task};

/// Directory below the vault.
pub const EXPORTS: &str = "exports";
const DATABASE: &str = "state.sqlite";
/// What belongs to the database when it was not closed.
const FILES: [&str; 3] = [DATABASE, "state.sqlite-wal", "state.sqlite-journal"];

impl Vault {
    /// The database of `id` as one file, open for reading, and its size. Takes as long as writing it twice.
    pub async fn export(&self, place: &Place, id: KeptId) -> Result<(OpenFile, u64), StateError> {
        let until = Deadline::after(REREAD);
        let (vault, whose, name) = (self.clone(), place.clone(), format!("{}-{id}", place.account.user));
        let prepared = {
            let name = name.clone();
            blocking(move || prepare(&vault, &whose, id, &name, until)).await
        };
        let merged = match prepared {
            Ok(dir) => worker::run(&place.account, &Task::Merge { dir: dir.path().to_owned() }, until.left())
                .await
                .map_err(StateError::from)
                .and_then(|answer| if matches!(answer, Answer::Done) { Ok(dir) } else { Err(nonsense(place)) }),
            Err(error) => Err(error),
        };
        let (vault, uid) = (self.clone(), place.account.uid);
        blocking(move || {
            let opened = merged.and_then(|dir| Ok(dir.file(DATABASE, uid)?));
            remove_tree(&Dir::open(&vault.root.join(EXPORTS))?, &name)?;
            opened.map(|(file, seen)| (file, seen.bytes))
        })
        .await
    }
}

/// The user's directory with the database's files in it.
fn prepare(vault: &Vault, place: &Place, id: KeptId, name: &str, until: Deadline) -> Result<Dir, StateError> {
    let account = &place.account;
    let exports = Dir::open(&vault.root.join(EXPORTS))?;
    remove_tree(&exports, name)?;
    let room =
        |bytes: u64| preflight::refuse_full(&exports, exports.path(), bytes.saturating_mul(2).saturating_add(preflight::SLACK));
    let (dir, files) = match id {
        KeptId::Snapshot(id) => {
            let shelf = Shelf::open(vault, &account.user)?;
            let missing = || StateError::Mismatch { path: shelf.dir.path().join(id.to_string()), why: "is not there".to_owned() };
            let kept = snapshot::load(&shelf, id)?.ok_or_else(missing)?;
            if kept.uid.is_some_and(|uid| uid != account.uid) {
                let why = format!("was taken from another account than the one that is called {} now", account.user);
                return Err(StateError::Mismatch { path: kept.snapshot.path, why });
            }
            room(kept.snapshot.bytes)?;
            let dir = exports.make_dir(name)?;
            keep::unpack(&shelf, &kept, |entry| FILES.contains(&entry.path.as_str()), &dir, until)?;
            let files = kept.snapshot.entries.into_iter().filter(|entry| FILES.contains(&entry.path.as_str()));
            (dir, files.collect::<Vec<_>>())
        }
        KeptId::Salvage(bump, round) => {
            let (custody, salvage) = vault.salvage_dir(&account.user, bump, round)?;
            if custody.read()?.is_none_or(|manifest| manifest.uid != account.uid) {
                let why = format!("is not that of the account that is called {} now", account.user);
                return Err(StateError::Mismatch { path: salvage.path().to_owned(), why });
            }
            room(FILES.iter().map(|file| salvage.stat(file).ok().flatten().map_or(0, |seen| seen.bytes)).sum())?;
            let dir = exports.make_dir(name)?;
            let mut files = Vec::new();
            for file in FILES {
                if salvage.stat(file)?.is_some() {
                    files.push(copy_file(&salvage, file, account.uid, &dir, until)?.0);
                }
            }
            (dir, files)
        }
    };
    if !files.iter().any(|file| file.path == DATABASE) {
        let why = "holds no database".to_owned();
        return Err(StateError::Mismatch { path: format!("{}/{id}", account.user).into(), why });
    }
    let files: Vec<StateEntry> =
        files.into_iter().map(|file| StateEntry { mode: 0o600, kind: EntryKind::File, ..file }).collect();
    dress(&dir, &files, Some((account.uid, account.gid)))?;
    dir.dress_self((account.uid, account.gid), 0o700)?;
    Ok(dir)
}
