//! The server over a real socket: who may what, and what nobody can make it do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UnixListener;

use super::limits::Limits;
use super::{connections, routes};
use crate::api::canned::CannedHost;
use crate::api::types::{ApiError, Caller, Inside, RunOutcome, RunReport, StatusReport, VersionStatus};

/// A uid that is nobody's and in no group.
const STRANGER: u32 = 3_999_999;

/// A served socket that goes away with this value.
struct Served {
    dir: tempfile::TempDir,
    host: Arc<CannedHost>,
    _runtime: tokio::runtime::Runtime,
}

impl Served {
    fn new(host: CannedHost, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let host = Arc::new(host);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let path = dir.path().join("sock");
        let handler = Arc::clone(&host);
        let listener = runtime.block_on(async { UnixListener::bind(&path).unwrap() });
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        runtime.spawn(connections::serve(listener, handler, limits));
        Self { dir, host, _runtime: runtime }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    /// A connection with a deadline, so that a server that hangs fails the test and not its time limit.
    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        stream
    }

    /// A connection of another uid. Linux keeps credentials per thread, and SO_PEERCRED takes those of the thread that connects.
    fn connect_as(&self, uid: u32) -> Option<UnixStream> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let path = self.path();
        let connecting = std::thread::spawn(move || {
            let uid = rustix::process::Uid::from_raw(uid);
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            UnixStream::connect(path).unwrap()
        });
        Some(connecting.join().unwrap())
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        exchange(self.connect(), method, path, body)
    }

    fn asked(&self) -> Vec<String> {
        self.host.asked.lock().unwrap().clone()
    }
}

/// Sends one request, however privileged this test is, and reads to the end of the connection.
fn exchange(mut stream: UnixStream, method: &str, path: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: t3pin\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
    answer(&mut stream)
}

fn answer(stream: &mut UnixStream) -> (u16, String) {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, body.to_owned())
}

fn refusal(body: &str) -> ApiError {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{body:?} is no ApiError: {error}"))
}

/// Serves the router with a caller of our choice: what [`Caller`] decides can be tested without being root.
fn as_caller(host: CannedHost, privileged: bool, method: &str, path: &str, body: &str) -> (u16, String, Vec<String>) {
    use hyper::service::Service;
    let (method, path, body) = (method.to_owned(), path.to_owned(), body.to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let host = Arc::new(host);
        let router = routes::router(Arc::clone(&host), Limits::default());
        let mut request = hyper::Request::builder().method(method.as_str()).uri(path).body(axum::body::Body::from(body)).unwrap();
        request.extensions_mut().insert(Caller { uid: 1000, pid: 1, privileged });
        request.extensions_mut().insert(Inside(None));
        let response = hyper_util::service::TowerToHyperService::new(router).call(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let asked = host.asked.lock().unwrap().clone();
        (status, String::from_utf8(bytes.to_vec()).unwrap(), asked)
    })
}

