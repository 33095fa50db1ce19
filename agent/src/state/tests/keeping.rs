//! Holds, archive, retention.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use super::stage::{BUMP, FileSystem, Stage, events};
use crate::domain::BumpId;
use crate::state::StateError;
use crate::state::archive::shelf::Shelf;
use crate::worker::files::Deadline;
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
fn a_hold_for_which_there_is_no_room_leaves_nothing_behind() {
    let disk = FileSystem::sized(1);
    let stage = Stage::new(&disk, "alice");
    assert!(fs::write(disk.path().join("filler"), vec![0; 2 << 20]).is_err());
    assert!(stage.vault.hold(&stage.place.account.user, BUMP).unwrap_err().is_full());
    assert_eq!(fs::read_dir(disk.path().join("vaults/alice/holds")).unwrap().count(), 0);
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
    // Killed at every change of the disk, it can be repeated.
    for effects in 0.. {
        budget::allow(Some(effects));
        let through = stage.vault.unarchive(&stage.place, snapshot.id, BUMP).is_ok();
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
fn the_new_version_is_not_to_be_started_unless_every_original_is_in_custody() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(7, false);
    let refused = || crate::state::switch::refuse_unsecured(&stage.vault, &stage.place, BUMP).is_err();
    assert!(refused(), "nothing was taken");
    stage.secure("0.0.24").unwrap();
    stage.switch_in().unwrap();
    assert!(!refused());
    stage.restore(true).unwrap();
    assert!(refused(), "they are back in place");
}

#[test]
fn a_copy_of_which_a_part_is_set_aside_already_is_not_started_on() {
    for keep_salvage in [true, false] {
        let fs = FileSystem::new();
        let stage = Stage::new(&fs, "alice");
        stage.database(7, false);
        stage.write("environment-id", b"9f1c", 0o644);
        stage.secure("0.0.24").unwrap();
        stage.switch_in().unwrap();
        // A restore that was killed after its first move.
        let aside = stage.custody().join(if keep_salvage { "salvage" } else { "discard" });
        fs::create_dir(&aside).unwrap();
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o700)).unwrap();
        fs::rename(stage.userdata().join("environment-id"), aside.join("environment-id")).unwrap();
        let refused = crate::state::switch::refuse_unsecured(&stage.vault, &stage.place, BUMP).unwrap_err();
        assert!(refused.to_string().contains("on its way back"), "{refused}");
        stage.restore(keep_salvage).unwrap();
        assert_eq!(fs::read(stage.userdata().join("environment-id")).unwrap(), b"9f1c");
        // And what that left behind keeps no later round from being whole.
        stage.secure("0.0.24").unwrap();
        stage.switch_in().unwrap();
    }
}

#[test]
fn what_is_back_in_place_is_not_brought_back_over_the_work_done_on_it_since() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(7, false);
    let (_, snapshot) = stage.secure("0.0.24").unwrap();
    stage.switch_in().unwrap();
    stage.vault.archive(&stage.place, BUMP).unwrap();
    stage.vault.unarchive(&stage.place, snapshot.id, BUMP).unwrap();
    stage.restore(true).unwrap();
    stage.write("settings.json", b"work with A since", 0o644);
    let worked_on = stage.state();
    // As a rollback does that is asked for again, because the first one got stuck on its last step.
    stage.vault.unarchive(&stage.place, snapshot.id, BUMP).unwrap();
    stage.restore(true).unwrap();
    assert_eq!(stage.state(), worked_on);
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
        let entries = fs::read_dir(stage.custody()).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name()).collect::<std::collections::BTreeSet<_>>()
    };
    let (running, archived) = (stage.state(), names(&stage));
    stage.vault.unarchive(&stage.place, snapshot.id, BUMP).unwrap();
    assert_eq!(stage.state(), running, "the server may run meanwhile");
    stage.vault.archive(&stage.place, BUMP).unwrap();
    assert_eq!(names(&stage), archived);
    // Broken off half-way, as on a full disk.
    budget::allow(Some(3));
    assert!(stage.vault.unarchive(&stage.place, snapshot.id, BUMP).is_err());
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
    let pack = snapshot.path.parent().unwrap().join("store/p000001");
    let spoil = || {
        let mut bytes = fs::read(&pack).unwrap();
        bytes[500] ^= 1;
        fs::write(&pack, bytes).unwrap();
    };
    // Killed at every change of the disk, with what it had made spoilt: the original stays until a whole snapshot is there.
    for effects in 0.. {
        budget::allow(Some(effects));
        let through = stage.vault.archive(&stage.place, BUMP).is_ok();
        budget::allow(None);
        if through {
            break;
        }
        let manifest = fs::read_to_string(stage.custody().join("manifest.json")).unwrap_or_default();
        if pack.exists() && manifest.contains(r#""phase": "taken""#) {
            spoil();
        }
    }
    assert!(!stage.custody().exists(), "nothing is left in custody");
    let verified = || {
        let shelf = Shelf::open(&stage.vault, &snapshot.user).unwrap();
        let (all, _) = crate::state::snapshot::list(&shelf).unwrap();
        let wrong = crate::state::archive::keep::verify(&shelf, &all, Deadline::NONE, |_, _| ()).unwrap();
        (wrong, all[0].verified(&shelf).unwrap().wrong)
    };
    assert_eq!(verified(), (vec![None], None));
    stage.vault.unarchive(&stage.place, snapshot.id, BUMP).unwrap();
    stage.restore(true).unwrap();
    assert_eq!(stage.state(), original);
    for pack in fs::read_dir(pack.parent().unwrap()).unwrap() {
        let path = pack.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        bytes[500] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    // For another bump, as this one has brought it back already.
    let error = stage.vault.unarchive(&stage.place, snapshot.id, BumpId(BUMP.0 + 1)).unwrap_err();
    assert!(error.to_string().contains("lost or changed"), "{error}");
    assert_eq!(stage.state(), original);
    let (wrong, noted) = verified();
    assert!(wrong[0].as_ref().unwrap().contains("state.sqlite"), "{wrong:?}");
    assert_eq!(wrong[0], noted);
}

