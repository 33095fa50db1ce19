//! A copy made beside a real server process, brought up to date after that one has ended in whatever way, is the original.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use proptest::prelude::*;
use rusqlite::Connection;

use super::live::{NotLive, begin};
use crate::worker::tasks::stage::{UID, as_user};

/// Small numbers that come as they come, the same for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// Another process that works on the database as hard as it can, until it is told to end or killed.
struct Server {
    child: Child,
}

impl Server {
    fn start(database: &Path, seed: u64) -> Self {
        // By descriptor, as the user may not be allowed to walk to where it was built.
        let binary = fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let mut child = Command::new(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&binary)))
            .args(["--exact", "--ignored", "--nocapture", "worker::tasks::seed::tests::plays_the_server"])
            .env("T3PIN_TEST_DATABASE", database)
            .env("T3PIN_TEST_SEED", seed.to_string())
            .current_dir("/")
            .uid(UID)
            .gid(UID)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        assert!(said.lines().map_while(Result::ok).any(|line| line.ends_with("at work")), "the server does not come up");
        Self { child }
    }

    /// Ends it: closing its database, or killed in the middle of whatever it does.
    fn stop(mut self, kill: bool) {
        if kill {
            self.child.kill().unwrap();
        }
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

#[test]
#[ignore = "is a process of its own, started by the other tests"]
fn plays_the_server() {
    let Some(path) = std::env::var_os("T3PIN_TEST_DATABASE").map(PathBuf::from) else { return };
    let mut chance = Chance(std::env::var("T3PIN_TEST_SEED").unwrap().parse().unwrap());
    let open = |chance: &mut Chance| {
        let db = Connection::open(&path).unwrap();
        db.busy_timeout(Duration::from_secs(10)).unwrap();
        let checkpoint = [0, 1, 20, 1000][chance.below(4) as usize];
        // A small cache: transactions that are not committed yet spill into the log.
        db.execute_batch(&format!("PRAGMA wal_autocheckpoint={checkpoint}; PRAGMA cache_size=10; PRAGMA synchronous=OFF"))
            .unwrap();
        // Checkpoints that wait for readers would wait for ours.
        db.busy_timeout(Duration::from_millis(20)).unwrap();
        db
    };
    let mut db = open(&mut chance);
    while db.execute_batch("UPDATE t SET n = n WHERE id = 1").is_err() {}
    println!("at work");
    let ended = std::thread::spawn(|| {
        std::io::stdin().read_line(&mut String::new()).ok();
    });
    while !ended.is_finished() {
        let (id, size) = (chance.below(400), 1 + chance.below(9000));
        let sql = match chance.below(24) {
            0 => "VACUUM".to_owned(),
            1 => "PRAGMA wal_checkpoint(TRUNCATE)".to_owned(),
            2 => "PRAGMA wal_checkpoint(RESTART)".to_owned(),
            3 => "PRAGMA wal_checkpoint(PASSIVE)".to_owned(),
            4 => "PRAGMA incremental_vacuum(7)".to_owned(),
            5 => format!("CREATE TABLE IF NOT EXISTS x{} (a)", id % 3),
            6 => format!("DROP TABLE IF EXISTS x{}", id % 3),
            7 => format!("DELETE FROM t WHERE id > {id}"),
            8 => format!("BEGIN; UPDATE t SET b = randomblob({size}); ROLLBACK"),
            9 => format!("BEGIN; UPDATE t SET b = randomblob({size}) WHERE id % 3 = 0; COMMIT"),
            10 => {
                drop(db);
                db = open(&mut chance);
                continue;
            }
            11..16 => format!("UPDATE t SET b = randomblob({size}), n = n + 1 WHERE id = {id}"),
            _ => format!("INSERT OR REPLACE INTO t VALUES ({id}, 1, randomblob({size}))"),
        };
        // Readers beside it make some of these fail, as they would a real server's.
        if db.execute_batch(&sql).is_err() {
            db.execute_batch("ROLLBACK").ok();
        }
    }
}

/// A database for the server, of whatever shape.
fn make(userdata: &Path, page_size: u32, auto_vacuum: u32, rows: i64) -> PathBuf {
    fs::create_dir(userdata).unwrap();
    let path = userdata.join("state.sqlite");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(&format!(
        "PRAGMA page_size={page_size}; PRAGMA auto_vacuum={auto_vacuum}; PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;
         CREATE TABLE t(id INTEGER PRIMARY KEY, n, b); CREATE INDEX i ON t(b); CREATE INDEX j ON t(n, id);"
    ))
    .unwrap();
    for id in 0..rows {
        db.execute("INSERT INTO t VALUES (?1, 0, randomblob(?2))", (id, 10 + id * 37 % 5000)).unwrap();
    }
    fs::create_dir(userdata.join("secrets")).unwrap();
    fs::write(userdata.join("secrets/key"), b"key").unwrap();
    fs::write(userdata.join("settings.json"), b"{}").unwrap();
    path
}

/// The database as a server that starts on these files would find it, brought into one file.
fn recovered(userdata: &Path) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    for name in ["state.sqlite", "state.sqlite-wal"] {
        if userdata.join(name).exists() {
            fs::copy(userdata.join(name), dir.path().join(name)).unwrap();
        }
    }
    let path = dir.path().join("state.sqlite");
    let db = Connection::open(&path).unwrap();
    let busy: i64 = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
    assert_eq!(busy, 0);
    let whole: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
    db.close().unwrap();
    fs::read(path).unwrap()
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_default()
}

