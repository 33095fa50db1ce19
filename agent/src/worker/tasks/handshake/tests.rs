//! Whole handshakes against good and evil servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::peer_for_tests::{Asked, Play, Server, serve};
use super::*;

const COOKIE: &str = "t3_session=cGF5bG9hZC1wYXlsb2Fk.bWFjLW1hYy1tYWMtbWFj; Path=/; HttpOnly";
const DESCRIPTOR: &str = r#"{"environmentId":"env-1","serverVersion":"0.0.25","capabilities":{}}"#;

/// A user with a CLI that logs what it is asked to do.
struct User {
    dir: tempfile::TempDir,
    spec: ProbeSpec,
}

impl User {
    fn of(server: &Server) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cli = dir.path().join("t3");
        let script = r#"#!/bin/sh
            echo "$*" >> "$HOME/asked"
            case "$1 $2 $3" in
            "auth pairing create")
                n=$(grep -c create "$HOME/asked")
                echo "{\"id\":\"link-$n\",\"credential\":\"ABCD2345EFG$n\",\"expiresAt\":\"x\"}" ;;
            "auth session list")
                agent=$(cat "$HOME/agent")
                echo "[{\"sessionId\":\"mine\",\"issuedAt\":\"2026-01-01T00:00:00.000Z\",\"client\":{\"userAgent\":\"$agent\"}},{\"sessionId\":\"theirs\",\"client\":{\"userAgent\":\"Mozilla\"}}]" ;;
            esac"#;
        std::fs::write(&cli, script).unwrap();
        std::fs::set_permissions(&cli, std::fs::Permissions::from_mode(0o755)).unwrap();
        let spec = ProbeSpec {
            address: server.address().to_string(),
            cli,
            node: "/usr/bin/node".into(),
            base_dir: dir.path().to_owned(),
            expect_version: "0.0.25".parse().unwrap(),
            expect_environment_id: Some("env-1".to_owned()),
            pair_endpoints: vec!["/api/auth/browser-session".to_owned(), "/api/auth/bootstrap".to_owned()],
            dispatch: None,
            request_timeout_ms: 300,
            start_deadline_ms: 600,
            start_ceiling_ms: 1500,
        };
        Self { dir, spec }
    }

    fn probe(&self) -> ProbeReport {
        let surroundings = Surroundings { home: self.dir.path().to_owned(), user: "alice".to_owned(), shell: String::new() };
        let mut handshake = Handshake::new(&self.spec, &surroundings);
        std::fs::write(self.dir.path().join("agent"), &handshake.agent).unwrap();
        runtime().unwrap().block_on(async {
            handshake.run().await;
            handshake.take_back().await;
        });
        handshake.report
    }

    fn asked(&self) -> Vec<String> {
        let asked = std::fs::read_to_string(self.dir.path().join("asked")).unwrap_or_default();
        asked.lines().map(|line| line.replace(self.dir.path().to_str().unwrap(), "B")).collect()
    }
}

