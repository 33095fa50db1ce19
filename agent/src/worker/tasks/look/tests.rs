//! Databases as T3-CONTRACT section 4 describes them, in every state that matters.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;

use super::*;
use crate::domain::{Activity, BusyReason};

const SCHEMA: &str = "
    CREATE TABLE effect_sql_migrations (migration_id INTEGER PRIMARY KEY, created_at TEXT, name TEXT);
    INSERT INTO effect_sql_migrations VALUES (30, '2026-01-01', 'ProjectionThreadShellArchiveIndexes');
    CREATE TABLE projection_threads (thread_id TEXT PRIMARY KEY, created_at TEXT, updated_at TEXT, archived_at TEXT, deleted_at TEXT,
        pending_approval_count INTEGER NOT NULL DEFAULT 0, pending_user_input_count INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE projection_thread_sessions (thread_id TEXT PRIMARY KEY, status TEXT, provider_name TEXT, active_turn_id TEXT,
        last_error TEXT, updated_at TEXT);
    CREATE TABLE projection_pending_approvals (request_id TEXT PRIMARY KEY, thread_id TEXT, turn_id TEXT, status TEXT, decision TEXT,
        created_at TEXT, resolved_at TEXT);
    CREATE TABLE projection_turns (row_id INTEGER PRIMARY KEY, thread_id TEXT, turn_id TEXT, state TEXT, requested_at TEXT,
        started_at TEXT, completed_at TEXT);";

const OLD: &str = "2026-01-01T00:00:00.000Z";
const OLD_MS: i64 = 1_767_225_600_000;

struct Data {
    dir: tempfile::TempDir,
    connection: Connection,
}

impl Data {
    /// A live database with this written to it.
    fn with(sql: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let connection = Connection::open(dir.path().join("state.sqlite")).unwrap();
        connection.execute_batch("PRAGMA journal_mode = wal;").unwrap();
        connection.execute_batch(sql).unwrap();
        Self { dir, connection }
    }

    /// The schema and these rows.
    fn rows(sql: &str) -> Self {
        Self::with(&format!("{SCHEMA}{sql}"))
    }

    fn look(&self) -> Activity {
        look(self.dir.path())
    }

    fn names(&self) -> Vec<PathBuf> {
        let mut names: Vec<_> = std::fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    }
}

fn reasons(sql: &str) -> Vec<BusyReason> {
    match Data::rows(sql).look() {
        Activity::Busy { reasons } => reasons,
        other => panic!("{sql}: {other:?}"),
    }
}

fn why(data: &Data) -> String {
    match data.look() {
        Activity::Unknown { why } => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_database_and_an_empty_one_are_idle() {
    let dir = tempfile::tempdir().unwrap();
    let idle = Activity::Idle { last_activity_ms: None };
    assert_eq!(look(&dir.path().join("none")), idle);
    assert_eq!(look(dir.path()), idle);
    std::fs::write(dir.path().join("state.sqlite"), "").unwrap();
    assert_eq!(look(dir.path()), idle);
    assert_eq!(Data::rows("").look(), idle);
}

#[test]
fn finished_work_is_idle_since_its_newest_time() {
    let data = Data::rows(&format!(
        "INSERT INTO projection_threads (thread_id, created_at, updated_at) VALUES ('t', '2025-01-01T00:00:00.000Z', '{OLD}');
         INSERT INTO projection_thread_sessions VALUES ('t', 'ready', 'p', NULL, NULL, '2025-12-01T00:00:00.000Z');
         INSERT INTO projection_pending_approvals VALUES ('r', 't', 'u', 'resolved', 'accept', '2025-02-01T00:00:00Z', '2025-02-02T00:00:00Z');
         INSERT INTO projection_turns VALUES (1, 't', 'u', 'completed', '2025-03-01T00:00:00Z', '2025-03-01T00:00:00Z', '2025-03-01T00:00:00Z');"
    ));
    assert_eq!(data.look(), Activity::Idle { last_activity_ms: Some(OLD_MS) });
}

fn in_flight(thread: &str, since_ms: Option<i64>) -> BusyReason {
    BusyReason::Turn { thread: thread.to_owned(), title: None, since_ms, stale: false }
}

#[test]
fn a_session_at_work_is_busy_in_every_form() {
    for values in
        ["'running', 'p', NULL", "'starting', 'p', NULL", "'ready', 'p', 'turn-1'", "'error', 'p', 'turn-1'", "NULL, 'p', NULL"]
    {
        let found = reasons(&format!("INSERT INTO projection_thread_sessions VALUES ('t', {values}, NULL, '{OLD}');"));
        assert_eq!(found, [in_flight("t", Some(OLD_MS))], "{values}");
    }
}

#[test]
fn a_pending_turn_is_busy_unless_its_session_is_over() {
    let turn = format!("INSERT INTO projection_turns VALUES (1, 't', 'u', 'pending', '{OLD}', NULL, NULL);");
    let session = |status| format!("INSERT INTO projection_thread_sessions VALUES ('t', '{status}', 'p', NULL, NULL, '{OLD}');");
    for status in ["ready", "idle", "new-word"] {
        let found = reasons(&format!("{turn}{}", session(status)));
        assert_eq!(found, [in_flight("t", Some(OLD_MS))], "{status}");
    }
    assert_eq!(reasons(&turn).len(), 1, "a turn without a session");
    for status in ["stopped", "error", "interrupted"] {
        let data = Data::rows(&format!("{turn}{}", session(status)));
        assert_eq!(data.look(), Activity::Idle { last_activity_ms: Some(OLD_MS) }, "{status}");
    }
}

#[test]
fn a_thread_that_waits_for_its_user_is_busy() {
    let approval = format!("INSERT INTO projection_pending_approvals VALUES ('r', 't', 'u', 'pending', NULL, '{OLD}', NULL);");
    assert_eq!(reasons(&approval), [BusyReason::PendingApproval { count: 1 }]);
    let counts =
        "INSERT INTO projection_threads (thread_id, pending_approval_count, pending_user_input_count) VALUES ('t', 2, 3);";
    assert_eq!(reasons(counts), [BusyReason::PendingApproval { count: 2 }, BusyReason::PendingInput { count: 3 }]);
    assert_eq!(reasons(&format!("{approval}{counts}")).len(), 2);
}

#[test]
fn archived_and_deleted_threads_wait_for_nobody() {
    for column in ["archived_at", "deleted_at"] {
        let data = Data::rows(&format!(
            "INSERT INTO projection_threads (thread_id, {column}, pending_approval_count, pending_user_input_count) VALUES ('t', '{OLD}', 1, 1);
             INSERT INTO projection_pending_approvals VALUES ('r', 't', 'u', 'pending', NULL, '{OLD}', NULL);"
        ));
        assert_eq!(data.look(), Activity::Idle { last_activity_ms: Some(OLD_MS) }, "{column}");
    }
}

#[test]
fn logins_are_no_work() {
    let data = Data::rows(&format!(
        "CREATE TABLE auth_sessions (session_id TEXT, issued_at TEXT); INSERT INTO auth_sessions VALUES ('s', '{OLD}');"
    ));
    assert_eq!(data.look(), Activity::Idle { last_activity_ms: None });
}

#[test]
fn a_missing_table_or_column_is_named_and_unknown() {
    for (change, named) in [
        ("DROP TABLE projection_turns", "table projection_turns"),
        (
            "ALTER TABLE projection_thread_sessions RENAME COLUMN active_turn_id TO turn",
            "column projection_thread_sessions.active_turn_id",
        ),
        ("DROP TABLE projection_turns; CREATE VIEW projection_turns AS SELECT 1", "table projection_turns"),
    ] {
        let said = why(&Data::rows(&format!("{change};")));
        assert!(said.contains(named) && said.contains("level 30"), "{said}");
    }
    let said = why(&Data::with(
        "CREATE TABLE effect_sql_migrations (migration_id INTEGER); INSERT INTO effect_sql_migrations VALUES (40);",
    ));
    assert!(said.contains("level 40"), "{said}");
}

#[test]
fn a_time_that_cannot_be_read_is_unknown() {
    for time in ["'soon'", "''", "x'00'", "1.5"] {
        let said = why(&Data::rows(&format!(
            "DROP TABLE projection_thread_sessions;
             CREATE TABLE projection_thread_sessions (thread_id TEXT, status TEXT, active_turn_id TEXT, updated_at);
             INSERT INTO projection_thread_sessions VALUES ('t', 'ready', NULL, {time});"
        )));
        assert!(said.contains("projection_thread_sessions.updated_at"), "{said}");
    }
}

#[test]
fn times_in_milliseconds_count_beside_times_in_text() {
    let data = Data::rows(&format!(
        "DROP TABLE projection_thread_sessions;
         CREATE TABLE projection_thread_sessions (thread_id TEXT, status TEXT, active_turn_id TEXT, updated_at);
         INSERT INTO projection_thread_sessions VALUES ('a', 'ready', NULL, '{OLD}'), ('b', 'ready', NULL, {});",
        OLD_MS + 5
    ));
    assert_eq!(data.look(), Activity::Idle { last_activity_ms: Some(OLD_MS + 5) });
}

#[test]
fn a_locked_database_is_unknown() {
    let data = Data::rows("");
    data.connection.execute_batch("PRAGMA journal_mode = delete; BEGIN EXCLUSIVE;").unwrap();
    // Without a log it would be read as immutable; another name for a database in use is its journal or log.
    std::fs::write(data.dir.path().join("state.sqlite-wal"), "").unwrap();
    assert_eq!(why(&data), "the database is locked");
}

#[test]
fn what_is_no_database_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    std::fs::write(&path, "x".repeat(5000)).unwrap();
    assert!(matches!(look(dir.path()), Activity::Unknown { .. }));
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    assert!(matches!(look(dir.path()), Activity::Unknown { .. }));
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(look(dir.path()), Activity::Unknown { .. }));
}

#[test]
fn a_home_behind_a_link_is_looked_at_all_the_same() {
    let data = Data::rows("INSERT INTO projection_thread_sessions VALUES ('t', 'running', 'p', NULL, NULL, NULL);");
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("user data?");
    std::os::unix::fs::symlink(data.dir.path(), &link).unwrap();
    assert!(matches!(look(&link), Activity::Busy { .. }));
}

#[test]
fn looking_sees_what_is_only_in_the_log_and_leaves_nothing_behind() {
    let data = Data::rows("");
    data.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA wal_autocheckpoint = 0;").unwrap();
    data.connection
        .execute_batch("INSERT INTO projection_thread_sessions VALUES ('t', 'running', 'p', NULL, NULL, NULL);")
        .unwrap();
    assert!(matches!(data.look(), Activity::Busy { .. }));
    let Data { dir, connection } = data;
    connection.close().unwrap();
    let at_rest = Data { dir, connection: Connection::open_in_memory().unwrap() };
    let before = at_rest.names();
    assert!(matches!(at_rest.look(), Activity::Busy { .. }));
    assert_eq!(at_rest.names(), before);
}

#[test]
fn the_log_of_a_killed_server_is_read_and_neither_file_changed() {
    let data = Data::rows("INSERT INTO projection_thread_sessions VALUES ('t', 'running', 'p', NULL, NULL, NULL);");
    let killed = tempfile::tempdir().unwrap();
    let files = ["state.sqlite", "state.sqlite-wal"].map(|name| (data.dir.path().join(name), killed.path().join(name)));
    for (from, to) in &files {
        std::fs::copy(from, to).unwrap();
    }
    assert!(matches!(look(killed.path()), Activity::Busy { .. }));
    for (from, to) in &files {
        assert_eq!(std::fs::read(from).unwrap(), std::fs::read(to).unwrap());
    }
}

#[test]
fn a_database_too_big_to_be_read_in_time_is_unknown() {
    let data = Data::rows(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         INSERT INTO projection_turns (turn_id, state) SELECT i, 'completed' FROM n;",
    );
    assert_eq!(
        Lookout::at(data.dir.path()).look_within(Duration::ZERO),
        Err("the database could not be read within the time for a look".to_owned())
    );
}

#[test]
fn columns_that_the_database_computes_are_not_run() {
    let said = why(&Data::rows(
        "DROP TABLE projection_turns;
         CREATE TABLE projection_turns (turn_id, requested_at, started_at, completed_at, state AS (hex(zeroblob(100000000))));",
    ));
    assert!(said.contains("column projection_turns.state"), "{said}");
}

#[test]
fn a_lookout_sees_at_its_next_look_what_has_happened_since() {
    let data = Data::rows("");
    let mut lookout = Lookout::at(data.dir.path());
    let look = |lookout: &mut Lookout| lookout.look(Duration::from_secs(2));
    assert!(matches!(look(&mut lookout), Activity::Idle { .. }));
    data.connection
        .execute_batch("INSERT INTO projection_thread_sessions VALUES ('t', 'running', 'p', NULL, NULL, NULL);")
        .unwrap();
    assert!(matches!(look(&mut lookout), Activity::Busy { .. }));
    data.connection.execute_batch("DELETE FROM projection_thread_sessions;").unwrap();
    assert!(matches!(look(&mut lookout), Activity::Idle { .. }));
}

#[test]
fn a_lookout_is_not_taken_in_by_a_database_that_was_at_rest_or_was_replaced() {
    let Data { dir, connection } = Data::rows("");
    connection.close().unwrap();
    let mut lookout = Lookout::at(dir.path());
    let look = |lookout: &mut Lookout| lookout.look(Duration::from_secs(2));
    assert!(matches!(look(&mut lookout), Activity::Idle { .. }));
    let path = dir.path().join("state.sqlite");
    let server = Connection::open(&path).unwrap();
    server.execute_batch("INSERT INTO projection_thread_sessions VALUES ('t', 'running', 'p', NULL, NULL, NULL);").unwrap();
    assert!(matches!(look(&mut lookout), Activity::Busy { .. }));
    let other = Data::rows("");
    for suffix in ["", "-wal", "-shm"] {
        let name = format!("state.sqlite{suffix}");
        std::fs::rename(other.dir.path().join(&name), dir.path().join(&name)).unwrap();
    }
    assert!(matches!(look(&mut lookout), Activity::Idle { .. }));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(look(&mut lookout), Activity::Idle { last_activity_ms: None }));
}