/// As earlier versions of t3pin left it.
fn raw_snapshot(stage: &Stage, id: BumpId, created_ms: i64, database: &[u8]) {
    use std::os::unix::fs::DirBuilderExt;
    let dir = stage.vault.user_dir("snapshots", &stage.place.account.user).unwrap().path().join(id.to_string());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.join("userdata")).unwrap();
    fs::write(dir.join("userdata/state.sqlite"), database).unwrap();
    let entry = crate::domain::StateEntry {
        path: "state.sqlite".to_owned(),
        kind: crate::domain::EntryKind::File,
        mode: 0o644,
        bytes: database.len() as u64,
        blake3: blake3::hash(database).to_hex().to_string(),
    };
    let snapshot = crate::domain::Snapshot {
        id,
        user: stage.place.account.user.clone(),
        version: "0.0.23".parse().unwrap(),
        migration_level: None,
        created_ms,
        bytes: entry.bytes,
        path: dir.clone(),
        entries: vec![entry],
    };
    fs::write(dir.join("manifest.json"), serde_json::to_vec_pretty(&snapshot).unwrap()).unwrap();
}

#[test]
fn a_snapshot_of_an_earlier_t3pin_is_verified_and_restored() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(3, false);
    let old = fs::read(stage.userdata().join("state.sqlite")).unwrap();
    raw_snapshot(&stage, BumpId(7), 7, &old);
    stage.database(9, false);
    stage.vault.unarchive(&stage.place, BumpId(7), BUMP).unwrap();
    stage.restore(true).unwrap();
    assert_eq!(events(&stage.userdata().join("state.sqlite")), 3);
    let path = stage.vault.user_dir("snapshots", &stage.place.account.user).unwrap().path().join("b000007/userdata/state.sqlite");
    let mut bytes = old.clone();
    bytes[5000] ^= 1;
    fs::write(path, bytes).unwrap();
    let shelf = Shelf::open(&stage.vault, &stage.place.account.user).unwrap();
    let (all, _) = crate::state::snapshot::list(&shelf).unwrap();
    let wrong = crate::state::archive::keep::verify(&shelf, &all, Deadline::NONE, |_, _| ()).unwrap();
    assert!(wrong[0].is_some());
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
    assert!(matches!(stage.vault.unarchive(&stage.place, snapshot.id, BUMP), Err(StateError::Mismatch { .. })));
    let other = Stage::new(&fs, "bob");
    assert!(other.vault.unarchive(&other.place, snapshot.id, BUMP).is_err());
}

