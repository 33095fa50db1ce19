#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::check::{Subject, check};
use super::fetch::fetch;
use super::pack::{self, FRAME_PAGES, PAGE, Pack};
use super::put::{Damage, Put, put};
use super::recipe::Recipe;
use super::shelf::Shelf;
use super::sweep::sweep;
use crate::domain::UserName;
use crate::state::vault_dirs::own_uid;
use crate::state::{StateError, Vault};
use crate::worker::files::effect::budget;
use crate::worker::files::{Deadline, Dir};

/// An archive, and a directory with files to put into it.
struct Shelved {
    root: tempfile::TempDir,
    shelf: Shelf,
}

const NAMES: [&str; 2] = ["state.sqlite", "secrets"];

impl Shelved {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let vault = Vault::open(root.path()).unwrap();
        let shelf = Shelf::open(&vault, &"alice".parse::<UserName>().unwrap()).unwrap();
        fs::create_dir_all(root.path().join("from/secrets")).unwrap();
        fs::write(root.path().join("from/secrets/key"), b"key").unwrap();
        fs::write(root.path().join("from/secrets/empty"), b"").unwrap();
        Self { root, shelf }
    }

    fn reopened(self) -> Self {
        let Self { root, shelf } = self;
        drop(shelf);
        let shelf = Shelf::open(&Vault::open(root.path()).unwrap(), &"alice".parse().unwrap()).unwrap();
        Self { root, shelf }
    }

    fn put(&self, database: &[u8], avoid: &Damage) -> Result<Put, StateError> {
        fs::write(self.root.path().join("from/state.sqlite"), database).unwrap();
        let from = Dir::open(&self.root.path().join("from")).unwrap();
        put(&self.shelf, &from, &NAMES, own_uid(), avoid, Deadline::NONE)
    }

    fn fetched(&self, put: &Put) -> Result<Vec<u8>, StateError> {
        let to = self.root.path().join("to");
        fs::remove_dir_all(&to).ok();
        fs::create_dir(&to).unwrap();
        let dir = Dir::open(&to).unwrap();
        fetch(&self.shelf, &put.entries, &put.recipe, |_| true, &dir, Deadline::NONE)?;
        assert_eq!(fs::read(to.join("secrets/key")).unwrap(), b"key");
        assert_eq!(fs::read(to.join("secrets/empty")).unwrap(), b"");
        assert_eq!(fs::metadata(to.join("secrets/key")).unwrap().permissions().mode() & 0o777, 0o600);
        Ok(fs::read(to.join("state.sqlite")).unwrap())
    }

    fn wrong(&self, puts: &[&Put]) -> (Vec<bool>, Damage) {
        let subjects: Vec<Subject<'_>> =
            puts.iter().map(|p| Subject { entries: &p.entries, recipe: &p.recipe, pages_digest: &p.pages_digest }).collect();
        let found = check(&self.shelf, &subjects, Deadline::NONE, |_, _| ()).unwrap();
        (found.wrong.iter().map(Option::is_some).collect(), found.damage)
    }

    fn store(&self) -> PathBuf {
        self.shelf.store.path().to_owned()
    }

    /// A directory per recipe, as of snapshots.
    fn keep(&self, name: &str, put: &Put) -> Dir {
        let dir = self.shelf.dir.make_dir(name).unwrap();
        put.recipe.write(&dir).unwrap();
        dir
    }
}

/// Pages with hardly compressible content, one per number.
fn pages(numbers: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let mut content = Vec::new();
    for number in numbers {
        let mut page = vec![0; PAGE];
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut page);
        content.extend_from_slice(&page);
    }
    content
}

