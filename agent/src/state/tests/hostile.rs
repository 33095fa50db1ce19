//! What a user can put in the way.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use super::stage::{BUMP, FileSystem, Stage, UID, as_user, events};
use crate::state::StateError;
use crate::worker::{Answer, Task, TaskErrorKind};

fn is_bad_path(error: &StateError) -> bool {
    match error {
        StateError::BadPath { .. } => true,
        StateError::Worker(crate::worker::WorkerError::Task(task)) => task.kind == TaskErrorKind::BadPath,
        _ => false,
    }
}

/// What makes a user's data hostile, and what it is to be called.
fn spoil(stage: &Stage, how: &str) {
    let data = stage.userdata();
    let database = data.join("state.sqlite");
    if how == "a foreign owner" {
        return std::os::unix::fs::chown(&database, Some(UID - 1), None).unwrap();
    }
    as_user(|| match how {
        "a symlinked database" => {
            fs::rename(&database, data.join("elsewhere")).unwrap();
            symlink("/etc/passwd", &database).unwrap();
        }
        "a FIFO" => {
            fs::remove_file(&database).unwrap();
            rustix::fs::mknodat(
                rustix::fs::CWD,
                &database,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
                0,
            )
            .unwrap();
        }
        "a directory in place of the database" => {
            fs::remove_file(&database).unwrap();
            fs::create_dir(&database).unwrap();
        }
        "a hard link" => fs::hard_link(&database, data.join("second name")).unwrap(),
        "a symlink in secrets" => {
            fs::create_dir_all(data.join("secrets")).unwrap();
            symlink("/etc/shadow", data.join("secrets/key")).unwrap();
        }
        "a symlinked userdata" => {
            fs::rename(&data, data.with_file_name("real")).unwrap();
            symlink("/etc", &data).unwrap();
        }
        "a symlinked base directory" => {
            fs::rename(&stage.place.base_dir, stage.place.account.home.join("real")).unwrap();
            symlink("real", &stage.place.base_dir).unwrap();
        }
        "secrets nested too deeply" => {
            let deep = (0..20).fold(data.join("secrets"), |path, _| path.join("d"));
            fs::create_dir_all(deep).unwrap();
        }
        other => panic!("{other}"),
    });
}

#[test]
fn nothing_hostile_is_taken_and_nothing_is_changed() {
    let cases = [
        "a symlinked database",
        "a FIFO",
        "a directory in place of the database",
        "a hard link",
        "a foreign owner",
        "a symlink in secrets",
        "a symlinked userdata",
        "a symlinked base directory",
        "secrets nested too deeply",
    ];
    let fs = FileSystem::new();
    for (n, how) in cases.into_iter().enumerate() {
        let stage = Stage::new(&fs, &format!("user{n}"));
        stage.database(3, false);
        spoil(&stage, how);
        let before = listing(&stage);
        let error = stage.secure("0.0.24").expect_err(how);
        assert!(is_bad_path(&error), "{how}: {error}");
        assert_eq!(listing(&stage), before, "{how}");
        if how != "a directory in place of the database" {
            let error = crate::state::preflight::preflight(&stage.vault, &stage.place).expect_err(how);
            assert!(is_bad_path(&error), "{how}: {error}");
        }
        if how != "a symlinked base directory" {
            let copy = Task::CopyLive { userdata: stage.userdata(), dest: stage.place.account.home.join("copy") };
            let error = stage.work(copy).expect_err(how);
            assert_eq!(error.kind, TaskErrorKind::BadPath, "{how}: {error}");
        }
    }
}

/// Names and kinds below the home, without work copies.
fn listing(stage: &Stage) -> Vec<String> {
    let out = Command::new("find")
        .arg(&stage.place.account.home)
        .args(["-name", ".t3pin", "-prune", "-o", "-printf", "%p %y %i %l\n"])
        .output()
        .unwrap();
    let mut lines: Vec<String> = String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn an_exchange_between_copying_and_taking_is_noticed_and_undone() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(3, true);
    stage.write("settings.json", b"{}", 0o644);
    let Answer::Seed(seed) = stage.work(Task::Seed { userdata: stage.userdata(), dest: stage.seed_dir() }).unwrap() else {
        panic!("no seed")
    };
    stage.write("settings.json", b"changed meanwhile", 0o644);
    let before = stage.state();
    let version = "0.0.24".parse().unwrap();
    let result = crate::state::secure::begin(&stage.vault, &stage.place, BUMP, &version, 1, seed);
    assert!(matches!(result, Err(StateError::Mismatch { .. })), "{result:?}");
    assert_eq!(stage.state(), before, "everything is back where it was");
}