/// A server like 0.0.25's, of whose answers `other` may give its own.
fn server(other: impl Fn(&Asked) -> Option<Play> + Send + Sync + 'static) -> Server {
    serve(move |asked| {
        if let Some(play) = other(asked) {
            return play;
        }
        match asked.line.as_str() {
            "GET /.well-known/t3/environment" => Play::json(200, DESCRIPTOR),
            "GET /api/auth/session" => {
                let known = asked.header("cookie").is_some_and(|cookie| cookie.starts_with("t3_session=cGF5"));
                let body = format!(r#"{{"authenticated":{known},"auth":{{"sessionCookieName":"t3_session"}}}}"#);
                Play::json(200, &body)
            }
            "POST /api/auth/browser-session" if asked.body.contains("ABCD2345EFG") => {
                Play::json(200, r#"{"authenticated":true}"#).with_cookie(COOKIE)
            }
            line if line.starts_with("POST") => Play::json(404, ""),
            _ => Play::Answer(200, Vec::new(), "<!doctype html>".to_owned()),
        }
    })
}

fn on(line: &'static str, play: Play) -> impl Fn(&Asked) -> Option<Play> + Send + Sync + 'static {
    move |asked| (asked.line == line).then(|| play.clone())
}

fn problem(report: &ProbeReport) -> (ProbeStep, String, bool) {
    match report.first_problem() {
        Some(StepRecord { step, outcome: StepOutcome::Failed { reason, contract_moved }, .. }) => {
            (*step, reason.clone(), *contract_moved)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_good_server_passes_every_step_and_the_probe_leaves_nothing_behind() {
    let server = server(|_| None);
    let user = User::of(&server);
    let report = user.probe();
    let steps: Vec<_> = report.steps.iter().map(|record| record.step).collect();
    use ProbeStep::*;
    assert_eq!(steps, [Environment, Version, Identity, Mint, Exchange, Session]);
    assert_eq!(report.first_problem(), None);
    assert_eq!(report.endpoint.as_deref(), Some("/api/auth/browser-session"));
    assert_eq!(
        user.asked(),
        [
            "auth pairing create --base-dir B --ttl 5m --json --label t3pin probe",
            "auth session list --base-dir B --json",
            "auth session revoke mine --base-dir B",
        ]
    );
}

#[test]
fn the_older_endpoint_is_found() {
    let server = server(|asked| match asked.line.as_str() {
        "POST /api/auth/browser-session" => Some(Play::json(404, "")),
        "POST /api/auth/bootstrap" => Some(Play::json(200, "{}").with_cookie(COOKIE)),
        _ => None,
    });
    let report = User::of(&server).probe();
    assert_eq!((report.first_problem(), report.endpoint.as_deref()), (None, Some("/api/auth/bootstrap")));
}

#[test]
fn a_moved_pairing_api_is_called_that_and_the_message_names_the_setting() {
    let server = server(on("POST /api/auth/browser-session", Play::json(405, "")));
    let user = User::of(&server);
    let (step, reason, moved) = problem(&user.probe());
    assert_eq!((step, moved), (ProbeStep::Exchange, true));
    assert!(reason.contains("[health]") && reason.contains("pair_endpoints") && reason.contains("/etc/t3pin/agent.toml"));
    assert_eq!(user.asked().last().unwrap(), "auth pairing revoke link-1 --base-dir B");
}

#[test]
fn a_refused_credential_fails_and_is_not_repeated_to_the_reader() {
    let body = r#"{"error":"Invalid","credential":"ABCD2345EFG1"}"#;
    let server = server(on("POST /api/auth/browser-session", Play::json(401, body)));
    let (step, reason, moved) = problem(&User::of(&server).probe());
    assert_eq!((step, moved), (ProbeStep::Exchange, false));
    assert!(reason.contains("401") && reason.contains("Invalid") && !reason.contains("ABCD2345EFG1"), "{reason}");
}

#[test]
fn a_success_without_a_cookie_is_none() {
    let server = server(on("POST /api/auth/browser-session", Play::json(200, "{}").with_cookie("other=1")));
    assert_eq!(problem(&User::of(&server).probe()).0, ProbeStep::Exchange);
}

#[test]
fn a_cookie_that_logs_nobody_in_fails_the_session() {
    let server = server(|asked| {
        let body = r#"{"authenticated":false,"auth":{"sessionCookieName":"t3_session"}}"#;
        (asked.line == "GET /api/auth/session").then(|| Play::json(200, body))
    });
    assert_eq!(problem(&User::of(&server).probe()).0, ProbeStep::Session);
}

#[test]
fn the_cookie_goes_by_the_name_the_server_reports() {
    let server = server(|asked| match asked.line.as_str() {
        "GET /api/auth/session" => {
            let known = asked.header("cookie").is_some_and(|cookie| cookie == "t3_session_3773=v");
            let body = format!(r#"{{"authenticated":{known},"auth":{{"sessionCookieName":"t3_session_3773"}}}}"#);
            Some(Play::json(200, &body))
        }
        "POST /api/auth/browser-session" => Some(Play::json(200, "{}").with_cookie("t3_session_3773=v; Path=/")),
        _ => None,
    });
    assert_eq!(User::of(&server).probe().first_problem(), None);
}

#[test]
fn another_version_and_another_identity_fail_before_anything_is_minted() {
    let server = server(|_| None);
    for (version, identity, step) in [("0.0.24", "env-1", ProbeStep::Version), ("0.0.25", "env-2", ProbeStep::Identity)] {
        let mut user = User::of(&server);
        user.spec.expect_version = version.parse().unwrap();
        user.spec.expect_environment_id = Some(identity.to_owned());
        assert_eq!(problem(&user.probe()).0, step);
        assert_eq!(user.asked(), Vec::<String>::new());
    }
}

#[test]
fn requests_that_a_starting_server_never_answers_are_made_again() {
    let requests = AtomicU32::new(0);
    let server = server(move |asked| {
        let early = asked.line.contains("environment") && requests.fetch_add(1, Ordering::Relaxed) < 2;
        early.then_some(Play::Silence)
    });
    let mut user = User::of(&server);
    user.spec.start_deadline_ms = 5000;
    assert_eq!(user.probe().first_problem(), None);
}

#[test]
fn an_exchange_that_is_not_answered_and_uses_the_credential_up_is_made_again_with_a_new_one() {
    let exchanges = AtomicU32::new(0);
    let server = server(move |asked| match asked.line.as_str() {
        "POST /api/auth/browser-session" if exchanges.fetch_add(1, Ordering::Relaxed) == 0 => Some(Play::Silence),
        "POST /api/auth/browser-session" if asked.body.contains("EFG1") => Some(Play::json(401, "")),
        _ => None,
    });
    let report = User::of(&server).probe();
    assert_eq!(report.first_problem(), None);
}

#[test]
fn a_stumble_is_forgiven_and_a_fall_is_not() {
    let exchanges = AtomicU32::new(0);
    let once = server(move |asked| {
        let first = asked.line.starts_with("POST") && exchanges.fetch_add(1, Ordering::Relaxed) == 0;
        first.then(|| Play::json(500, ""))
    });
    assert_eq!(User::of(&once).probe().first_problem(), None);
    let always = server(on("POST /api/auth/browser-session", Play::json(500, r#"{"error":"Failed to validate"}"#)));
    let (step, reason, _) = problem(&User::of(&always).probe());
    assert!(step == ProbeStep::Exchange && reason.contains("500") && reason.contains("Failed to validate"), "{reason}");
}

#[test]
fn nobody_there_fails_when_the_deadline_has_passed() {
    let gone = server(|_| None);
    let user = User::of(&gone);
    drop(gone);
    let (step, reason, _) = problem(&user.probe());
    assert!(step == ProbeStep::Environment && reason.contains("nobody answers"), "{reason}");
}

#[test]
fn a_server_that_answers_everything_with_its_web_page_fails() {
    let server = serve(|_| Play::Answer(200, Vec::new(), "<!doctype html>".to_owned()));
    let (step, reason, _) = problem(&User::of(&server).probe());
    assert!(step == ProbeStep::Environment && reason.contains("no descriptor"), "{reason}");
}

#[test]
fn evil_servers_neither_hang_the_probe_nor_pass_it() {
    for play in [Play::Silence, Play::Endless("HTTP/1.1 200 OK\r\n\r\n", "{"), Play::Endless("", "x"), Play::Raw("HTTP/1.1 200")]
    {
        let server = serve(move |_| play.clone());
        let begun = Instant::now();
        assert_eq!(problem(&User::of(&server).probe()).0, ProbeStep::Environment);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_database_that_visibly_changes_buys_time_up_to_the_ceiling() {
    let gone = server(|_| None);
    let user = User::of(&gone);
    drop(gone);
    let wal = user.dir.path().join("userdata/state.sqlite-wal");
    std::fs::create_dir(wal.parent().unwrap()).unwrap();
    let writer = std::thread::spawn(move || {
        for size in 0..40 {
            std::fs::write(&wal, vec![0; size]).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let report = user.probe();
    writer.join().unwrap();
    assert!((1300..1900).contains(&report.ms), "{} ms", report.ms);
}

#[test]
fn without_room_on_the_users_file_system_a_failure_is_inconclusive() {
    let gone = server(|_| None);
    let mut user = User::of(&gone);
    drop(gone);
    user.spec.base_dir = "/proc".into();
    let report = user.probe();
    assert!(matches!(report.first_problem().unwrap().outcome, StepOutcome::Inconclusive { .. }), "{report:?}");
}

#[test]
fn the_proxy_has_to_set_the_cookie_and_its_absence_is_inconclusive() {
    let t3 = server(|_| None);
    let stumbles = AtomicU32::new(2);
    let proxy = serve(move |asked| match (asked.line.as_str(), asked.header("x-user")) {
        ("GET /stumbles", _)
            if stumbles.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() =>
        {
            Play::json(502, "")
        }
        ("GET /good" | "GET /stumbles", Some("alice")) => {
            Play::json(302, "").with_header("Location", "/elsewhere").with_cookie(COOKIE)
        }
        ("GET /bare", _) => Play::json(302, "").with_header("Location", "/login"),
        _ => Play::json(502, ""),
    });
    let outcome = |url: String| {
        let mut user = User::of(&t3);
        user.spec.dispatch = Some((url, "X-User".to_owned()));
        user.probe().first_problem().map(|record| (record.step, record.outcome.clone()))
    };
    let at = |path: &str| format!("http://{}{path}", proxy.address());
    assert_eq!((outcome(at("/good")), outcome(at("/stumbles"))), (None, None));
    assert!(matches!(outcome(at("/bare")), Some((ProbeStep::Dispatch, StepOutcome::Failed { .. }))));
    assert!(matches!(outcome(at("/down")), Some((ProbeStep::Dispatch, StepOutcome::Inconclusive { .. }))));
    assert!(matches!(outcome("http://127.0.0.1:1/".to_owned()), Some((ProbeStep::Dispatch, StepOutcome::Inconclusive { .. }))));
}

#[test]
fn describe_reads_who_is_there_and_nobody() {
    let server = server(|_| None);
    let address = server.address().to_string();
    assert_eq!(describe(&address).unwrap().environment_id, "env-1");
    drop(server);
    assert_eq!(describe(&address), None);
    assert_eq!(describe("not an address"), None);
}

#[test]
fn a_missing_base_directory_is_no_excuse() {
    assert_eq!(super::super::trouble::of_host(Path::new("/nowhere/at/all")), None);
}
