//! On the file systems that homes are on: custody and rollback are renames everywhere, clones where there are any, and quotas and
//! full disks stop a bump before it has begun. What cannot be had on a host says so (`SKIPPED`); `tests/run` says it, too.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::stage::{BUMP, FileSystem, Stage, UID, as_user, events};
use crate::domain::SeedMethod;
use crate::state::{preflight, secure};
use crate::worker::TaskErrorKind;
use crate::worker::tasks::seed::{NotLive, begin};

const KINDS: [(&str, bool); 3] = [("ext4", false), ("xfs", true), ("btrfs", true)];

/// Inodes of the files that matter.
fn inodes(dir: &Path) -> Vec<u64> {
    ["state.sqlite", "secrets", "secrets/key", "attachments", "attachments/a/b.png"]
        .map(|name| fs::metadata(dir.join(name)).unwrap().ino())
        .to_vec()
}

/// One bump with the copy made beside the server, and its rollback: the very same files come back, by rename. `clones` is whether
/// the copy must be a clone, and be called one.
fn there_and_back(stage: &Stage, clones: bool) {
    stage.database(3000, false);
    stage.write("secrets/key", b"key", 0o600);
    stage.write("attachments/a/b.png", &vec![7; 100_000], 0o640);
    let database = stage.userdata().join("state.sqlite");
    let db = as_user(|| {
        let db = rusqlite::Connection::open(&database).unwrap();
        db.execute_batch("INSERT INTO events VALUES ('open')").unwrap();
        db
    });
    let (live, report) = as_user(|| begin(&stage.userdata(), &stage.seed_dir())).unwrap();
    assert_eq!(report.method, if clones { SeedMethod::LiveReflink } else { SeedMethod::LiveCopy });
    db.execute_batch("INSERT INTO events VALUES ('late')").unwrap();
    drop(db);
    let before = inodes(&stage.userdata());
    let seed = as_user(|| live.finish()).unwrap();
    assert!(seed.late_bytes < 200_000 && seed.late_bytes > 0, "{}", seed.late_bytes);
    secure::begin(&stage.vault, &stage.place, BUMP, &"0.0.24".parse().unwrap(), 1, seed).unwrap();
    stage.switch_in().unwrap();
    assert_eq!(inodes(&stage.custody().join("original")), before);
    assert_eq!(events(&database), 3002);
    stage.restore(true).unwrap();
    assert_eq!(inodes(&stage.userdata()), before);
    // And the way of a server that did not run.
    let (seed, _) = stage.secure("0.0.24").unwrap();
    assert_eq!(seed.method, if clones { SeedMethod::Reflink } else { SeedMethod::Copy });
    stage.switch_in().unwrap();
    stage.vault.archive(&stage.place, BUMP).unwrap();
    assert!(!stage.custody().join("original").exists());
}

#[test]
fn custody_and_rollback_are_renames_where_home_and_var_are_different_file_systems() {
    let var = FileSystem::new();
    for (kind, clones) in KINDS {
        let Some(homes) = FileSystem::image(kind, &[], "defaults") else { continue };
        let stage = Stage::at(&var.path().join(kind), homes.path().join("alice"), "alice");
        there_and_back(&stage, clones);
        assert_eq!(stage.custody().ancestors().nth(3).unwrap(), homes.path().canonicalize().unwrap(), "{kind}");
    }
}

#[test]
fn custody_and_rollback_are_renames_where_every_home_is_a_mount_of_its_own() {
    let var = FileSystem::new();
    for (kind, clones) in KINDS {
        let Some(home) = FileSystem::image(kind, &[], "defaults") else { continue };
        let stage = Stage::at(&var.path().join(kind), home.path().to_owned(), "alice");
        there_and_back(&stage, clones);
        assert_eq!(stage.custody().ancestors().nth(3).unwrap(), home.path().canonicalize().unwrap(), "{kind}");
    }
}

#[test]
fn custody_and_rollback_are_renames_where_every_home_is_a_subvolume_of_btrfs() {
    let Some(homes) = FileSystem::image("btrfs", &[], "defaults") else { return };
    let home = homes.path().join("alice");
    run("btrfs", &["subvolume", "create", home.to_str().unwrap()]).unwrap();
    let stage = Stage::at(&homes.path().join("vault"), home.clone(), "alice");
    there_and_back(&stage, true);
    assert_eq!(stage.custody().ancestors().nth(3).unwrap(), home.canonicalize().unwrap());
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let said = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if said.status.success() { Ok(()) } else { Err(format!("{program}: {}", String::from_utf8_lossy(&said.stderr))) }
}

