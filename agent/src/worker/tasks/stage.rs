//! For tests: working as an unprivileged user, and databases as t3 leaves them (T3-CONTRACT sections 4 and 7).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

use crate::worker::files::effect::budget;

/// Uid and gid of the user under test; nobody has them.
pub const UID: u32 = 65_533;

/// Runs `work` on a thread with the user's ids; it shares this thread's budget of effects.
pub fn as_user<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let shared = budget::share();
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            budget::take_over(shared);
            set_thread_groups(&[]).unwrap();
            set_thread_gid(rustix::process::Gid::from_raw(UID)).unwrap();
            set_thread_uid(rustix::process::Uid::from_raw(UID)).unwrap();
            work()
        });
        worker.join().unwrap()
    })
}

/// Makes a database in WAL mode with `rows` events; with `killed` they are in the WAL only, and all sidecars are left.
pub fn make_database(path: &Path, rows: usize, killed: bool) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let building = path.with_file_name("building.sqlite");
    let db = rusqlite::Connection::open(&building).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;
         CREATE TABLE effect_sql_migrations(migration_id INTEGER PRIMARY KEY, created_at TEXT, name TEXT);
         INSERT INTO effect_sql_migrations VALUES (30, 'now', 'ProjectionThreadShellArchiveIndexes');
         CREATE TABLE auth_sessions(session_id TEXT, expires_at TEXT, revoked_at TEXT);
         INSERT INTO auth_sessions VALUES ('live', '2999-01-01T00:00:00.000Z', NULL), ('old', '2001-01-01T00:00:00.000Z', NULL),
             ('gone', '2999-01-01T00:00:00.000Z', '2001-01-01T00:00:00.000Z');
         CREATE TABLE events(body TEXT); CREATE TABLE keyed(k TEXT PRIMARY KEY) WITHOUT ROWID;
         INSERT INTO keyed VALUES ('a'), ('b'); PRAGMA wal_checkpoint(TRUNCATE); BEGIN;",
    )
    .unwrap();
    for n in 0..rows {
        db.execute("INSERT INTO events VALUES (?1)", [format!("event {n}")]).unwrap();
    }
    db.execute_batch("COMMIT").unwrap();
    if killed {
        // What a SIGKILL leaves: the files as they are while the database is open.
        for sidecar in ["-wal", "-shm"] {
            let from = format!("{}{sidecar}", building.display());
            fs::copy(from, format!("{}{sidecar}", path.display())).unwrap();
        }
        fs::copy(&building, path).unwrap();
        drop(db);
        fs::remove_file(&building).unwrap();
    } else {
        db.close().unwrap();
        fs::rename(&building, path).unwrap();
    }
}

/// Rows of `events` in a database.
pub fn events(path: &Path) -> i64 {
    rusqlite::Connection::open(path).unwrap().query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap()
}