const CHANGES: [(&str, &str); 8] = [
    ("/v1/enforce", ""),
    ("/v1/rollback", r#"{"user":"bob"}"#),
    ("/v1/enroll", r#"{"user":"carol"}"#),
    ("/v1/unenroll", r#"{"user":"carol"}"#),
    ("/v1/freeze", "{}"),
    ("/v1/thaw", ""),
    ("/v1/quarantine/clear", r#"{"version":"0.0.26"}"#),
    ("/v1/versions/verify", "{}"),
];

#[test]
fn ordinary_users_change_nothing_and_are_told_who_may() {
    for (path, body) in CHANGES {
        let (status, said, asked) = as_caller(CannedHost::ending(RunOutcome::Done), false, "POST", path, body);
        assert_eq!(status, 403, "{path}");
        let error = refusal(&said);
        assert_eq!(error.kind, "forbidden");
        assert!(error.error.contains("only root and members of group t3pin may"), "{}", error.error);
        assert!(asked.is_empty(), "{path} reached the handler: {asked:?}");
    }
}

#[test]
fn users_speak_for_themselves_and_for_nobody_else() {
    let asked = |privileged, path, body| as_caller(CannedHost::ending(RunOutcome::Done), privileged, "POST", path, body);
    for path in ["/v1/now", "/v1/defer", "/v1/mint"] {
        for body in [r#"{"user":"alice"}"#, r#"{"user":"root"}"#, r#"{"user":"BOB"}"#] {
            let (status, said, reached) = asked(false, path, body);
            assert_eq!((status, refusal(&said).kind.as_str()), (403, "forbidden"), "{path} {body}");
            assert!(reached.is_empty(), "{path} {body} reached the handler: {reached:?}");
        }
        assert_eq!(asked(false, path, r#"{"usr":"bob"}"#).0, 400);
    }
    assert_eq!(asked(false, "/v1/now", "").2, ["now bob false by 1000"]);
    assert_eq!(asked(false, "/v1/now", r#"{"user":"bob","force":true}"#).2, ["now bob true by 1000"]);
    assert_eq!(asked(false, "/v1/defer", r#"{"until_ms":5,"reason":"demo"}"#).2, [r#"defer bob Some(5) Some("demo") by 1000"#]);
    assert_eq!(asked(true, "/v1/now", r#"{"user":"alice"}"#).2, ["now alice false by 1000"]);
    assert_eq!(asked(true, "/v1/defer", r#"{"user":"alice"}"#).2, ["defer alice None None by 1000"]);
    assert_eq!(asked(false, "/v1/mint", "").2, ["mint bob 5m None by 1000"]);
    assert_eq!(asked(true, "/v1/mint", r#"{"user":"alice","ttl":60,"label":"p"}"#).2, [r#"mint alice 60m Some("p") by 1000"#]);
    for body in [r#"{"ttl":0}"#, r#"{"ttl":"5m"}"#, r#"{"label":"--json"}"#, r#"{"base_dir":"/"}"#] {
        assert_eq!(asked(true, "/v1/mint", body).0, 400, "{body}");
    }
}

#[test]
fn a_stranger_without_a_name_has_no_instance_to_speak_for() {
    let served = Served::new(CannedHost::ending(RunOutcome::Done), Limits::default());
    for (path, body, status) in
        [("/v1/now", "", 400), ("/v1/mint", "", 400), ("/v1/defer", r#"{"user":"bob","until_ms":5}"#, 403)]
    {
        let Some(stranger) = served.connect_as(STRANGER) else { return };
        assert_eq!(exchange(stranger, "POST", path, body).0, status, "{path}");
    }
    let Some(stranger) = served.connect_as(STRANGER) else { return };
    assert_eq!(exchange(stranger, "GET", "/v1/runs/7", "").0, 404, "somebody else's run");
    assert!(served.asked().is_empty());
}

#[test]
fn privileged_callers_change_what_they_ask_for() {
    let asked: Vec<String> = CHANGES
        .iter()
        .flat_map(|(path, body)| {
            let (status, said, asked) = as_caller(CannedHost::ending(RunOutcome::Done), true, "POST", path, body);
            assert_eq!(status, 200, "{path}: {said}");
            asked
        })
        .collect();
    let expected = [
        "enforce",
        "rollback Some(\"bob\") false",
        "enroll carol None None",
        "unenroll carol",
        "freeze None",
        "thaw",
        "clear 0.0.26",
        "verify None",
    ];
    assert_eq!(asked, expected);
}

#[test]
fn a_caller_is_who_the_kernel_says_not_who_the_request_says() {
    let served = Served::new(CannedHost::ending(RunOutcome::Done), Limits::default());
    let Some(mut stranger) = served.connect_as(STRANGER) else { return };
    let forged = "POST /v1/thaw HTTP/1.1\r\nhost: t3pin\r\nconnection: close\r\nx-uid: 0\r\nauthorization: root\r\ncontent-length: 0\r\n\r\n";
    stranger.write_all(forged.as_bytes()).unwrap();
    let (status, said) = answer(&mut stranger);
    assert_eq!((status, refusal(&said).kind.as_str()), (403, "forbidden"));
    assert!(refusal(&said).error.contains(&format!("uid {STRANGER} ")), "{said}");
    assert!(served.asked().is_empty());
    assert_eq!(served.ask("POST", "/v1/thaw", "").0, 200);
}

#[test]
fn ordinary_users_see_only_what_the_handler_shows_them() {
    let served = Served::new(CannedHost::default(), Limits::default());
    let Some(stranger) = served.connect_as(STRANGER) else { return };
    let (_, body) = exchange(stranger, "GET", "/v1/status", "");
    let report: StatusReport = serde_json::from_str(&body).unwrap();
    assert_eq!(report.instances.iter().map(|i| i.user.as_str()).collect::<Vec<_>>(), ["bob"]);
    let (_, body, _) = as_caller(CannedHost::default(), false, "GET", "/metrics", "");
    assert!(body.contains("bob") && !body.contains("alice"), "{body}");
    let (_, body, _) = as_caller(CannedHost::default(), false, "GET", "/v1/versions", "");
    let versions: Vec<VersionStatus> = serde_json::from_str(&body).unwrap();
    assert_eq!(versions.iter().map(|v| v.users.len()).collect::<Vec<_>>(), [1, 0], "alice is not bob's to see");
    let (status, _, _) = as_caller(CannedHost::default(), false, "GET", "/v1/instances/alice", "");
    assert_eq!(status, 404);
    assert_eq!(as_caller(CannedHost::default(), true, "GET", "/v1/instances/alice", "").0, 200);
}

#[test]
fn status_has_the_fields_that_scripts_rely_on() {
    let (_, body, _) = as_caller(CannedHost::default(), true, "GET", "/v1/status", "");
    let report: serde_json::Value = serde_json::from_str(&body).unwrap();
    for pointer in ["/agent/state", "/pin/version", "/pin/valid", "/pin/error", "/rollout/state"] {
        assert!(report.pointer(pointer).is_some(), "{pointer}");
    }
    for field in ["user", "unit", "port", "bound_version", "running_version", "state", "deferral", "last_bump"] {
        assert!(report["instances"][0].get(field).is_some(), "{field}");
    }
    assert_eq!(report["instances"][1]["deferral"]["since"], "2027-01-15T07:57:00Z");
    assert_eq!(report["instances"][1]["deferral"]["reason"], "a turn is in flight");
    for field in ["from", "to", "outcome", "reason", "seconds", "downtime_ms"] {
        assert!(report["instances"][0]["last_bump"].get(field).is_some(), "{field}");
    }
}

#[test]
fn wrong_requests_get_a_clear_api_error() {
    let cases = [
        ("GET", "/v2/status", "", 404, "/v1"),
        ("DELETE", "/v1/status", "", 405, "does not take DELETE, but GET"),
        ("GET", "/v1/enforce", "", 405, "but POST"),
        ("POST", "/v1/rollback", "{\"user\":\"bob\",\"froce\":true}", 400, "unknown field `froce`"),
        ("POST", "/v1/rollback", "{\"user\":\"../bob\"}", 400, "is not a user name"),
        ("POST", "/v1/enforce", "{\"now\":true}", 400, "unknown field `now`"),
        ("POST", "/v1/freeze", "not json", 400, "the request's body is not right"),
        ("POST", "/v1/freeze", "\u{0}", 400, "the request's body is not right"),
        ("POST", "/v1/quarantine/clear", "{\"version\":\"^0.0.25\"}", 400, "is not an exact version"),
        ("GET", "/v1/history?usr=bob", "", 400, "unknown query parameter \"usr\" (known are: user, limit)"),
        ("GET", "/v1/history?limit=many", "", 400, "limit \"many\""),
        ("GET", "/v1/history?limit=1&limit=2", "", 400, "twice"),
        ("GET", "/v1/history?user=a%2Fb", "", 400, "is not a user name"),
        ("GET", "/v1/history?user=%ff", "", 400, "is not"),
        ("GET", "/v1/instances/%2e%2e", "", 400, "is not a user name"),
        ("GET", "/v1/instances/%ff", "", 400, ""),
        ("GET", "/v1/runs/-1", "", 400, "run \"-1\""),
        ("GET", "/v1/runs/8", "", 404, "no run 8"),
    ];
    for (method, path, body, status, sentence) in cases {
        let (got, said, asked) = as_caller(CannedHost::default(), true, method, path, body);
        assert_eq!(got, status, "{method} {path}: {said}");
        assert!(refusal(&said).error.contains(sentence), "{method} {path}: {said}");
        assert!(asked.is_empty());
    }
}

#[test]
fn an_endless_body_is_cut_off_at_its_limit() {
    let served = Served::new(CannedHost::default(), Limits { body: 4096, ..Limits::default() });
    let (status, said) = served.ask("POST", "/v1/freeze", &format!("{{\"reason\":\"{}\"}}", "x".repeat(5000)));
    assert_eq!((status, refusal(&said).kind.as_str()), (413, "bad-request"));

    let mut endless = served.connect();
    endless.write_all(b"POST /v1/freeze HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let sent = (0..4096).take_while(|_| endless.write_all(chunk.as_bytes()).is_ok()).count();
    assert!(sent < 4096, "4 MiB were taken where 4 KiB are allowed");
    assert!(served.asked().is_empty());
    assert_eq!(served.ask("GET", "/v1/status", "").0, 200);
}

#[test]
fn slow_and_silent_clients_are_let_go() {
    let limits = Limits { head_time: Duration::from_millis(150), body_time: Duration::from_millis(150), ..Limits::default() };
    let served = Served::new(CannedHost::default(), limits);
    let start = Instant::now();
    let mut silent = served.connect();
    let mut half_a_head = served.connect();
    half_a_head.write_all(b"GET /v1/status HTTP/1.1\r\nhost:").unwrap();
    let mut half_a_body = served.connect();
    half_a_body.write_all(b"POST /v1/freeze HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{\"rea").unwrap();
    let mut idle = served.connect();
    idle.write_all(b"GET /v1/status HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    answer(&mut silent);
    answer(&mut half_a_head);
    let (status, said) = answer(&mut half_a_body);
    assert_eq!(status, 408, "{said}");
    assert!(said.contains("did not arrive within"), "{said}");
    assert_eq!(answer(&mut idle).0, 200, "kept alive after its answer, but not for ever");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(served.asked().is_empty());
}

#[test]
fn who_does_not_read_the_answers_is_let_go_at_the_end_of_a_connections_life() {
    let limits = Limits { life: Duration::from_millis(300), ..Limits::default() };
    let served = Served::new(CannedHost::default(), limits);
    let mut deaf = served.connect();
    let ask = b"GET /v1/status HTTP/1.1\r\nhost: a\r\n\r\n";
    let start = Instant::now();
    while deaf.write_all(ask).is_ok() {}
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(served.ask("GET", "/v1/status", "").0, 200);
}

#[test]
fn too_many_connections_are_refused_at_once_and_hold_nobody_up() {
    let served = Served::new(CannedHost::default(), Limits { per_uid: 3, ..Limits::default() });
    let crowd: Vec<UnixStream> = (0..3).map(|_| served.connect()).collect();
    let (status, said) = served.ask("GET", "/v1/status", "");
    assert_eq!((status, refusal(&said).kind.as_str()), (503, "busy"));
    assert!(said.contains("already has 3 connections open"), "{said}");
    if let Some(stranger) = served.connect_as(STRANGER) {
        assert_eq!(exchange(stranger, "GET", "/v1/status", "").0, 200, "another user is served");
    }
    drop(crowd);
    let until = Instant::now() + Duration::from_secs(3);
    while served.ask("GET", "/v1/status", "").0 != 200 {
        assert!(Instant::now() < until, "the places of those who left are not free again");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_change_is_finished_even_when_the_caller_hangs_up() {
    let host = CannedHost { slow_freeze: Duration::from_millis(100), ..CannedHost::default() };
    let served = Served::new(host, Limits::default());
    let mut hasty = served.connect();
    hasty.write_all(b"POST /v1/freeze HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}").unwrap();
    std::thread::sleep(Duration::from_millis(30));
    drop(hasty);
    let until = Instant::now() + Duration::from_secs(3);
    while served.asked().is_empty() {
        assert!(Instant::now() < until, "the freeze was dropped with its caller");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_long_poll_answers_when_there_is_news_and_not_before() {
    let poll = |seen: usize| {
        let path = format!("/v1/runs/7?wait_ms=5000&seen={seen}");
        let (status, body, _) = as_caller(CannedHost::ending(RunOutcome::Done), true, "GET", &path, "");
        assert_eq!(status, 200);
        serde_json::from_str::<RunReport>(&body).unwrap().progress.len()
    };
    assert_eq!([poll(0), poll(1)], [1, 2]);
    let waiting = CannedHost::default();
    waiting.run.lock().unwrap().push(RunReport { id: 7, done: false, progress: vec![], outcome: None, message: None });
    let start = Instant::now();
    let (_, body, _) = as_caller(waiting, true, "GET", "/v1/runs/7?wait_ms=150", "");
    assert!(start.elapsed() >= Duration::from_millis(150));
    assert!(!serde_json::from_str::<RunReport>(&body).unwrap().done);
}

#[test]
fn garbage_does_not_keep_the_next_caller_from_being_served() {
    let served = Served::new(CannedHost::default(), Limits::default());
    for garbage in [&b"\x16\x03\x01\x02\x00"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", &[b'a'; 40_000]] {
        let mut stream = served.connect();
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        answer(&mut stream);
    }
    assert_eq!(served.ask("GET", "/v1/status", "").0, 200);
}