/// A home in which its user may have 8 MB more, where this kind of quota can be had.
fn limited(kind: &str) -> Option<(FileSystem, std::path::PathBuf)> {
    let fs = match kind {
        "ext4" => FileSystem::image(kind, &["-O", "quota", "-E", "quotatype=usrquota"], "usrquota"),
        _ => FileSystem::image(kind, &[], "defaults"),
    }?;
    let home = fs.path().join("alice");
    let (top, name, uid) = (fs.path().to_str().unwrap(), home.to_str().unwrap(), UID.to_string());
    let limit = match kind {
        "ext4" => run("setquota", &["-u", &uid, "8192", "8192", "0", "0", top]),
        _ => run("btrfs", &["subvolume", "create", name])
            .and_then(|()| run("btrfs", &["quota", "enable", top]))
            .and_then(|()| run("btrfs", &["qgroup", "limit", "8M", name])),
    };
    match limit {
        Ok(()) => Some((fs, home)),
        Err(why) => {
            eprintln!("SKIPPED: no quota on {kind} can be had here: {why}");
            None
        }
    }
}

#[test]
fn a_user_over_quota_is_refused_with_the_server_left_running_and_nothing_lost() {
    let var = FileSystem::new();
    for kind in ["ext4", "btrfs"] {
        let Some((_fs, home)) = limited(kind) else { continue };
        let stage = Stage::at(&var.path().join(kind), home, "alice");
        stage.database(3, false);
        let noise: Vec<u8> = (0u32..1_500_000).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        stage.write("attachments/large.bin", &noise, 0o644);
        let database = stage.userdata().join("state.sqlite");
        let db = as_user(|| {
            let db = rusqlite::Connection::open(&database).unwrap();
            db.execute_batch("INSERT INTO events VALUES ('open')").unwrap();
            db
        });
        let before = stage.state();
        // On btrfs there is room for clones. And no SQLite is at work there once it is full: it would die of the page that it shares
        // with the server and that gets no block any more.
        if kind == "ext4" {
            let refused = as_user(|| begin(&stage.userdata(), &stage.seed_dir()).map(drop)).unwrap_err();
            assert!(matches!(&refused, NotLive::Failed(error) if error.kind == TaskErrorKind::NoSpace), "{refused:?}");
            assert_eq!(stage.state(), before);
            drop(db);
        } else {
            drop(db);
            fill(&stage);
        }
        assert!(stage.secure("0.0.24").unwrap_err().is_full(), "{kind}");
        stage.restore(false).unwrap();
        fs::remove_file(stage.place.account.home.join("filler")).ok();
        assert_eq!(events(&database), 4);
    }
}

/// Uses up what the user may have.
fn fill(stage: &Stage) {
    let file = stage.place.account.home.join("filler");
    as_user(|| {
        use std::io::Write;
        let mut file = fs::File::create(file).unwrap();
        let mut n = 0u32;
        loop {
            let piece: Vec<u8> = (0..4096u32).flat_map(|at| (n ^ at).wrapping_mul(2_654_435_761).to_le_bytes()).collect();
            n = n.wrapping_add(7_919);
            if file.write_all(&piece).and_then(|()| file.sync_all()).is_err() {
                return;
            }
        }
    });
}

#[test]
fn a_rollout_that_would_fill_a_disk_half_way_is_told_before_the_first_user_is_touched() {
    let homes = FileSystem::sized(340);
    let var = FileSystem::sized(600);
    let stages: Vec<Stage> = ["alice", "bob", "carol"]
        .map(|name| {
            let stage = Stage::at(&var.path().join("vault"), homes.path().join(name), name);
            as_user(|| {
                fs::create_dir_all(stage.userdata()).unwrap();
                fs::write(stage.userdata().join("state.sqlite"), vec![1; 40 << 20]).unwrap();
            });
            stage
        })
        .into();
    for stage in &stages {
        preflight::preflight(&stage.vault, &stage.place).expect("there is room for each by itself");
    }
    let together = |stages: &[Stage]| {
        let rooms = stages.iter().flat_map(|stage| preflight::rooms(&stage.vault, &stage.place).unwrap());
        preflight::refuse_short(&rooms.collect::<Vec<_>>())
    };
    let error = together(&stages).unwrap_err();
    assert!(error.is_full() && error.to_string().contains(homes.path().to_str().unwrap()), "{error}");
    together(&stages[..1]).unwrap();
    fs::write(var.path().join("other"), vec![1; 470 << 20]).unwrap();
    fs::remove_file(stages[2].userdata().join("state.sqlite")).unwrap();
    let error = together(&stages).unwrap_err().to_string();
    assert!(error.contains(var.path().to_str().unwrap()), "the archive is looked at, too: {error}");
}
