//! Killed between any two changes of the disk, everything comes back.

use std::fs;

use proptest::prelude::*;

use super::stage::{BUMP, FileSystem, Stage, Tree, as_user, events, tree};
use crate::worker::files::effect::budget;

/// What a user may have.
#[derive(Debug, Clone)]
pub(super) struct Had {
    rows: usize,
    database: bool,
    killed: bool,
    secrets: Option<Vec<Vec<u8>>>,
    attachments: Option<Vec<Vec<u8>>>,
    files: [Option<(Vec<u8>, u32)>; 3],
}

const NAMES: [&str; 3] = ["environment-id", "settings.json", "keybindings.json"];

pub(super) fn had() -> impl Strategy<Value = Had> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..200);
    let file = || prop::option::of((bytes(), prop::sample::select(vec![0o644u32, 0o600, 0o640])));
    let some = || prop::option::of(prop::collection::vec(bytes(), 0..3));
    (0usize..60, any::<bool>(), any::<bool>(), some(), some(), [file(), file(), file()]).prop_map(
        |(rows, database, killed, secrets, attachments, files)| Had { rows, database, killed, secrets, attachments, files },
    )
}

impl Had {
    pub(super) fn everything() -> Self {
        Self {
            rows: 40,
            database: true,
            killed: true,
            secrets: Some(vec![b"key".to_vec(), b"more".to_vec()]),
            attachments: Some(vec![b"picture".to_vec(), b"report".to_vec()]),
            files: [Some((b"id-1".to_vec(), 0o644)), Some((b"{}".to_vec(), 0o600)), Some((b"[]".to_vec(), 0o644))],
        }
    }

    pub(super) fn put(&self, stage: &Stage) {
        if self.database {
            stage.database(self.rows, self.killed);
        }
        for (n, secret) in self.secrets.iter().flatten().enumerate() {
            stage.write(&format!("secrets/key-{n}.bin"), secret, 0o600);
        }
        for (n, attachment) in self.attachments.iter().flatten().enumerate() {
            stage.write(&format!("attachments/thread-{n}/file.png"), attachment, 0o640);
        }
        for (name, file) in NAMES.iter().zip(&self.files) {
            if let Some((content, mode)) = file {
                stage.write(name, content, *mode);
            }
        }
        stage.write("logs/server.trace.ndjson", b"log", 0o644);
    }
}

/// What the new version does to the data it finds: changes and replaces, makes new files, and leaves a WAL behind.
pub(super) fn new_version_writes(stage: &Stage) {
    stage.write("state.sqlite", b"what B wrote", 0o644);
    stage.write("state.sqlite-wal", b"what B wrote last", 0o644);
    stage.write("state.sqlite-shm", b"shm of B", 0o644);
    stage.write("state.sqlite-journal", b"journal of B", 0o644);
    stage.write("settings.json", b"settings of B", 0o644);
    stage.write("secrets/cloud.bin", b"new key of B", 0o600);
    stage.write("attachments/thread-9/new.png", b"attached to B", 0o644);
}

const WRITTEN: [&[u8]; 7] =
    [b"what B wrote", b"what B wrote last", b"shm of B", b"journal of B", b"settings of B", b"new key of B", b"attached to B"];

/// Secure, switch, and B runs, allowed `first` changes of the disk; then restores, killed after `again` changes each, then one
/// that is not. Returns whether the first process got through.
fn crash_at(stage: &Stage, original: &Tree, first: i64, again: &[i64], keep: bool) -> bool {
    budget::allow(Some(first));
    let through = stage.secure("0.0.24").is_ok() && stage.switch_in().is_ok();
    assert_eq!(through, !budget::is_spent(), "nothing but the crash went wrong");
    budget::allow(None);
    if through && keep {
        new_version_writes(stage);
    }
    for effects in again {
        budget::allow(Some(*effects));
        stage.restore(keep).ok();
    }
    budget::allow(None);
    let salvage = stage.restore(keep).unwrap();
    assert_eq!(&stage.state(), original, "the original is back: bytes, names, modes, owners, no stale sidecars");
    assert_eq!(stage.restore(keep).unwrap(), salvage, "repeating it changes nothing");
    assert_eq!(&stage.state(), original);
    if through && keep {
        let kept: Vec<Vec<u8>> = tree(&salvage.unwrap().path).into_values().filter_map(|(.., content)| content).collect();
        for written in WRITTEN {
            assert!(kept.iter().any(|content| content == written), "{} is lost", String::from_utf8_lossy(written));
        }
    }
    through
}