#[test]
fn a_lookout_answers_every_line_and_ends_with_its_input() {
    let data = Data::rows("INSERT INTO projection_thread_sessions VALUES ('t', 'running', 'p', NULL, NULL, NULL);");
    let mut said = Vec::new();
    let ended = lookout(data.dir.path().to_owned(), &mut b"2000\n2000\n".as_slice(), &mut said);
    assert_eq!(format!("{ended:?}"), format!("{:?}", ExitCode::SUCCESS));
    let answers: Vec<Answer> =
        said.split_inclusive(|b| *b == b'\n').map(|line| crate::worker::read_answer(line).unwrap()).collect();
    assert!(matches!(answers.as_slice(), [Answer::Activity(Activity::Busy { .. }), Answer::Activity(Activity::Busy { .. })]));
}

#[test]
fn a_turn_is_named_by_its_threads_title_and_dated_by_its_last_message() {
    let data = Data::rows(&format!(
        "ALTER TABLE projection_threads ADD COLUMN title TEXT;
         CREATE TABLE projection_thread_messages (message_id TEXT, thread_id TEXT, created_at TEXT, updated_at TEXT);
         INSERT INTO projection_threads (thread_id, title, updated_at) VALUES ('t', 'Fix ' || char(27) || 'the build', '{OLD}');
         INSERT INTO projection_thread_messages VALUES ('m', 't', '{OLD}', '2026-07-20T10:00:00.123Z'), ('n', 'u', '{OLD}', '2026-07-21T10:00:00Z');
         INSERT INTO projection_thread_sessions VALUES ('t', 'running', 'p', 'turn-1', NULL, '{OLD}');"
    ));
    let Activity::Busy { reasons } = data.look() else { panic!("{:?}", data.look()) };
    let expected = BusyReason::Turn {
        thread: "t".to_owned(),
        title: Some("Fix the build".to_owned()),
        since_ms: Some(1_784_541_600_123),
        stale: false,
    };
    assert_eq!(reasons, [expected]);
}

