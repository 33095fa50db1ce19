//! Every deed done twice in a row is as good as done once: after a crash nobody knows whether it was done.

use std::fs;

use proptest::prelude::*;

use super::crash::{Had, had, new_version_writes};
use super::stage::{BUMP, FileSystem, Stage, Tree, tree};
use crate::domain::REBUILT;
use crate::state::Retention;

/// Does `deed` twice; the disk, all of it, and the answer are the same after both.
fn twice<T: PartialEq + std::fmt::Debug>(fs: &FileSystem, what: &str, deed: impl Fn() -> T) {
    let first = deed();
    let once: Tree = tree(fs.path());
    let second = deed();
    assert_eq!(second, first, "{what} answers otherwise");
    assert_eq!(tree(fs.path()), once, "{what} changes something when it is done again");
}

/// There and back: out of the soak, or out of the archive after `settled`.
fn there_and_back(had: &Had, settled: bool, writes: bool) {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    had.put(&stage);
    let original = stage.state();
    let (vault, place, user) = (&stage.vault, &stage.place, &stage.place.account.user);
    twice(&fs, "hold", || vault.hold(user, BUMP).unwrap());
    twice(&fs, "secure", || stage.secure("0.0.24").map(|(seed, snapshot)| (seed.originals, snapshot)).unwrap());
    twice(&fs, "switch", || stage.switch_in().unwrap());
    twice(&fs, "release", || vault.release(user).unwrap());
    if writes {
        new_version_writes(&stage);
    }
    if settled {
        twice(&fs, "archive", || vault.archive(place, BUMP).unwrap());
        let retention = Retention { keep: 1, max_age: None, max_bytes: None };
        twice(&fs, "retain", || vault.retain(user, retention).unwrap());
        twice(&fs, "unarchive", || vault.unarchive(place, BUMP, BUMP).unwrap());
    }
    twice(&fs, "hold", || vault.hold(user, BUMP).unwrap());
    twice(&fs, "restore", || stage.restore(true).unwrap());
    // What SQLite rebuilds by itself is not archived.
    let names = |tree: &Tree| tree.keys().filter(|name| *name != REBUILT).cloned().collect::<Vec<_>>();
    assert_eq!(names(&stage.state()), names(&original));
    twice(&fs, "release", || vault.release(user).unwrap());
    assert!(fs::read_dir(fs.path().join("vaults/alice/holds")).unwrap().next().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_done_twice_in_a_row_is_as_good_as_done_once(had in had(), settled in any::<bool>(), writes in any::<bool>()) {
        there_and_back(&had, settled, writes);
    }
}

#[test]
fn out_of_the_archive_everything_done_twice_is_as_good_as_done_once() {
    there_and_back(&Had::everything(), true, true);
}
