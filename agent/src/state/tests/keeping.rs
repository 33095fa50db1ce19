//! Holds, archive, retention.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::stage::{BUMP, FileSystem, Stage, events};
use crate::domain::BumpId;
use crate::state::StateError;
use crate::worker::files::effect::budget;

#[test]
fn holds_survive_and_are_listed_until_released() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "emil.b");
    let user = &stage.place.account.user;
    stage.vault.release(user).unwrap();
    stage.vault.hold(user, BUMP).unwrap();
    stage.vault.hold(user, BumpId(43)).unwrap();
    assert_eq!(stage.vault.held().unwrap(), [(user.clone(), BumpId(43))]);
    stage.vault.release(user).unwrap();
    assert_eq!(stage.vault.held().unwrap(), []);
}

#[test]
fn a_settled_bump_can_still_be_rolled_back_from_the_archive() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(7, false);
    stage.write("secrets/key", b"key", 0o600);
    stage.write("environment-id", b"id-1", 0o640);
    let original = stage.state();
    let (_, snapshot) = stage.secure("0.0.24").unwrap();
    stage.switch_in().unwrap();
    stage.vault.archive(&stage.place, BUMP).unwrap();
    stage.vault.archive(&stage.place, BUMP).unwrap();
    assert!(!stage.custody().join("original").exists());
    assert!(matches!(stage.restore(true), Err(StateError::Mismatch { .. })), "B's data is never called the original");
    // Killed at every change of the disk, it can be repeated.
    for effects in 0.. {
        budget::allow(Some(effects));
        let through = stage.vault.unarchive(&stage.place, &snapshot).is_ok();
        budget::allow(None);
        if through {
            break;
        }
    }
    stage.write("settings.json", b"of B", 0o644);
    let salvage = stage.restore(true).unwrap().unwrap();
    assert!(salvage.path.join("settings.json").exists());
    assert_eq!(stage.state(), original);
    assert_eq!(events(&stage.userdata().join("state.sqlite")), 7);
}

#[test]
fn a_snapshot_that_was_brought_back_for_nothing_is_put_away_again() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(7, false);
    let (_, snapshot) = stage.secure("0.0.24").unwrap();
    stage.switch_in().unwrap();
    stage.vault.archive(&stage.place, BUMP).unwrap();
    let names = |stage: &Stage| {
        let entries = fs::read_dir(stage.custody()).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<std::collections::BTreeSet<_>>()
    };
    let (running, archived) = (stage.state(), names(&stage));
    stage.vault.unarchive(&stage.place, &snapshot).unwrap();
    assert_eq!(stage.state(), running, "the server may run meanwhile");
    stage.vault.archive(&stage.place, BUMP).unwrap();
    assert_eq!(names(&stage), archived);
    // Broken off half-way, as on a full disk.
    budget::allow(Some(3));
    assert!(stage.vault.unarchive(&stage.place, &snapshot).is_err());
    budget::allow(None);
    stage.vault.archive(&stage.place, BUMP).unwrap();
    assert_eq!(names(&stage), archived);
}

#[test]
fn an_original_is_only_let_go_when_its_snapshot_is_whole() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(7, false);
    let original = stage.state();
    let (_, snapshot) = stage.secure("0.0.24").unwrap();
    stage.switch_in().unwrap();
    let spoil = || {
        let file = snapshot.path.join("userdata/state.sqlite");
        let mut bytes = fs::read(&file).unwrap();
        bytes[5000] ^= 1;
        fs::write(&file, bytes).unwrap();
    };
    // Killed at every change of the disk, with what it had made spoilt: the original stays until a whole snapshot is there.
    for effects in 0.. {
        budget::allow(Some(effects));
        let through = stage.vault.archive(&stage.place, BUMP).is_ok();
        budget::allow(None);
        if through {
            break;
        }
        let still_taken = fs::read_to_string(stage.custody().join("manifest.json")).unwrap().contains(r#""phase": "taken""#);
        if snapshot.path.exists() && still_taken {
            spoil();
        }
    }
    let until = crate::worker::files::Deadline::NONE;
    let whole = crate::state::snapshot::load(&stage.vault, &snapshot.user, BUMP).unwrap().unwrap();
    crate::state::snapshot::verify(&stage.vault, &whole, until).unwrap();
    stage.vault.unarchive(&stage.place, &snapshot).unwrap();
    stage.restore(true).unwrap();
    assert_eq!(stage.state(), original);
    spoil();
    let error = stage.vault.unarchive(&stage.place, &snapshot).unwrap_err();
    assert!(error.to_string().contains("not restored"), "{error}");
    assert_eq!(stage.state(), original);
}

#[test]
fn an_original_that_was_written_to_in_custody_is_not_archived_and_not_let_go() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(7, false);
    stage.secure("0.0.24").unwrap();
    stage.switch_in().unwrap();
    let file = stage.custody().join("original/state.sqlite");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, bytes).unwrap();
    assert!(matches!(stage.vault.archive(&stage.place, BUMP), Err(StateError::Mismatch { .. })));
    assert!(file.exists());
}