/// What differs between the releases: T3-CONTRACT section 4. 0.0.24 is level 30, 0.0.25 level 31, 0.0.26 to 0.0.28 level 32.
const LEVELS: [(u32, &str); 4] = [
    (30, "CREATE TABLE auth_sessions (session_id TEXT PRIMARY KEY, subject TEXT, role TEXT NOT NULL, method TEXT, issued_at TEXT);
          CREATE TABLE auth_pairing_links (id TEXT PRIMARY KEY, credential TEXT, role TEXT NOT NULL);"),
    (31, "CREATE TABLE auth_sessions (session_id TEXT PRIMARY KEY, subject TEXT, scopes TEXT NOT NULL, method TEXT, issued_at TEXT);
          CREATE TABLE auth_pairing_links (id TEXT PRIMARY KEY, credential TEXT, scopes TEXT NOT NULL);"),
    (32, "CREATE TABLE auth_sessions (session_id TEXT PRIMARY KEY, subject TEXT, scopes TEXT NOT NULL, method TEXT, issued_at TEXT);
          CREATE TABLE auth_pairing_links (id TEXT PRIMARY KEY, credential TEXT, scopes TEXT NOT NULL, proof_key_thumbprint TEXT);"),
    (40, "CREATE TABLE something_new (id TEXT); ALTER TABLE projection_thread_sessions ADD COLUMN news TEXT DEFAULT 'x';
          ALTER TABLE projection_turns ADD COLUMN news TEXT;"),
];

#[test]
fn every_release_from_0_0_24_on_is_read_and_so_is_a_newer_one_that_only_adds() {
    let signs = [
        "INSERT INTO projection_thread_sessions (thread_id, status, updated_at) VALUES ('t', 'running', NULL);",
        "INSERT INTO projection_thread_sessions (thread_id, status, active_turn_id) VALUES ('t', 'ready', 'u');",
        "INSERT INTO projection_turns (thread_id, turn_id, state, requested_at) VALUES ('t', 'u', 'running', NULL);",
        "INSERT INTO projection_pending_approvals (request_id, thread_id, status) VALUES ('r', 't', 'pending');",
        "INSERT INTO projection_threads (thread_id, pending_user_input_count) VALUES ('t', 1);",
    ];
    for (level, schema) in LEVELS {
        let schema = format!("INSERT OR IGNORE INTO effect_sql_migrations VALUES ({level}, '', ''); {schema}");
        assert_eq!(Data::rows(&schema).look(), Activity::Idle { last_activity_ms: None }, "level {level}");
        let provider = "CREATE TABLE IF NOT EXISTS provider_session_runtime (thread_id TEXT, provider_name TEXT, status TEXT, last_seen_at TEXT);
             INSERT INTO provider_session_runtime (thread_id, status) VALUES ('t', 'running');";
        assert!(
            matches!(Data::rows(&format!("{schema}{provider}")).look(), Activity::Idle { .. }),
            "a provider alone, level {level}"
        );
        for sign in signs {
            let seen = Data::rows(&format!("{schema}{sign}")).look();
            assert!(matches!(&seen, Activity::Busy { reasons } if reasons.len() == 1), "level {level}, {sign}: {seen:?}");
        }
    }
}
