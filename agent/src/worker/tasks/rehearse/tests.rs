//! Rehearsals of small programs that play a candidate's `serve` and CLI; its HTTP side is played by a thread.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::*;
use crate::domain::{ProbeStep, WorkMarks};
use crate::worker::protocol::Answer;
use crate::worker::tasks::handshake::peer_for_tests::{Play, Server, serve};

/// Counts the rows of `work` and of `sessions`.
fn count(userdata: &Path) -> Result<Answer, TaskError> {
    let connection = Connection::open(userdata.join("state.sqlite")).unwrap();
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap_or(0);
    let tables = [("work".to_owned(), number("SELECT count(*) FROM work"))].into();
    let level = number("SELECT max(level) FROM migrations");
    let sessions = number("SELECT count(*) FROM sessions").unsigned_abs();
    Ok(Answer::Marks { marks: WorkMarks { tables }, migration_level: u32::try_from(level).ok(), sessions })
}

struct Copy {
    dir: tempfile::TempDir,
    server: Server,
}

impl Copy {
    /// A copy with three rows of work and two sessions, and a candidate that does `serve` when told to serve.
    fn with(serve_script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let userdata = dir.path().join("userdata");
        std::fs::create_dir(&userdata).unwrap();
        std::fs::write(userdata.join("environment-id"), "env-1\n").unwrap();
        let sql = "CREATE TABLE work (x); INSERT INTO work VALUES (1), (2), (3); CREATE TABLE migrations (level);
            INSERT INTO migrations VALUES (30); CREATE TABLE sessions (x); INSERT INTO sessions VALUES (1), (2);";
        Connection::open(userdata.join("state.sqlite")).unwrap().execute_batch(sql).unwrap();
        let script = format!(
            "#!/bin/sh\ncd {}\n[ \"$1\" = serve ] || {{ echo '{{\"id\":\"a\",\"credential\":\"ABCD2345EFGH\"}}'; exit; }}\n\
             echo \"$@\" > args\necho Token: ABCD2345EFGH\n{serve_script}\n",
            dir.path().display()
        );
        std::fs::write(dir.path().join("t3"), script).unwrap();
        std::fs::set_permissions(dir.path().join("t3"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let ready = dir.path().join("ready");
        let server = serve(move |asked| match asked.line.as_str() {
            _ if !ready.exists() => Play::json(503, ""),
            "GET /.well-known/t3/environment" => Play::json(200, r#"{"environmentId":"env-1","serverVersion":"0.0.25"}"#),
            "GET /api/auth/session" => Play::json(200, &format!(r#"{{"authenticated":{}}}"#, asked.header("cookie").is_some())),
            _ => Play::json(200, "{}").with_cookie("t3_session=v"),
        });
        Self { dir, server }
    }

    fn rehearse(&self) -> RehearsalReport {
        let spec = RehearseSpec {
            probe: ProbeSpec {
                address: "127.0.0.1:1".to_owned(),
                cli: self.dir.path().join("t3"),
                node: "/usr/bin/node".into(),
                base_dir: self.dir.path().to_owned(),
                expect_version: "0.0.25".parse().unwrap(),
                expect_environment_id: None,
                pair_endpoints: vec!["/pair".to_owned()],
                dispatch: Some(("http://127.0.0.1:1".to_owned(), "X-User".to_owned())),
                request_timeout_ms: 500,
                start_deadline_ms: 5000,
                start_ceiling_ms: 5000,
            },
            port: self.server.address().port(),
            home: self.dir.path().to_owned(),
        };
        rehearse_with(&spec, &count).unwrap()
    }

    /// Has the candidate put a database with these changes in place when it starts.
    fn will_change(&self, sql: &str) {
        let path = self.dir.path().join("next.sqlite");
        std::fs::copy(self.dir.path().join("userdata/state.sqlite"), &path).unwrap();
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    }
}

const SERVES: &str =
    "trap 'exit 130' TERM\n[ ! -e next.sqlite ] || cp next.sqlite userdata/state.sqlite\ntouch ready\nsleep 60 & wait";

#[test]
fn a_good_candidate_is_probed_stopped_and_found_harmless() {
    let copy = Copy::with(SERVES);
    // The probe's own session, which is nobody's loss and nobody's gain.
    copy.will_change("INSERT INTO sessions VALUES (3);");
    let report = copy.rehearse();
    assert_eq!(report.probe.first_problem(), None);
    assert!(report.probe.passed(ProbeStep::Session) && report.intact);
    assert_eq!((report.work_lost, report.sessions_lost, report.level_before, report.level_after), (0, 0, Some(30), Some(30)));
    assert_eq!(report.output_tail, ["Token: ***"]);
    let args = std::fs::read_to_string(copy.dir.path().join("args")).unwrap();
    assert!(args.starts_with("serve --host 0.0.0.0 --port ") && args.ends_with(" --no-browser\n"), "{args}");
}

#[test]
fn lost_work_lost_sessions_and_the_new_level_are_counted() {
    let copy = Copy::with(SERVES);
    copy.will_change("DELETE FROM work WHERE x > 1; DELETE FROM sessions; INSERT INTO sessions VALUES (9); INSERT INTO migrations VALUES (31);");
    let report = copy.rehearse();
    // The one session left is the probe's own.
    assert_eq!((report.work_lost, report.sessions_lost, report.level_after, report.intact), (2, 2, Some(31), true));
}

#[test]
fn a_candidate_that_ruins_the_database_is_seen() {
    let copy = Copy::with(SERVES);
    std::fs::write(copy.dir.path().join("next.sqlite"), "x".repeat(8192)).unwrap();
    let report = copy.rehearse();
    assert_eq!((report.intact, report.work_lost, report.sessions_lost), (false, 3, 2));
}

#[test]
fn a_candidate_that_ends_ends_the_rehearsal_at_once_with_its_last_words() {
    let mut copy = Copy::with("echo 'Failed to load native module: pty.node' >&2; exit 1");
    copy.server = serve(|_| Play::Silence);
    let begun = Instant::now();
    let report = copy.rehearse();
    assert!(begun.elapsed() < Duration::from_secs(3));
    let Some(StepOutcome::Failed { reason, .. }) = report.probe.first_problem().map(|record| &record.outcome) else {
        panic!("{report:?}")
    };
    assert!(reason.contains("exit status: 1") && reason.contains("pty.node") && !reason.contains("ABCD2345EFGH"), "{reason}");
}

#[test]
fn a_candidate_without_room_or_killed_says_nothing_about_its_version() {
    for script in ["echo 'Error: ENOSPC: no space left on device'; exit 1", "kill -9 $$"] {
        let mut copy = Copy::with(script);
        copy.server = serve(|_| Play::Silence);
        let report = copy.rehearse();
        assert!(
            matches!(report.probe.first_problem().unwrap().outcome, StepOutcome::Inconclusive { .. }),
            "{script}: {report:?}"
        );
    }
}

#[test]
fn nothing_that_a_candidate_started_in_its_group_lives_on() {
    let copy = Copy::with("sleep 61 & echo $! > child\ntrap 'exit 130' TERM\ntouch ready\nsleep 62 & wait");
    copy.rehearse();
    let pid = std::fs::read_to_string(copy.dir.path().join("child")).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
}
