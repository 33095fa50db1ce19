//! `attachments/`: with the rest in both directions, copied once, and looked at no further than needed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::stage::{BUMP, FileSystem, Stage, UID, as_user, tree};
use crate::domain::{BumpId, SeedReport};
use crate::state::{StateError, preflight, secure};
use crate::worker::tasks::seed::begin;

/// Makes all below `attachments/` look as if it was written long ago, as most of it is.
fn age(stage: &Stage) {
    let ok = std::process::Command::new("find")
        .arg(stage.userdata().join("attachments"))
        .args(["-exec", "touch", "-h", "-d", "2024-01-01", "{}", "+"])
        .status()
        .unwrap();
    assert!(ok.success());
}

/// Somebody with attachments, and a database that is open, so that a copy can be made beside it.
fn attached(stage: &Stage) -> rusqlite::Connection {
    stage.database(3, false);
    for n in 0..40 {
        stage.write(&format!("attachments/t{}/{n}.png", n % 4), &vec![n; 5000], 0o640);
    }
    as_user(|| fs::create_dir(stage.userdata().join("attachments/empty")).unwrap());
    age(stage);
    let path = stage.userdata().join("state.sqlite");
    as_user(move || {
        let db = rusqlite::Connection::open(path).unwrap();
        db.execute_batch("INSERT INTO events VALUES ('open')").unwrap();
        db
    })
}

/// A copy made beside the server; what `meanwhile` does; the server's end; custody and switch.
fn bumped(stage: &Stage, db: rusqlite::Connection, meanwhile: impl FnOnce() + Send) -> SeedReport {
    let (live, _) = as_user(|| begin(&stage.userdata(), &stage.seed_dir())).unwrap();
    as_user(meanwhile);
    drop(db);
    let seed = as_user(|| live.finish()).unwrap();
    secure::begin(&stage.vault, &stage.place, BUMP, &"0.0.24".parse().unwrap(), 1, seed.clone()).unwrap();
    stage.switch_in().unwrap();
    seed
}

fn below(path: &Path) -> super::stage::Tree {
    tree(&path.join("attachments"))
}

#[test]
fn only_attachments_that_changed_since_the_live_copy_are_copied_in_the_gap() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    let db = attached(&stage);
    let at = stage.userdata().join("attachments");
    let seed = bumped(&stage, db, || {
        fs::write(at.join("t0/new.png"), vec![7; 100]).unwrap();
        fs::write(at.join("t1/1.png"), vec![8; 200]).unwrap();
        fs::remove_file(at.join("t2/2.png")).unwrap();
        fs::remove_dir_all(at.join("t3")).unwrap();
        fs::remove_dir(at.join("empty")).unwrap();
        fs::write(at.join("empty"), b"a file now").unwrap();
    });
    let log = fs::metadata(stage.userdata().join("state.sqlite-wal")).map_or(0, |meta| meta.len());
    assert_eq!(seed.late_bytes - log, 100 + 200 + 10, "and nothing else");
    let original = stage.custody().join("original");
    assert_eq!(below(&stage.userdata()), below(&original), "content, names, modes, owners");
    let inode = |path: &Path| fs::metadata(path.join("attachments/t0/0.png")).unwrap();
    assert_ne!(inode(&stage.userdata()).ino(), inode(&original).ino());
    assert_eq!(inode(&original).nlink(), 1, "the new version has no second name of an original");
}

#[test]
fn a_rollback_brings_back_the_very_attachments_that_were_there() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    let db = attached(&stage);
    let before = below(&stage.userdata());
    let inode = |name: &str| fs::metadata(stage.userdata().join("attachments").join(name)).unwrap().ino();
    let were = (inode("."), inode("t0/0.png"));
    bumped(&stage, db, || ());
    stage.write("attachments/t0/0.png", b"the new version writes in place", 0o644);
    stage.write("attachments/t9/late.png", b"attached to the new version", 0o644);
    fs::remove_dir_all(stage.userdata().join("attachments/t1")).unwrap();
    let salvage = stage.restore(true).unwrap().unwrap();
    assert_eq!(below(&stage.userdata()), before);
    assert_eq!((inode("."), inode("t0/0.png")), were, "by rename");
    assert_eq!(fs::read(salvage.path.join("attachments/t9/late.png")).unwrap(), b"attached to the new version");
}

#[test]
fn a_change_within_a_tick_of_the_copy_is_brought_over_although_its_time_and_size_are_the_same() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    let db = attached(&stage);
    stage.write("attachments/t0/fresh.png", b"one", 0o644);
    let file = stage.userdata().join("attachments/t0/fresh.png");
    let time = fs::metadata(&file).unwrap().modified().unwrap();
    bumped(&stage, db, || {
        fs::write(&file, b"two").unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    });
    assert_eq!(fs::read(&file).unwrap(), b"two");
}