fn spoil(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn bytes_below(path: &Path) -> u64 {
    fs::read_dir(path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn what_is_there_already_is_stored_once() {
    let shelved = Shelved::new();
    let first = shelved.put(&pages(0..1000), &Damage::new()).unwrap();
    let before = bytes_below(&shelved.store());
    let second = shelved.put(&pages((0..1000).map(|n| if n % 100 == 7 { n + 5000 } else { n })), &Damage::new()).unwrap();
    let added = bytes_below(&shelved.store()) - before;
    assert!(added < 11 * (PAGE as u64 + 100), "{added} bytes for ten pages");
    let third = shelved.put(&pages(0..1000), &Damage::new()).unwrap();
    assert_eq!(bytes_below(&shelved.store()), before + added, "nothing new, no pack");
    assert_eq!(shelved.fetched(&first).unwrap(), shelved.fetched(&third).unwrap());
    assert_ne!(shelved.fetched(&first).unwrap(), shelved.fetched(&second).unwrap());
    assert_eq!(shelved.wrong(&[&first, &second, &third]), (vec![false; 3], Damage::new()));
}

#[test]
fn damage_is_found_named_and_does_not_reach_other_snapshots() {
    let shelved = Shelved::new();
    let one = shelved.put(&pages(0..200), &Damage::new()).unwrap();
    let other = shelved.put(&pages(1000..1200), &Damage::new()).unwrap();
    spoil(&shelved.store().join(pack::file_name(1)), 50_000);
    let (wrong, damage) = shelved.wrong(&[&one, &other]);
    assert_eq!(wrong, [true, false]);
    assert!(!damage.is_empty());
    assert!(matches!(shelved.fetched(&one), Err(StateError::Mismatch { .. })));
    assert_eq!(shelved.fetched(&other).unwrap(), pages(1000..1200));
    // What comes next is not built on what is damaged.
    let again = shelved.put(&pages(0..200), &damage).unwrap();
    assert_eq!(shelved.wrong(&[&one, &again]).0, [true, false]);
    assert_eq!(shelved.fetched(&again).unwrap(), pages(0..200));
}

#[test]
fn a_pack_without_its_index_is_not_built_on_and_only_its_own_snapshots_suffer() {
    let shelved = Shelved::new();
    let one = shelved.put(&pages(0..200), &Damage::new()).unwrap();
    // They share nothing, not even the key.
    fs::write(shelved.root.path().join("from/secrets/key"), b"other").unwrap();
    let other = shelved.put(&pages(1000..1010), &Damage::new()).unwrap();
    fs::write(shelved.root.path().join("from/secrets/key"), b"key").unwrap();
    let pack = shelved.store().join(pack::file_name(1));
    let length = fs::metadata(&pack).unwrap().len();
    for cut in [length - 1, length - 60, 40, 0] {
        fs::OpenOptions::new().write(true).open(&pack).unwrap().set_len(cut).unwrap();
        assert_eq!(shelved.wrong(&[&one, &other]).0, [true, false], "cut at {cut}");
    }
    fs::remove_file(&pack).unwrap();
    assert_eq!(shelved.wrong(&[&one, &other]).0, [true, false]);
    // The number of a pack that is gone may be used again; the recipe still does not take the one for the other.
    fs::rename(shelved.store().join(pack::file_name(2)), &pack).unwrap();
    assert_eq!(shelved.wrong(&[&one]).0, [true]);
    let again = shelved.put(&pages(0..200), &Damage::new()).unwrap();
    assert_eq!(shelved.fetched(&again).unwrap(), pages(0..200));
}

#[test]
fn pages_that_nobody_needs_give_their_room_back_and_the_others_stay() {
    let shelved = Shelved::new();
    let base = shelved.put(&pages(0..2000), &Damage::new()).unwrap();
    let kept = shelved.put(&pages(0..300), &Damage::new()).unwrap();
    let dir = shelved.keep("b000002", &kept);
    drop(base);
    let before = bytes_below(&shelved.store());
    sweep(&shelved.shelf, vec![(dir, kept.recipe.clone())], Deadline::NONE).unwrap();
    assert!(bytes_below(&shelved.store()) < before / 5);
    let recipe = Recipe::read(&shelved.shelf.dir.dir("b000002").unwrap()).unwrap().unwrap();
    let kept = Put { recipe, ..kept };
    assert_eq!(shelved.wrong(&[&kept]).0, [false]);
    assert_eq!(shelved.fetched(&kept).unwrap(), pages(0..300));
    sweep(&shelved.shelf, vec![], Deadline::NONE).unwrap();
    assert_eq!(bytes_below(&shelved.store()), 0);
}

#[test]
fn killed_at_every_change_of_the_disk_nothing_that_is_needed_is_lost() {
    for effects in 0.. {
        let mut shelved = Shelved::new();
        let one = shelved.put(&pages(0..300), &Damage::new()).unwrap();
        let two = shelved.put(&pages(200..500), &Damage::new()).unwrap();
        let (first, second) = (shelved.keep("b000001", &one), shelved.keep("b000002", &two));
        budget::allow(Some(effects));
        let third = shelved.put(&pages(100..900), &Damage::new());
        // The first one goes, so that its pack is needed in part only.
        drop(first);
        let through = third.is_ok() && sweep(&shelved.shelf, vec![(second, two.recipe.clone())], Deadline::NONE).is_ok();
        budget::allow(None);
        shelved = shelved.reopened();
        let dir = shelved.shelf.dir.dir("b000002").unwrap();
        let now = Put { recipe: Recipe::read(&dir).unwrap().unwrap(), ..two };
        assert_eq!(shelved.wrong(&[&now]).0, [false], "after {effects} changes");
        assert_eq!(shelved.fetched(&now).unwrap(), pages(200..500));
        sweep(&shelved.shelf, vec![(dir, now.recipe.clone())], Deadline::NONE).unwrap();
        assert!(shelved.store().join("draft").symlink_metadata().is_err());
        if through {
            break;
        }
    }
}

#[test]
fn a_pack_has_full_frames_and_a_last_one() {
    let shelved = Shelved::new();
    shelved.put(&pages(0..(FRAME_PAGES as u32 * 2 + 1)), &Damage::new()).unwrap();
    let pack = Pack::open(&shelved.shelf.store, 1).unwrap();
    assert_eq!((pack.frames(), pack.hashes().len()), (3, FRAME_PAGES * 2 + 2), "the pages and that of the key");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever was put comes back byte for byte, whatever its length and however much it shares with what came before.
    #[test]
    fn everything_comes_back_as_it_was_put(
        files in proptest::collection::vec((proptest::collection::vec(0u32..80, 0..150), 0usize..PAGE), 1..5)
    ) {
        let shelved = Shelved::new();
        let mut kept = Vec::new();
        for (numbers, more) in files {
            let mut content = pages(numbers);
            content.extend(pages([9999]).into_iter().take(more));
            kept.push((shelved.put(&content, &Damage::new()).unwrap(), content));
        }
        for (put, content) in &kept {
            prop_assert_eq!(&shelved.fetched(put).unwrap(), content);
        }
        prop_assert!(shelved.wrong(&kept.iter().map(|(put, _)| put).collect::<Vec<_>>()).0.iter().all(|wrong| !wrong));
    }
}