#[test]
fn killed_after_every_single_change_of_the_disk_restore_brings_everything_back() {
    let fs = FileSystem::new();
    for (keep, round) in [(true, "kept"), (false, "unused")] {
        for effects in 0.. {
            let stage = Stage::new(&fs, &format!("{round}{effects}"));
            Had::everything().put(&stage);
            let original = stage.state();
            if crash_at(&stage, &original, effects, &[effects % 7, effects % 5], keep) {
                println!("{round}: killed at each of {effects} changes of the disk");
                break;
            }
        }
    }
}

#[test]
fn killed_after_every_single_change_of_a_rollback_repeating_it_brings_everything_back() {
    let fs = FileSystem::new();
    for effects in 0.. {
        let stage = Stage::new(&fs, &format!("back{effects}"));
        Had::everything().put(&stage);
        let original = stage.state();
        assert!(crash_at(&stage, &original, i64::MAX, &[effects], true));
        budget::allow(Some(effects));
        if stage.restore(true).is_ok() && effects > 60 {
            break;
        }
    }
    budget::allow(None);
}

#[test]
fn killed_after_every_single_change_securing_again_finishes_it() {
    let fs = FileSystem::new();
    for effects in 0.. {
        let stage = Stage::new(&fs, &format!("again{effects}"));
        Had::everything().put(&stage);
        let original = stage.state();
        budget::allow(Some(effects));
        let through = stage.secure("0.0.24").is_ok();
        budget::allow(None);
        stage.secure("0.0.24").unwrap();
        assert!(stage.state().is_empty(), "every original is in custody");
        assert_eq!(tree(&stage.custody().join("original")), original);
        stage.switch_in().unwrap();
        assert_eq!(events(&stage.userdata().join("state.sqlite")), 40, "the copy has what was only in the WAL");
        stage.restore(false).unwrap();
        assert_eq!(stage.state(), original);
        if through {
            break;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_user_has_and_wherever_it_is_killed_the_original_comes_back(
        had in had(), first in 0i64..80, again in prop::collection::vec(0i64..40, 0..4), keep in any::<bool>()
    ) {
        let fs = FileSystem::new();
        let stage = Stage::new(&fs, "alice");
        had.put(&stage);
        let original = stage.state();
        crash_at(&stage, &original, first, &again, keep);
        prop_assert_eq!(fs::read(stage.userdata().join("logs/server.trace.ndjson")).unwrap(), b"log");
    }
}

#[test]
fn a_user_without_data_gets_none_back_and_what_the_new_version_made_is_salvaged() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "fresh");
    let (seed, snapshot) = stage.secure("0.0.24").unwrap();
    assert!(seed.originals.is_empty() && snapshot.bytes == 0);
    stage.switch_in().unwrap();
    new_version_writes(&stage);
    assert!(stage.restore(true).unwrap().unwrap().bytes > 0);
    assert!(stage.state().is_empty());
    assert!(stage.switch_in().is_err(), "a bump that was undone puts nothing in place any more");
}

#[test]
fn a_copy_that_was_written_to_is_kept_even_when_it_was_said_not_to_have_run() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(5, false);
    let original = stage.state();
    stage.secure("0.0.24").unwrap();
    stage.switch_in().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let path = stage.userdata().join("state.sqlite");
    as_user(|| rusqlite::Connection::open(path).unwrap().execute_batch("INSERT INTO events VALUES ('by hand')").unwrap());
    let salvage = stage.restore(false).unwrap().expect("it is kept");
    assert_eq!(events(&salvage.path.join("state.sqlite")), 6);
    assert_eq!(stage.state(), original);
}

#[test]
fn a_bump_that_was_undone_can_be_secured_again_under_the_same_name() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(5, false);
    stage.secure("0.0.24").unwrap();
    stage.switch_in().unwrap();
    new_version_writes(&stage);
    let first = stage.restore(true).unwrap().unwrap();
    stage.database(9, true);
    let original = stage.state();
    stage.secure("0.0.24").unwrap();
    stage.switch_in().unwrap();
    new_version_writes(&stage);
    let second = stage.restore(true).unwrap().unwrap();
    assert_ne!(first.path, second.path, "two rounds of salvage do not mix");
    assert_eq!(stage.state(), original);
    assert_eq!(stage.custody().file_name().unwrap().to_str().unwrap(), BUMP.to_string());
}