#[test]
fn attachments_come_back_from_the_archive_and_a_second_snapshot_of_them_takes_next_to_nothing() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(3, false);
    let noise: Vec<u8> = (0u32..75_000).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    stage.write("attachments/a/large.bin", &noise, 0o640);
    stage.write("attachments/empty.txt", b"", 0o600);
    let store = stage.vault.root.join("snapshots/alice/store");
    let size = || -> u64 { fs::read_dir(&store).unwrap().map(|pack| pack.unwrap().metadata().unwrap().len()).sum() };
    let mut first = 0;
    for round in [1, 2] {
        let before = below(&stage.userdata());
        stage.secure("0.0.24").unwrap();
        stage.switch_in().unwrap();
        stage.vault.archive(&stage.place, BUMP).unwrap();
        if round == 1 {
            first = size();
            // The next one under another name.
            let dir = stage.vault.root.join("snapshots/alice");
            fs::rename(dir.join("b000042"), dir.join("b000007")).unwrap();
            let manifest = dir.join("b000007/manifest.json");
            let json = fs::read_to_string(&manifest).unwrap();
            fs::write(&manifest, json.replace("b000042", "b000007")).unwrap();
        }
        assert_eq!(below(&stage.userdata()), before);
    }
    assert!(first > 300_000 && size() - first < 20_000, "{first}, then {}", size());
    let before = below(&stage.userdata());
    fs::remove_dir_all(stage.userdata().join("attachments")).unwrap();
    stage.vault.unarchive(&stage.place, BumpId(7), BUMP).unwrap();
    stage.restore(true).unwrap();
    assert_eq!(below(&stage.userdata()), before);
}

#[test]
fn custody_and_snapshots_of_earlier_versions_of_t3pin_leave_attachments_where_they_are() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(3, false);
    stage.secure("0.0.24").unwrap();
    stage.switch_in().unwrap();
    stage.write("attachments/a.png", b"never taken", 0o644);
    let manifest = stage.custody().join("manifest.json");
    let old = fs::read_to_string(&manifest).unwrap().replace(r#""with_attachments": true"#, r#""with_attachments": false"#);
    fs::write(&manifest, old).unwrap();
    stage.restore(true).unwrap();
    assert_eq!(fs::read(stage.userdata().join("attachments/a.png")).unwrap(), b"never taken");
}

#[test]
fn what_is_no_plain_file_among_attachments_is_named_before_anything_is_touched_and_nothing_is_followed() {
    type Spoil = fn(&Path);
    let cases: [(&str, &str, Spoil); 6] = [
        ("odd", "is a symbolic link", |at| symlink("/etc/shadow", at.join("t0/odd")).unwrap()),
        ("odd", "is a symbolic link", |at| symlink("/etc", at.join("t0/odd")).unwrap()),
        ("odd", "is a FIFO", |at| {
            let mode = rustix::fs::Mode::RWXU;
            rustix::fs::mknodat(rustix::fs::CWD, at.join("t0/odd"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        }),
        ("t0/0.png", "has 2 hard links", |at| fs::hard_link(at.join("t0/0.png"), at.join("t0/odd")).unwrap()),
        ("d/d/d", "is nested too deeply", |at| {
            fs::create_dir_all((0..20).fold(at.to_owned(), |path, _| path.join("d"))).unwrap();
        }),
        ("attachments", "is a symbolic link", |at| {
            fs::rename(at, at.with_file_name("elsewhere")).unwrap();
            symlink("elsewhere", at).unwrap();
        }),
    ];
    let fs = FileSystem::new();
    for (n, (name, what, spoil)) in cases.into_iter().enumerate() {
        let stage = Stage::new(&fs, &format!("user{n}"));
        let db = attached(&stage);
        let at = stage.userdata().join("attachments");
        as_user(|| spoil(&at));
        let before = below(&stage.userdata());
        let told = |error: String| assert!(error.contains(name) && error.contains(what), "{what}: {error}");
        told(preflight::preflight(&stage.vault, &stage.place).unwrap_err().to_string());
        told(format!("{:?}", as_user(|| begin(&stage.userdata(), &stage.seed_dir()).map(drop)).unwrap_err()));
        drop(db);
        told(stage.secure("0.0.24").unwrap_err().to_string());
        assert_eq!(below(&stage.userdata()), before, "{what}");
    }
}

#[test]
fn an_attachment_of_somebody_else_s_is_refused_and_so_are_more_than_can_be_held() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.write("attachments/a.png", b"a", 0o644);
    std::os::unix::fs::chown(stage.userdata().join("attachments/a.png"), Some(UID - 1), None).unwrap();
    assert!(matches!(preflight::preflight(&stage.vault, &stage.place), Err(StateError::BadPath { .. })));
    let many = Stage::new(&fs, "bob");
    many.write("attachments/a.png", b"a", 0o644);
    as_user(|| {
        for n in 0..50_000 {
            fs::File::create(many.userdata().join(format!("attachments/{n}"))).unwrap();
        }
    });
    let error = preflight::preflight(&many.vault, &many.place).unwrap_err().to_string();
    assert!(error.contains("more than 50000 entries"), "{error}");
}

#[test]
fn attachments_on_a_file_system_of_their_own_are_refused_in_words() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.write("attachments/mounted/a.png", b"a", 0o644);
    let at = stage.userdata().join("attachments/mounted");
    rustix::mount::mount("tmpfs", &at, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    std::os::unix::fs::chown(&at, Some(UID), Some(UID)).unwrap();
    let error = preflight::preflight(&stage.vault, &stage.place);
    rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH).unwrap();
    let error = error.unwrap_err().to_string();
    assert!(error.contains("attachments/mounted is another file system"), "{error}");
}

#[test]
fn a_directory_that_its_owner_may_not_write_to_is_copied_with_what_is_added_to_it_later() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    let db = attached(&stage);
    let at = stage.userdata().join("attachments/t0");
    let mode = |mode| fs::Permissions::from_mode(mode);
    as_user(|| fs::set_permissions(&at, mode(0o555)).unwrap());
    bumped(&stage, db, || {
        fs::set_permissions(&at, mode(0o755)).unwrap();
        fs::write(at.join("late.png"), b"late").unwrap();
        fs::set_permissions(&at, mode(0o555)).unwrap();
    });
    assert_eq!(below(&stage.userdata()), below(&stage.custody().join("original")));
}
