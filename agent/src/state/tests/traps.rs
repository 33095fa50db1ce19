//! The traps of copying a live SQLite database, those that no other test is named after, and what else may be in the way. The whole
//! list, each trap with its test, is in `docs/snapshots.md`.

use std::fs;
use std::io::BufRead;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::process::Process;
use super::stage::{BUMP, FileSystem, Stage, UID, as_user, events};
use crate::domain::BumpId;
use crate::state::{Retention, secure};
use crate::worker::tasks::seed::{Live, NotLive, begin};
use crate::worker::{Task, TaskErrorKind};

/// A process that does what it is told in SQL, and answers with the first number, or its error.
fn process(stage: &Stage) -> Process {
    Process::start("state::tests::traps::plays_another_process", &stage.userdata().join("state.sqlite"))
}

#[test]
#[ignore = "is a process of its own, started by the other tests"]
fn plays_another_process() {
    let Some(path) = std::env::var_os("T3PIN_TEST_DATABASE").map(PathBuf::from) else { return };
    let db = Connection::open(path).unwrap();
    db.busy_timeout(std::time::Duration::from_millis(50)).unwrap();
    println!("\nsaid ready");
    for sql in std::io::stdin().lock().lines().map_while(Result::ok) {
        let said = db.prepare(&sql).and_then(|mut statement| {
            let mut rows = statement.query([])?;
            let first = rows.next()?.map(|row| row.get::<_, rusqlite::types::Value>(0)).transpose()?;
            while rows.next()?.is_some() {}
            Ok(first)
        });
        println!("\nsaid {said:?}");
    }
}

fn alice(fs: &FileSystem) -> Stage {
    let stage = Stage::new(fs, "alice");
    stage.database(300, false);
    stage
}

fn live(stage: &Stage) -> Live {
    as_user(|| begin(&stage.userdata(), &stage.seed_dir()).map(|(live, _)| live)).unwrap()
}

/// After the server has ended: custody and switch, and how many events the new version finds.
fn found(stage: &Stage, live: Live) -> i64 {
    let seed = as_user(|| live.finish()).unwrap();
    secure::begin(&stage.vault, &stage.place, BUMP, &"0.0.24".parse().unwrap(), 1, seed).unwrap();
    stage.switch_in().unwrap();
    let database = stage.userdata().join("state.sqlite");
    let db = Connection::open(&database).unwrap();
    let whole: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
    drop(db);
    events(&database)
}

#[test]
fn trap_3_a_log_that_is_begun_anew_beside_the_copy_loses_nothing() {
    let fs = FileSystem::new();
    let stage = alice(&fs);
    let mut server = process(&stage);
    // All of the log is in the database when the copy is begun: nothing holds the server off from beginning it anew.
    server.ask("INSERT INTO events VALUES ('before')");
    server.ask("PRAGMA wal_checkpoint(PASSIVE)");
    let live = live(&stage);
    for n in 0..50 {
        assert_eq!(server.ask(&format!("INSERT INTO events VALUES ('during {n}')")), "Ok(None)");
        server.ask("PRAGMA wal_checkpoint(PASSIVE)");
    }
    server.close();
    assert_eq!(found(&stage, live), 351);
}

#[test]
fn trap_4_nothing_that_is_opened_and_closed_meanwhile_drops_the_locks_of_the_read_transaction() {
    let fs = FileSystem::new();
    let stage = alice(&fs);
    let mut server = process(&stage);
    server.ask("INSERT INTO events VALUES ('before')");
    let live = live(&stage);
    server.ask("INSERT INTO events VALUES ('during')");
    assert_eq!(server.ask("PRAGMA wal_checkpoint(TRUNCATE)"), "Ok(Some(Integer(1)))", "busy: somebody reads");
    // The last close would take the log away.
    server.close();
    assert!(fs::metadata(stage.userdata().join("state.sqlite-wal")).unwrap().len() > 0);
    assert_eq!(found(&stage, live), 302);
}

