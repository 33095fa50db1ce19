//! Verbs against a real socket, and what people see.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{CommandFactory, Parser};

use super::answer::Answer;
use super::exit::Exit;
use super::render::clock;
use super::{Cli, Verb, explain, follow, history, instances, plan, reissue, status, versions};
use crate::api::canned::{self, CannedHost, NOW_MS};
use crate::api::client::{Client, ClientError};
use crate::api::types::{FreezeStatus, Reissued, RunOutcome};

/// A socket served as the agent does, until dropped.
struct Served {
    socket: PathBuf,
    _dir: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Served {
    fn new(host: &Arc<CannedHost>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("sock");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(async { tokio::net::UnixListener::bind(&socket).unwrap() });
        runtime.spawn(crate::api::server::serve(listener, Arc::clone(host)));
        Self { socket, _dir: dir, _runtime: runtime }
    }
}

/// Runs `words` as a command line against `host`.
fn run(host: &Arc<CannedHost>, words: &[&str]) -> Result<Answer, ClientError> {
    ask(&Served::new(host).socket, words)
}

fn ask(socket: &Path, words: &[&str]) -> Result<Answer, ClientError> {
    let cli = Cli::try_parse_from([&["t3pin", "--socket", socket.to_str().unwrap()], words].concat()).unwrap();
    match cli.verb {
        Verb::Ask(question) => super::converse(question, Client::new(cli.socket)),
        verb => panic!("{verb:?} does not ask the agent"),
    }
}

/// The tests that change things need a privileged caller; who else runs them is refused, which is tested elsewhere.
fn root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn waiting_verbs_end_with_the_code_of_the_outcome() {
    let cases = [
        (RunOutcome::Done, Exit::Done),
        (RunOutcome::Deferred, Exit::Deferred),
        (RunOutcome::RolledBack, Exit::RolledBack),
        (RunOutcome::Refused, Exit::Refused),
        (RunOutcome::Stuck, Exit::Stuck),
    ];
    for (outcome, exit) in cases.into_iter().filter(|_| root()) {
        for words in
            [&["enforce", "--wait"][..], &["rollback", "bob"], &["enroll", "bob", "--port", "4102"], &["now", "bob", "--wait"]]
        {
            let answer = run(&Arc::new(CannedHost::ending(outcome)), words).unwrap();
            assert_eq!((answer.exit(), answer.text()), (exit, "The story."), "{words:?}");
            assert!(answer.json().contains("\"done\": true"));
        }
    }
}

#[test]
fn verbs_ask_for_what_they_were_told() {
    let asked = |words: &[&str]| {
        let host = Arc::new(CannedHost::ending(RunOutcome::Done));
        run(&host, words).unwrap();
        host.asked.lock().unwrap().join("; ")
    };
    if root() {
        assert_eq!(asked(&["rollback", "--all", "--force"]), "rollback None true");
        assert_eq!(asked(&["enroll", "bob", "--port", "4102", "--version", "0.0.24"]), "enroll bob Some(4102) Some(\"0.0.24\")");
        assert_eq!(asked(&["freeze", "--reason", "fair week"]), "freeze Some(\"fair week\")");
        assert_eq!(asked(&["unenroll", "bob"]), "unenroll bob");
        assert_eq!(asked(&["thaw"]), "thaw");
        assert_eq!(asked(&["versions", "clear", "0.0.26"]), "clear 0.0.26");
        assert_eq!(asked(&["versions", "retry", "0.0.26", "bob"]), "retry 0.0.26 with bob");
        assert_eq!(asked(&["enforce"]), "enforce");
        assert_eq!(asked(&["now", "bob", "--force"]), "now bob true by 0");
        assert_eq!(
            asked(&["defer", "bob", "--until", "2026-11-30T18:00:00Z", "--reason", "demo"]),
            "defer bob Some(1796061600000) Some(\"demo\") by 0"
        );
        assert_eq!(asked(&["defer", "bob", "--clear"]), "defer bob None None by 0");
    }
    assert_eq!(asked(&["status"]), "");
}

#[test]
fn what_the_doctor_finds_is_told_with_what_to_do_and_a_problem_is_an_exit_code() {
    if !root() {
        return;
    }
    let answer = run(&Arc::new(CannedHost::default()), &["doctor"]).unwrap();
    assert_eq!(answer.exit(), Exit::Stuck);
    assert!(
        answer.text().contains("PROBLEM  compiler") && answer.text().contains("compiler: apt install g++"),
        "{}",
        answer.text()
    );
    assert!(!answer.text().contains("  room: "), "nothing is to be done about what is well: {}", answer.text());
}

#[test]
fn a_minted_credential_is_all_that_people_read() {
    if !root() {
        return;
    }
    let host = Arc::new(CannedHost::default());
    let answer = run(&host, &["mint", "alice", "--ttl", "1h", "--label", "phone"]).unwrap();
    assert_eq!((answer.exit(), answer.text()), (Exit::Done, "ABCD2345EFGH\n"));
    assert!(answer.json().contains("\"credential\": \"ABCD2345EFGH\"") && answer.json().contains("\"version\": \"0.0.25\""));
    assert_eq!(*host.asked.lock().unwrap(), [r#"mint alice 60m Some("phone") by 0"#]);
}

#[test]
fn new_links_are_asked_for_until_every_device_has_one() {
    if !root() {
        return;
    }
    let host = Arc::new(CannedHost::default());
    let answer = run(&host, &["reissue", "alice", "--ttl", "2h"]).unwrap();
    assert_eq!(*host.asked.lock().unwrap(), ["reissue alice 120m [] by 0", r#"reissue alice 120m ["l1"] by 0"#]);
    let text = answer.text();
    assert!(text.starts_with("2 of 3 devices still have to pair again"), "{text}");
    for part in ["phone 1 [2J  ", "phone 2 [2J  ", "ABCD2345EFG1", "ABCD2345EFG2"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(answer.exit() == Exit::Done && answer.json().contains("\"left\": 0"), "{}", answer.json());
}

#[test]
fn who_has_nothing_to_pair_again_is_told_so() {
    let none = |lost, paired_again, unlisted| Reissued {
        user: canned::user("alice"),
        version: None,
        lost,
        paired_again,
        unlisted,
        links: vec![],
        left: 0,
    };
    assert!(reissue::shown(&none(0, 0, 0), canned::NOW_MS).starts_with("Nobody has to pair again"));
    assert_eq!(reissue::shown(&none(2, 2, 0), canned::NOW_MS), "All of 2 have paired again with alice's server.\n");
    assert!(reissue::shown(&none(2, 2, 5), canned::NOW_MS).contains("5 more lost their pairing"));
}

#[test]
fn arguments_that_could_do_harm_to_a_sudo_rule_are_none() {
    for words in [&["--label=--base-dir"][..], &["--ttl", "1y"], &["../alice"], &["-u"], &["alice", "bob"], &["--base-dir", "/"]]
    {
        assert!(Cli::try_parse_from([&["t3pin", "mint"], words].concat()).is_err(), "{words:?}");
    }
}

#[test]
fn all_that_the_own_t3_is_told_is_passed_on() {
    for words in [&["--json"][..], &["--help"], &["auth", "--", "--socket"], &["--version"], &["-v"]] {
        let cli = Cli::try_parse_from([&["t3pin", "t3", "--"], words].concat()).unwrap();
        let said = format!("{:?}", cli.verb);
        assert!(said.contains(&format!("{words:?}")), "{words:?}: {said}");
    }
}

#[test]
fn enforce_without_wait_says_that_it_goes_on_and_where_to_look() {
    if !root() {
        return;
    }
    let answer = run(&Arc::new(CannedHost::ending(RunOutcome::Stuck)), &["enforce"]).unwrap();
    assert_eq!(answer.exit(), Exit::Done);
    assert_eq!(answer.text(), "Started as run 7. See how it goes: t3pin status, or journalctl -fu t3pin\n");
}

#[test]
fn a_missing_agent_is_one_clear_line_and_exit_7() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere");
    let deserted = dir.path().join("deserted");
    drop(std::os::unix::net::UnixListener::bind(&deserted).unwrap());
    for socket in [nowhere, deserted] {
        let error = ask(&socket, &["status"]).unwrap_err();
        assert_eq!(Exit::from(&error), Exit::Unreachable);
        let line = error.to_string();
        assert!(line.starts_with("no agent: ") && line.contains("systemctl start") && !line.contains('\n'), "{line}");
    }
}

#[test]
fn an_agent_that_hangs_up_or_talks_nonsense_is_no_crash() {
    use std::io::{Read, Write};
    for (reply, exit) in [(&b""[..], Exit::Unreachable), (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]", Exit::Internal)] {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let odd = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            stream.write_all(reply).unwrap();
        });
        assert_eq!(Exit::from(&ask(&socket, &["status"]).unwrap_err()), exit);
        odd.join().unwrap();
    }
}

#[test]
fn a_refusal_for_want_of_room_reaches_the_caller_as_such() {
    let host = Arc::new(CannedHost::default());
    let served = Served::new(&host);
    // One more than one user may have: the places of those before are not free, since they never hang up.
    let crowd: Vec<_> = (0..16).map(|_| std::os::unix::net::UnixStream::connect(&served.socket).unwrap()).collect();
    let error = ask(&served.socket, &["status"]).unwrap_err();
    assert_eq!(Exit::from(&error), Exit::Refused, "{error}");
    assert!(error.to_string().contains("already has 16 connections open"), "{error}");
    drop(crowd);
}

#[test]
fn a_restarted_agent_is_not_mistaken_for_the_one_that_was_asked() {
    if !root() {
        return;
    }
    let host = CannedHost::ending(RunOutcome::Done);
    host.run.lock().unwrap().drain(1..);
    let mut other = host.run.lock().unwrap()[0].clone();
    other.progress.clear();
    host.run.lock().unwrap().push(other);
    let error = run(&Arc::new(host), &["enforce", "--wait"]);
    // The run does not move within the first look, and is then found to be another one.
    let error = error.unwrap_err();
    assert_eq!(Exit::from(&error), Exit::Unreachable);
    assert!(error.to_string().contains("the agent was restarted"), "{error}");
}

#[test]
fn wrong_usage_ends_with_2() {
    let wrong = [
        &["rollback"][..],
        &["rollback", "bob", "--all"],
        &["rollback", "../bob"],
        &["enroll", "bob", "--port", "0"],
        &["versions", "clear", "^0.0.25"],
        &["status", "-x"],
        &["defer", "bob"],
        &["defer", "bob", "--for", "2h", "--clear"],
        &["defer", "bob", "--until", "soon"],
        &["frobnicate"],
        &[],
    ];
    for words in wrong {
        let error = Cli::try_parse_from([&["t3pin"], words].concat()).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{words:?}");
    }
}

#[test]
fn the_worker_and_packaging_verbs_do_not_clutter_the_help() {
    let help = Cli::command().render_long_help().to_string();
    assert!(help.contains("Exit codes:") && help.contains("T3PIN_SOCKET"), "{help}");
    assert!(!help.contains("generate") && !help.contains("worker"), "{help}");
}

#[test]
fn status_of_the_host_reads_well() {
    let text = status::shown(&canned::status(), false, NOW_MS, None);
    assert_eq!(
        text,
        "\
Agent        draining (waiting for bob to be idle); t3pin 0.1.0, started 2 days ago
Pin          0.0.25 (/etc/t3pin/pin.toml)
Rollout      0.0.25 waiting (bob works); alice done, bob deferred
Quarantined  0.0.26, 2 days ago: rehearsal: pairing API moved

USER   STATE     RUNS    WANTED  PORT  WHY
alice  settled   0.0.25  0.0.25  4101
bob    deferred  0.0.24  0.0.25  4102  a turn is in flight (put off 3 min ago)
"
    );
}

#[test]
fn status_tells_a_user_what_runs_what_is_coming_and_why_it_waits() {
    let mut report = canned::status();
    report.instances.remove(0);
    let text = status::shown(&report, true, NOW_MS, None);
    let own = text.split_once("\n\n").unwrap().1;
    let (before, after) = own.split_once("Rehearsal").unwrap();
    let times = |text: &str| text.replace(&clock(NOW_MS + 15 * 60_000), "SOON").replace(&clock(NOW_MS + 48 * 3_600_000), "LATE");
    assert_eq!(
        times(before),
        "\
bob (t3-serve@bob.service, port 4102)
Runs         t3 0.0.24
Coming       t3 0.0.25, at SOON at the earliest
State        deferred
Waits        a turn is in flight (put off 3 min ago, last look 10 s ago); goes on by itself when nothing is in flight any more and it has been quiet for a while
Escalated    1 min ago: it has been waiting for too long, and operators were told
You can      t3pin now bob: as soon as nothing is in flight, without waiting for quiet (--force: at any price)
             t3pin defer bob --for 2h: not before then; until LATE at the latest
"
    );
    assert_eq!(after, "    passed on a copy in 9.1 s; 2 sessions will have to pair again\n");
}

#[test]
fn status_shouts_when_the_pin_file_is_wrong_and_names_what_is_kept() {
    let mut report = canned::status();
    report.pin.valid = false;
    report.pin.error = Some("pin.toml, line 1, key version: \"latest\" is not an exact version".to_owned());
    report.freeze = Some(FreezeStatus { since_ms: NOW_MS - 60_000, reason: None });
    let text = status::shown(&report, false, NOW_MS, None);
    assert!(text.contains("Pin          0.0.25, still enforced from the last good pin file\n"), "{text}");
    assert!(text.contains("PIN FILE IS WRONG: pin.toml, line 1, key version"), "{text}");
    assert!(text.contains("Frozen       1 min ago: no reason given; lift with: t3pin thaw\n"), "{text}");
}

#[test]
fn status_exits_6_only_when_something_is_stuck() {
    let mut report = canned::status();
    assert_eq!(status::exit(&report), Exit::Done);
    report.pin.valid = false;
    assert_eq!(status::exit(&report), Exit::Done);
    report.instances[1].state = "stuck".to_owned();
    assert_eq!(status::exit(&report), Exit::Stuck);
}

#[test]
fn status_of_somebody_unknown_is_refused() {
    let error = run(&Arc::new(CannedHost::default()), &["status", "carol"]).unwrap_err();
    assert_eq!(Exit::from(&error), Exit::Refused);
    assert!(error.to_string().contains("no instance of carol"));
}

#[test]
fn a_reason_made_by_a_user_cannot_command_the_operators_terminal() {
    let mut report = canned::status();
    let evil = "\x1b[2J\rROOT: all well\n\x07";
    report.instances[1].detail = Some(evil.to_owned());
    report.instances[1].state = evil.to_owned();
    report.agent.doing = evil.to_owned();
    for closely in [false, true] {
        report.instances.truncate(if closely { 1 } else { 2 });
        let text = status::shown(&report, closely, NOW_MS, None);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
}

#[test]
fn plan_reads_well() {
    let mut report = canned::plan();
    let steps = "\
ACTION  USER   FROM    TO      WHY
keep    alice  0.0.25  0.0.25  runs what is pinned
defer   bob    0.0.24  0.0.25  a turn is in flight
";
    assert_eq!(plan::shown(&report), steps);
    report.blocked = Some("frozen: fair week".to_owned());
    assert_eq!(plan::shown(&report), format!("Nothing would be done: frozen: fair week\n\n{steps}"));
    report.steps.clear();
    assert_eq!(plan::shown(&report), "Nothing would be done: frozen: fair week\n");
}

#[test]
fn history_reads_well_and_tells_where_the_data_lies() {
    let mut rolled_back = canned::bump();
    rolled_back.outcome = "rolled-back".to_owned();
    rolled_back.reason = Some("nobody could pair".to_owned());
    rolled_back.downtime_ms = None;
    rolled_back.snapshot = None;
    rolled_back.salvage = Some("/var/lib/t3pin/salvage/b000002".to_owned());
    rolled_back.id = "b000002".to_owned();
    assert_eq!(
        history::shown(&[rolled_back, canned::bump()], NOW_MS),
        "\
BUMP     WHEN        USER   VERSIONS          OUTCOME      TOOK  DOWN   WHY
b000002  20 min ago  alice  0.0.24 -> 0.0.25  rolled-back  11 s  -      nobody could pair
b000001  20 min ago  alice  0.0.24 -> 0.0.25  done         11 s  3.5 s

b000002 salvage   /var/lib/t3pin/salvage/b000002
b000001 snapshot  /var/lib/t3pin/snapshots/alice/b000001
"
    );
}

#[test]
fn a_story_reads_from_the_plan_to_what_one_can_do() {
    let at = |ms: i64| super::render::clock_seconds(NOW_MS + ms);
    assert_eq!(
        explain::shown(&canned::explanation()),
        format!(
            "\
b000001 of alice: 0.0.24 -> 0.0.25, rolled-back

What was planned
  From 0.0.24 to 0.0.25, because of this: pinned.

What happened
  {}  put off: a turn is in flight (3 times, last at {})
  {}  0.0.25 was started

What was wrong
  The new version, 0.0.25, is at fault: nobody could pair.

What 0.0.25 said last
  | Error: no [2J

What was done
  0.0.24 was put back together with its own data.

Who has to pair again
  - my phone{}

How it is now
  alice's server runs 0.0.24; state: held-back.

What you can do
  - nothing has to be done

Evidence (root only)
  /var/lib/t3pin/evidence/b000001-rolled-back
",
            at(0),
            at(2000),
            at(60_000),
            " "
        )
    );
    let answer = run(&Arc::new(CannedHost::default()), &["explain", "b000001", "--json"]).unwrap();
    assert!(answer.json().contains("\"planned\""), "{}", answer.json());
}

#[test]
fn versions_and_instances_read_well() {
    let mut installed = canned::versions();
    installed[1].quarantined = Some("nobody could pair".to_owned());
    assert_eq!(
        versions::shown(&installed, NOW_MS),
        "\
VERSION  SIZE     INSTALLED  USERS
0.0.24   385 MiB  2 h ago    bob
0.0.25   598 MiB  2 h ago    alice  quarantined: nobody could pair
"
    );
    assert_eq!(
        instances::shown(&canned::status().instances),
        "\
USER   UNIT                    PORT  BOUND   RUNS    STATE
alice  t3-serve@alice.service  4101  0.0.25  0.0.25  settled
bob    t3-serve@bob.service    4102  0.0.24  0.0.24  deferred
"
    );
}

#[test]
fn json_is_what_the_agent_said() {
    let answer = run(&Arc::new(CannedHost::default()), &["history", "alice", "--limit", "5", "--json"]).unwrap();
    let bumps: Vec<crate::api::types::BumpSummary> = serde_json::from_str(answer.json()).unwrap();
    assert_eq!(bumps[0].id, "b000001");
    assert_eq!(follow::ended(canned_end()).unwrap().exit(), Exit::Internal, "an end without an outcome is the agent's fault");
}

fn canned_end() -> crate::api::types::RunReport {
    crate::api::types::RunReport { id: 1, done: true, progress: vec![], outcome: None, message: None }
}

#[test]
fn man_pages_and_completions_are_written_for_packaging() {
    let dir = tempfile::tempdir().unwrap();
    for what in ["man", "completions"] {
        let cli = Cli::try_parse_from(["t3pin", "generate", what, dir.path().to_str().unwrap()]).unwrap();
        let Verb::Generate(generate) = cli.verb else { panic!("{cli:?}") };
        generate.run().unwrap();
    }
    for file in ["t3pin.1", "t3pin-status.1", "t3pin-versions-clear.1", "t3pin.bash", "_t3pin", "t3pin.fish"] {
        assert!(std::fs::metadata(dir.path().join(file)).unwrap().len() > 100, "{file}");
    }
    let page = std::fs::read_to_string(dir.path().join("t3pin.1")).unwrap();
    assert!(page.contains("\n.SH \"EXIT STATUS\"\n.nf\n  0  done"), "{page}");
    let named = page.lines().filter_map(|line| line.strip_suffix("(1)"));
    for verb in named.map(|name| name.replace('\\', "")) {
        assert!(dir.path().join(format!("{verb}.1")).exists(), "{verb} is named and not there");
    }
    assert!(!dir.path().join("t3pin-generate.1").exists());
}

#[test]
fn a_hand_over_that_is_less_sure_is_said_to_be() {
    let mut alice = crate::api::canned::alice();
    assert!(!crate::cli::status::one::shown(&alice, crate::api::canned::NOW_MS).contains("Hand-over"));
    alice.weaker = Some("it cannot be frozen: no cgroup v2".to_owned());
    let shown = crate::cli::status::one::shown(&alice, crate::api::canned::NOW_MS);
    assert!(shown.contains("Hand-over    less sure here: it cannot be frozen: no cgroup v2"), "{shown}");
}