#[derive(Debug, PartialEq)]
enum Came {
    Finished,
    Unfit,
}

fn beside_a_server(seed: u64, page_size: u32, auto_vacuum: u32, rows: i64, wait_ms: u64, kill: bool) -> Came {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(UID), Some(UID)).unwrap();
    let (userdata, dest) = (dir.path().join("userdata"), dir.path().join(".t3pin/b000001/seed"));
    let path = as_user(|| make(&userdata, page_size, auto_vacuum, rows));
    let server = Server::start(&path, seed);
    as_user(|| {
        let (live, _) = match begin(&userdata, &dest) {
            Ok(begun) => begun,
            Err(NotLive::Unfit(_)) => {
                server.stop(kill);
                return Came::Unfit;
            }
            Err(NotLive::Failed(error)) => panic!("{error}"),
        };
        std::thread::sleep(Duration::from_millis(wait_ms));
        fs::write(userdata.join("settings.json"), seed.to_string()).unwrap();
        server.stop(kill);
        let (main, log) = (bytes(&path), bytes(&userdata.join("state.sqlite-wal")));
        let report = live.finish().unwrap();
        assert!(bytes(&path) == main && bytes(&userdata.join("state.sqlite-wal")) == log, "the originals were only read");
        let original = recovered(&userdata);
        assert_eq!(dest.join("state.sqlite-wal").exists(), report.log);
        assert!(recovered(&dest) == original, "the copy is not the original");
        assert_eq!(fs::read_to_string(dest.join("settings.json")).unwrap(), seed.to_string());
        assert_eq!(bytes(&dest.join("secrets/key")), b"key");
        let mut names: Vec<_> = fs::read_dir(&dest).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["secrets", "settings.json", "state.sqlite", "state.sqlite-wal"][..3 + usize::from(report.log)]);
        Came::Finished
    })
}

#[test]
fn whatever_the_server_writes_and_however_it_ends_the_finished_copy_is_the_original() {
    let (mut finished, mut unfit) = (0, 0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    });
    let shapes = (any::<u64>(), prop::sample::select(vec![512u32, 4096, 65_536]), 0u32..3, 2i64..300, 0u64..60, any::<bool>());
    let counted = std::cell::RefCell::new((&mut finished, &mut unfit));
    runner
        .run(&shapes, |(seed, page_size, auto_vacuum, rows, wait_ms, kill)| {
            let came = beside_a_server(seed, page_size, auto_vacuum, rows, wait_ms, kill);
            let mut counted = counted.borrow_mut();
            *(if came == Came::Finished { &mut *counted.0 } else { &mut *counted.1 }) += 1;
            Ok(())
        })
        .unwrap();
    println!("{finished} copies finished, {unfit} left for later");
    assert!(finished > unfit, "live copies are the rule: {finished} finished, {unfit} not");
}