#[test]
fn trap_5_nothing_beside_the_database_ever_belongs_to_anybody_but_its_owner() {
    let fs = FileSystem::new();
    let stage = Stage::new(&fs, "alice");
    stage.database(300, true);
    // SQLite makes it again for whoever opens the database next.
    fs::remove_file(stage.userdata().join("state.sqlite-shm")).unwrap();
    let mut server = process(&stage);
    server.ask("INSERT INTO events VALUES ('before')");
    let live = live(&stage);
    for task in [
        Task::Look { userdata: stage.userdata() },
        Task::Marks { userdata: stage.userdata() },
        Task::CopyLive { userdata: stage.userdata(), dest: stage.place.account.home.join("copy") },
    ] {
        stage.work(task).unwrap();
    }
    server.kill();
    assert_eq!(found(&stage, live), 301);
    let mut todo = vec![stage.place.account.home.clone()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        assert_eq!(meta.uid(), UID, "{}", path.display());
        if meta.is_dir() {
            todo.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

#[test]
fn trap_9_a_server_that_was_not_really_stopped_is_noticed_before_and_after_its_data_is_taken() {
    let fs = FileSystem::new();
    let stage = alice(&fs);
    let mut server = process(&stage);
    server.ask("INSERT INTO events VALUES ('before')");
    let live = live(&stage);
    let seed = as_user(|| live.finish()).unwrap();
    let version = "0.0.24".parse().unwrap();
    let refused = secure::begin(&stage.vault, &stage.place, BUMP, &version, 1, seed).unwrap_err();
    assert!(refused.to_string().contains("still open"), "{refused}");
    // It goes on with what it has open, which is in its place again.
    assert_eq!(server.ask("INSERT INTO events VALUES ('after')"), "Ok(None)");
    server.close();
    assert_eq!(events(&stage.userdata().join("state.sqlite")), 302);
}

#[test]
fn nothing_hostile_is_copied_beside_a_running_server() {
    type Spoil = fn(&Path);
    let cases: [(&str, Spoil); 6] = [
        ("symbolic link", |database| {
            fs::rename(database, database.with_file_name("elsewhere")).unwrap();
            symlink("elsewhere", database).unwrap();
        }),
        ("FIFO", |database| {
            fs::remove_file(database).unwrap();
            let mode = rustix::fs::Mode::RWXU;
            rustix::fs::mknodat(rustix::fs::CWD, database, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        }),
        ("directory", |database| {
            fs::remove_file(database).unwrap();
            fs::create_dir(database).unwrap();
        }),
        ("hard links", |database| fs::hard_link(database, database.with_file_name("second")).unwrap()),
        ("claims 1099511627776 bytes", |database| {
            fs::File::options().write(true).open(database).unwrap().set_len(1 << 40).unwrap();
        }),
        ("symbolic link", |database| {
            let secrets = database.with_file_name("secrets");
            fs::create_dir(&secrets).unwrap();
            symlink("/etc/shadow", secrets.join("key")).unwrap();
        }),
    ];
    let fs = FileSystem::new();
    for (n, (what, spoil)) in cases.into_iter().enumerate() {
        let stage = Stage::new(&fs, &format!("user{n}"));
        stage.database(30, true);
        let database = stage.userdata().join("state.sqlite");
        as_user(|| spoil(&database));
        let refused = as_user(|| begin(&stage.userdata(), &stage.seed_dir()).map(drop)).unwrap_err();
        let NotLive::Failed(error) = refused else { panic!("{what}: {refused:?}") };
        assert_eq!(error.kind, TaskErrorKind::BadPath, "{error}");
        assert!(error.message.contains(what), "{what}: {error}");
    }
}

#[test]
fn a_corrupt_database_is_refused_while_its_server_runs_on() {
    let fs = FileSystem::new();
    let stage = alice(&fs);
    let database = stage.userdata().join("state.sqlite");
    as_user(|| {
        let db = Connection::open(&database).unwrap();
        db.execute_batch("CREATE TABLE big(b); CREATE INDEX by_b ON big(b); INSERT INTO big SELECT randomblob(900) FROM events")
            .unwrap();
    });
    let mut bytes = fs::read(&database).unwrap();
    let len = bytes.len();
    bytes[len / 2..len / 2 + 16_384].fill(0x55);
    stage.write("state.sqlite", &bytes, 0o644);
    let mut server = process(&stage);
    server.ask("INSERT INTO events VALUES ('works still')");
    let refused = as_user(|| begin(&stage.userdata(), &stage.seed_dir()).map(drop)).unwrap_err();
    let NotLive::Failed(error) = refused else { panic!("{refused:?}") };
    assert_eq!(error.kind, TaskErrorKind::Corrupt, "{error}");
    assert!(error.message.contains("the database is corrupt"), "{error}");
    assert_eq!(server.ask("SELECT count(*) FROM events"), "Ok(Some(Integer(301)))");
    server.close();
}

#[test]
fn a_locked_database_is_waited_for_no_longer_than_a_moment_and_left_alone() {
    let fs = FileSystem::new();
    let stage = alice(&fs);
    let mut server = process(&stage);
    server.ask("PRAGMA locking_mode=EXCLUSIVE");
    server.ask("INSERT INTO events VALUES ('mine alone')");
    let begun = std::time::Instant::now();
    let refused = as_user(|| begin(&stage.userdata(), &stage.seed_dir()).map(drop)).unwrap_err();
    assert!(matches!(&refused, NotLive::Unfit(why) if why.contains("locked")), "{refused:?}");
    let copy = Task::CopyLive { userdata: stage.userdata(), dest: stage.place.account.home.join("copy") };
    assert_eq!(stage.work(copy).unwrap_err().kind, TaskErrorKind::Locked);
    assert!(begun.elapsed() < std::time::Duration::from_secs(30));
    assert_eq!(server.ask("INSERT INTO events VALUES ('and again')"), "Ok(None)");
    server.close();
}

#[test]
fn two_bumps_a_day_are_two_snapshots_and_each_comes_back() {
    let fs = FileSystem::new();
    let stage = alice(&fs);
    let user = stage.place.account.user.clone();
    let mut kept = Vec::new();
    for (id, rows) in [(BumpId(7), 300), (BumpId(8), 301)] {
        stage.secure("0.0.24").unwrap();
        stage.switch_in().unwrap();
        stage.vault.archive(&stage.place, BUMP).unwrap();
        // Both were taken at the very same time, and under this name.
        let dir = stage.vault.root.join("snapshots/alice");
        fs::rename(dir.join(BUMP.to_string()), dir.join(id.to_string())).unwrap();
        let manifest = dir.join(id.to_string()).join("manifest.json");
        let json = fs::read_to_string(&manifest).unwrap().replace(&BUMP.to_string(), &id.to_string());
        fs::write(&manifest, json).unwrap();
        kept.push((id, rows));
        let database = stage.userdata().join("state.sqlite");
        as_user(|| Connection::open(&database).unwrap().execute_batch("INSERT INTO events VALUES ('new')").unwrap());
    }
    let gone = stage.vault.retain(&user, Retention { keep: 2, max_age: None, max_bytes: None }).unwrap();
    assert!(gone.is_empty(), "{gone:?}");
    for (id, rows) in kept {
        stage.vault.unarchive(&stage.place, id, BUMP).unwrap();
        stage.restore(true).unwrap();
        assert_eq!(events(&stage.userdata().join("state.sqlite")), rows);
    }
}