#[test]
fn snapshots_are_root_s_alone_and_the_oldest_go_first() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    let user = &stage.place.account.user;
    stage.database(1, false);
    let database = fs::read(stage.userdata().join("state.sqlite")).unwrap();
    for n in [10, 11] {
        raw_snapshot(&stage, BumpId(n), n.into(), &database);
    }
    let (_, newest) = stage.secure("0.0.24").unwrap();
    stage.switch_in().unwrap();
    stage.vault.archive(&stage.place, BUMP).unwrap();
    let dir = newest.path.parent().unwrap();
    for path in [dir.join("store"), newest.path.clone(), newest.path.join("recipe"), dir.join("store/p000001")] {
        let seen = fs::metadata(&path).unwrap();
        assert_eq!((seen.uid(), seen.mode() & 0o077), (0, 0), "{}", path.display());
    }
    fs::create_dir(dir.join("b000012")).unwrap();
    let retain = |keep, max_age, max_bytes| {
        let retention = crate::state::Retention { keep, max_age, max_bytes };
        let gone = stage.vault.retain(user, retention).unwrap();
        gone.iter().map(|(snapshot, _)| snapshot.id.0).collect::<Vec<_>>()
    };
    let left = || {
        let shelf = Shelf::open(&stage.vault, user).unwrap();
        let (all, broken) = crate::state::snapshot::list(&shelf).unwrap();
        (all.iter().map(|kept| kept.snapshot.id.0).collect::<Vec<_>>(), broken.len())
    };
    assert_eq!(left(), (vec![10, 11, 42], 1));
    assert_eq!(retain(2, None, None), [10]);
    assert_eq!(retain(5, Some(Duration::from_secs(3600)), None), [11], "the newest is old, too, and stays");
    assert_eq!(retain(0, Some(Duration::from_secs(1)), Some(1)), [0u32; 0], "one is always kept");
    assert_eq!(left(), (vec![42], 1));
}

#[test]
fn nothing_old_goes_while_the_newest_is_damaged() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(1, false);
    let database = fs::read(stage.userdata().join("state.sqlite")).unwrap();
    raw_snapshot(&stage, BumpId(10), 10, &database);
    raw_snapshot(&stage, BumpId(11), 11, &database);
    let user = &stage.place.account.user;
    let path = stage.vault.user_dir("snapshots", user).unwrap().path().join("b000011/userdata/state.sqlite");
    fs::write(path, b"rotten").unwrap();
    let retention = crate::state::Retention { keep: 1, max_age: None, max_bytes: None };
    assert!(matches!(stage.vault.retain(user, retention), Err(StateError::Mismatch { .. })));
    // By order neither: it is the only one that is whole.
    let until = Deadline::NONE;
    assert!(crate::state::retain::remove(&stage.vault, user, BumpId(10), until).is_err());
    crate::state::retain::remove(&stage.vault, user, BumpId(11), until).unwrap();
    let shelf = Shelf::open(&stage.vault, user).unwrap();
    assert_eq!(crate::state::snapshot::list(&shelf).unwrap().0.len(), 1);
}

#[test]
fn snapshots_of_many_bumps_share_what_did_not_change_and_each_comes_back_as_it_was() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    let mut kept = Vec::new();
    for rows in [40, 41, 42] {
        stage.database(rows, true);
        let original = stage.state();
        let (_, snapshot) = stage.secure("0.0.24").unwrap();
        stage.switch_in().unwrap();
        stage.vault.archive(&stage.place, BUMP).unwrap();
        // The next one under another name.
        let id = BumpId(u32::try_from(rows).unwrap() + 100);
        let dir = snapshot.path.parent().unwrap().join(id.to_string());
        fs::rename(&snapshot.path, &dir).unwrap();
        let json = fs::read_to_string(dir.join("manifest.json")).unwrap();
        fs::write(dir.join("manifest.json"), json.replace("b000042", &id.to_string())).unwrap();
        kept.push((id, original));
    }
    for (id, original) in kept {
        stage.vault.unarchive(&stage.place, id, BUMP).unwrap();
        stage.restore(true).unwrap();
        let without = |mut tree: super::stage::Tree| {
            tree.remove("state.sqlite-shm");
            tree
        };
        assert_eq!(without(stage.state()), without(original), "{id}");
    }
}

#[test]
fn preflight_says_how_much_there_is_and_where_custody_will_be() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(1, false);
    let before = super::stage::tree(fs.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let found = runtime.block_on(stage.vault.preflight(&stage.place)).unwrap();
    assert_eq!(found.custody, fs.path().canonicalize().unwrap().join(".t3pin/alice"));
    assert_eq!(found.state_bytes, fs::metadata(stage.userdata().join("state.sqlite")).unwrap().len());
    assert_eq!(super::stage::tree(fs.path()), before, "it only looks");
    runtime.shutdown_timeout(Duration::from_secs(1));
}

#[test]
fn a_settled_original_comes_back_from_the_archive_although_the_bump_does_not_know_that_it_is_there() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(7, false);
    let original = stage.state();
    stage.secure("0.0.24").unwrap();
    stage.switch_in().unwrap();
    stage.vault.archive(&stage.place, BUMP).unwrap();
    assert!(stage.restore(true).unwrap().is_some(), "what lay in its place is kept");
    assert_eq!(stage.state(), original);
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