#[test]
fn an_open_database_is_not_taken() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(3, false);
    let open = fs::File::open(stage.userdata().join("state.sqlite")).unwrap();
    let mut holder = Command::new("sleep").arg("60").stdin(Stdio::from(open)).spawn().unwrap();
    let result = stage.secure("0.0.24");
    holder.kill().unwrap();
    holder.wait().unwrap();
    let Err(StateError::Held { holders, .. }) = result else { panic!("{result:?}") };
    assert!(holders.contains("sleep") && holders.contains(&holder.id().to_string()), "{holders}");
    stage.secure("0.0.24").unwrap();
}

#[test]
fn a_server_may_have_its_own_database_open_and_nobody_beside_it() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(3, false);
    let open = fs::File::open(stage.userdata().join("state.sqlite")).unwrap();
    let mut holder = Command::new("sleep").arg("60").stdin(Stdio::from(open)).spawn().unwrap();
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", holder.id())).unwrap();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned();
    let held = |server: &str| crate::state::secure::refuse_held(&stage.place, server, &[]);
    let (own, other, none) = (held(&group), held("/system.slice/t3-serve@bob.service"), held(""));
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(group.is_empty() || own.is_ok(), "{group}: {own:?}");
    assert!(matches!(other, Err(StateError::Held { .. })) && matches!(none, Err(StateError::Held { .. })));
}

#[test]
fn custody_that_somebody_else_made_is_refused() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(3, false);
    let planted = fs.path().join(".t3pin");
    fs::create_dir(&planted).unwrap();
    std::os::unix::fs::chown(&planted, Some(UID), None).unwrap();
    let before = stage.state();
    let error = stage.secure("0.0.24").unwrap_err();
    assert!(error.to_string().contains("not to root"), "{error}");
    assert!(crate::state::preflight::preflight(&stage.vault, &stage.place).is_err());
    assert_eq!(stage.state(), before);
}

#[test]
fn vanished_custody_is_a_mismatch_and_no_nothing_to_do() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(3, false);
    stage.secure("0.0.24").unwrap();
    let aside = stage.custody().with_file_name("hidden");
    fs::rename(stage.custody(), &aside).unwrap();
    let error = stage.restore(true).unwrap_err();
    assert!(matches!(&error, StateError::Mismatch { why, .. } if why.contains("is gone")), "{error}");
    fs::rename(&aside, stage.custody()).unwrap();
    fs::rename(stage.custody().join("original/state.sqlite"), fs.path().join("stolen")).unwrap();
    assert!(matches!(stage.restore(true), Err(StateError::Mismatch { .. })));
    assert!(matches!(stage.switch_in(), Err(StateError::Mismatch { .. })), "B does not start without the original in custody");
}

#[test]
fn a_copy_from_which_the_database_was_removed_is_not_started_on() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(3, false);
    let original = stage.state();
    stage.secure("0.0.24").unwrap();
    fs::remove_file(stage.seed_dir().join("state.sqlite")).unwrap();
    assert!(matches!(stage.switch_in(), Err(StateError::Mismatch { .. })));
    stage.restore(false).unwrap();
    assert_eq!(stage.state(), original);
}

#[test]
fn what_lies_in_the_way_of_the_original_is_salvaged_whatever_it_is() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(3, true);
    let original = stage.state();
    stage.secure("0.0.24").unwrap();
    stage.switch_in().unwrap();
    let data = stage.userdata();
    as_user(|| {
        fs::remove_file(data.join("state.sqlite")).unwrap();
        symlink("/etc/passwd", data.join("state.sqlite")).unwrap();
        fs::create_dir_all(data.join("settings.json/a/b")).unwrap();
    });
    let salvage = stage.restore(true).unwrap().unwrap();
    assert_eq!(stage.state(), original);
    assert!(fs::symlink_metadata(salvage.path.join("state.sqlite")).unwrap().is_symlink());
    assert!(salvage.path.join("settings.json/a/b").is_dir());
}

#[test]
fn userdata_that_the_new_version_removed_is_made_again() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(3, false);
    let original = stage.state();
    stage.secure("0.0.24").unwrap();
    fs::remove_dir_all(stage.userdata()).unwrap();
    stage.restore(true).unwrap();
    assert_eq!(stage.state(), original);
    assert_eq!(events(&stage.userdata().join("state.sqlite")), 3);
}