#[test]
fn a_snapshot_is_not_restored_into_another_server_s_state() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.write("environment-id", b"id-1", 0o644);
    let (_, snapshot) = stage.secure("0.0.24").unwrap();
    stage.switch_in().unwrap();
    stage.vault.archive(&stage.place, BUMP).unwrap();
    stage.write("environment-id", b"id-2", 0o644);
    assert!(matches!(stage.vault.unarchive(&stage.place, &snapshot), Err(StateError::Mismatch { .. })));
    let other = Stage::new(&fs, "bob");
    assert!(other.vault.unarchive(&other.place, &snapshot).is_err());
}

#[test]
fn snapshots_are_root_s_alone_and_the_oldest_go_first() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    let user = &stage.place.account.user;
    stage.database(1, false);
    let (_, first) = stage.secure("0.0.24").unwrap();
    stage.switch_in().unwrap();
    stage.vault.archive(&stage.place, BUMP).unwrap();
    let file = fs::metadata(first.path.join("userdata/state.sqlite")).unwrap();
    assert_eq!((file.uid(), file.mode() & 0o777), (0, 0o600));
    // Older ones of other bumps, as copies.
    let dir = first.path.parent().unwrap();
    for n in [10, 11] {
        let path = dir.join(BumpId(n).to_string());
        assert!(std::process::Command::new("cp").arg("-a").arg(&first.path).arg(&path).status().unwrap().success());
        let json = fs::read_to_string(path.join("manifest.json")).unwrap();
        let json = json.replace("\"b000042\"", &format!("\"{}\"", BumpId(n))).replace("1700000000000", &format!("{n}"));
        fs::write(path.join("manifest.json"), json).unwrap();
    }
    fs::create_dir(dir.join("b000012")).unwrap();
    let ids = |found: Vec<crate::domain::Snapshot>| found.iter().map(|s| s.id.0).collect::<Vec<_>>();
    assert_eq!(ids(crate::state::retain::list(&stage.vault, user).unwrap()), [10, 11, 42]);
    assert_eq!(ids(stage.vault.retain(user, 2).unwrap()), [10]);
    assert_eq!(ids(stage.vault.retain(user, 0).unwrap()), [11], "one is always kept");
    assert_eq!(ids(crate::state::retain::list(&stage.vault, user).unwrap()), [42]);
}

#[test]
fn preflight_says_how_much_there_is_and_where_custody_will_be() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(1, false);
    let before = super::stage::tree(fs.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let found = runtime.block_on(stage.vault.preflight(&stage.place)).unwrap();
    assert_eq!(found.custody, fs.path().canonicalize().unwrap().join(".t3pin/alice"));
    assert_eq!(found.state_bytes, fs::metadata(stage.userdata().join("state.sqlite")).unwrap().len());
    assert_eq!(super::stage::tree(fs.path()), before, "it only looks");
    runtime.shutdown_timeout(Duration::from_secs(1));
}

#[test]
fn what_is_in_custody_is_told_without_the_journal_and_without_the_notes() {
    use crate::state::Whereabouts::{Archived, Back, InCustody};
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(3, false);
    let told = |stage: &Stage| {
        let seen = stage.vault.custodies(&stage.place).unwrap();
        seen.iter().map(|seen| (seen.bump, seen.version.to_string(), seen.originals)).collect::<Vec<_>>()
    };
    assert_eq!(told(&stage), []);
    stage.secure("0.0.24").unwrap();
    assert_eq!(told(&stage), [(BUMP, "0.0.24".to_owned(), InCustody)]);
    assert_eq!(stage.vault.last_bump().unwrap(), Some(BUMP));
    stage.vault.forget_custody(&stage.place.account.user, BUMP).unwrap();
    assert_eq!(told(&stage), [(BUMP, "0.0.24".to_owned(), InCustody)], "found beside the home, and noted again");
    let original = stage.custody().join("original");
    assert!(original.exists());
    stage.restore(false).unwrap();
    assert_eq!(told(&stage)[0].2, Back);
    stage.secure("0.0.24").unwrap();
    stage.switch_in().unwrap();
    stage.vault.archive(&stage.place, BUMP).unwrap();
    assert_eq!(told(&stage)[0].2, Archived);
}

#[test]
fn custody_that_was_deleted_by_hand_is_a_disaster_that_says_where_else_to_look() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(3, false);
    stage.secure("0.0.24").unwrap();
    stage.switch_in().unwrap();
    let state = stage.state();
    fs::remove_dir_all(stage.custody()).unwrap();
    let error = stage.restore(true).unwrap_err().to_string();
    for part in ["is gone", "nothing was changed", "snapshots/alice/b000042"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(stage.state(), state);
}

#[test]
fn a_manifest_that_disagrees_with_the_disk_is_not_believed_and_nothing_is_changed() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(3, false);
    stage.secure("0.0.24").unwrap();
    stage.switch_in().unwrap();
    let state = stage.state();
    let database = stage.custody().join("original/state.sqlite");
    let aside = database.with_extension("aside");
    fs::rename(&database, &aside).unwrap();
    let error = stage.restore(true).unwrap_err().to_string();
    assert!(error.contains("is gone, and what lies in its place is not the original; nothing was changed"), "{error}");
    fs::copy(&aside, &database).unwrap();
    let error = stage.restore(true).unwrap_err().to_string();
    assert!(error.contains("is not the file that was put there; nothing was changed"), "{error}");
    assert_eq!(stage.state(), state);
    fs::rename(&aside, &database).unwrap();
    stage.restore(true).unwrap();
}
