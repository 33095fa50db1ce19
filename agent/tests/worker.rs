//! The real binary as a worker: another process than the server, with a user's ids and nothing else. Runs as root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use serde_json::{Value, json};

const UID: u32 = 65_533;

/// Asks a worker that runs as `uid`.
fn ask(uid: u32, task: &Value) -> Value {
    let answer = send(uid, &json!({"protocol": 1, "message": task}));
    assert_eq!(answer["protocol"], 1, "{answer}");
    answer["message"].clone()
}

/// Has a worker that runs as `uid` answer a message.
fn send(uid: u32, message: &Value) -> Value {
    // By descriptor, as the user may not be allowed to walk to where it was built.
    let binary = std::fs::File::open(env!("CARGO_BIN_EXE_t3pin")).unwrap();
    let mut child = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
        .arg("worker")
        .env_clear()
        .current_dir("/")
        .uid(uid)
        .gid(uid)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(message.to_string().as_bytes()).unwrap();
    serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap()
}

/// A `userdata/` of the user's with a database of two tables that always grow together.
fn userdata() -> (tempfile::TempDir, Connection) {
    let dir = tempfile::tempdir().unwrap();
    let userdata = dir.path().join("userdata");
    std::fs::create_dir(&userdata).unwrap();
    let db = Connection::open(userdata.join("state.sqlite")).unwrap();
    db.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE one(x); CREATE TABLE two(x); INSERT INTO one VALUES (1);").unwrap();
    db.execute_batch("INSERT INTO two VALUES (1)").unwrap();
    for path in [dir.path().to_owned(), userdata.clone()] {
        std::os::unix::fs::chown(path, Some(UID), Some(UID)).unwrap();
    }
    for entry in std::fs::read_dir(&userdata).unwrap() {
        std::os::unix::fs::chown(entry.unwrap().path(), Some(UID), Some(UID)).unwrap();
    }
    (dir, db)
}

fn rows(path: &Path) -> (i64, i64) {
    let rows = "SELECT (SELECT count(*) FROM one), (SELECT count(*) FROM two)";
    Connection::open(path).unwrap().query_row(rows, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
}

#[test]
fn a_live_copy_by_another_process_is_consistent_and_never_breaks_the_writer() {
    let (dir, db) = userdata();
    let copy = dir.path().join(".t3pin/b000001/home/.t3/userdata");
    let task = json!({"task": "copy-live", "userdata": dir.path().join("userdata"), "dest": copy});
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        let writer = scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                db.execute_batch("BEGIN; INSERT INTO one VALUES (1); INSERT INTO two VALUES (1); COMMIT").unwrap();
            }
        });
        for _ in 0..5 {
            let answer = ask(UID, &task);
            assert_eq!(answer["answer"], "live-copy", "{answer}");
            let (one, two) = rows(&copy.join("state.sqlite"));
            assert!(one == two && one > 0, "{one} and {two} rows");
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    });
}

#[test]
fn seed_and_switch_work_with_the_user_s_ids_alone() {
    let (dir, db) = userdata();
    let (data, seed) = (dir.path().join("userdata"), dir.path().join(".t3pin/b000001/seed"));
    let answer = ask(UID, &json!({"task": "seed", "userdata": data, "dest": seed}));
    assert_eq!(answer["answer"], "seed", "{answer}");
    assert_eq!(answer["content"]["originals"].as_array().unwrap().len(), 2, "database and WAL: {answer}");
    drop(db);
    std::fs::remove_file(data.join("state.sqlite")).unwrap();
    let answer = ask(UID, &json!({"task": "switch-in", "seed": seed, "userdata": data}));
    assert_eq!(answer["answer"], "done", "{answer}");
    assert_eq!(rows(&data.join("state.sqlite")), (1, 1));
    let answer = ask(UID, &json!({"task": "discard", "path": dir.path().join(".t3pin/b000001")}));
    assert_eq!(answer["answer"], "done", "{answer}");
    assert!(!dir.path().join(".t3pin").exists());
}

#[test]
fn another_user_s_data_is_out_of_reach() {
    let (dir, _db) = userdata();
    let answer = ask(UID - 1, &json!({"task": "seed", "userdata": dir.path().join("userdata"), "dest": "/tmp/t3pin-never"}));
    assert_eq!(answer["answer"], "failed", "{answer}");
    assert!(!Path::new("/tmp/t3pin-never").exists());
}

#[test]
fn a_task_of_another_version_is_refused_and_the_operator_told_what_to_do() {
    let answer = send(UID, &json!({"protocol": 2, "message": {"task": "never-heard-of"}}));
    let said = answer["message"]["content"]["message"].as_str().unwrap();
    assert!(said.contains("systemctl restart t3pin.service"), "{said}");
}
