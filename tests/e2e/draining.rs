//! Bumps that were put off: by whom, until when, and that they go on by themselves.

use crate::common::{GOOD, OLD, Site};
use serde_json::Value;
use t3pin_tests::Output;

/// Quiet that nobody waits for here: what goes on goes on because somebody said so.
const LONG_QUIET: &str = "[activity]\nquiet = \"1h\"\npoll = \"500ms\"\n";

#[track_caller]
fn as_user(site: &Site, user: &str, command: &str, code: i32) -> Output {
    let output = site.as_user(user, command);
    assert_eq!(output.code, code, "{user}: {command}: {output}\n{}", site.journal());
    output
}

fn owner(site: &Site, user: &str) -> Value {
    site.instance(user)["deferral"]["owner"].clone()
}

#[test]
fn users_say_when_they_are_bumped_within_limits_and_nobody_says_it_for_them() {
    let site = Site::with(&["alice", "bob"]);
    site.settings(LONG_QUIET);
    site.turn("alice", "at-work", "start");
    let before = site.runs(&["alice", "bob"]);
    site.pin(GOOD);
    let enforced = site.enforce_to(3);
    assert!(enforced.stdout.contains("bob is put off: somebody worked here a moment ago"), "{enforced}");
    assert!(enforced.stderr.contains("bob: rehearsed well"), "everybody is rehearsed: {enforced}");

    let told = as_user(&site, "alice", "t3pin status", 0).stdout;
    for part in ["Runs", OLD, "Coming", GOOD, "a turn is in flight", "t3pin now", "t3pin defer"] {
        assert!(told.contains(part), "{part} is not told to alice:\n{told}");
    }
    assert!(!told.contains("bob"), "bob is not alice's to see:\n{told}");

    for wrong in [
        "t3pin defer alice --for 2h",
        "t3pin now alice",
        "t3pin now alice --force",
        "t3pin defer bob --for 30days",
        "t3pin defer --clear alice",
    ] {
        as_user(&site, "bob", wrong, 5);
    }
    as_user(&site, "bob", "t3pin defer --for 2h --reason demo", 0);
    site.until("bob's word holds", |site| owner(site, "bob") == "user");
    assert!(site.instance("bob")["deferral"]["reason"].as_str().unwrap().ends_with(": demo"));
    site.kill_agent();
    site.until("the agent is back", |site| site.sh("t3pin status").code == 0);
    site.until("bob's word holds after a crash", |site| owner(site, "bob") == "user");

    // An operator's word is above the user's.
    site.ok("t3pin defer bob --for 30days --reason fair");
    site.until("the operator's word holds", |site| owner(site, "bob") == "operator");
    let refused = as_user(&site, "bob", "t3pin now", 5);
    assert!(refused.stderr.contains("an operator has put it off") && refused.stderr.contains("fair"), "{refused}");
    site.ok("t3pin defer bob --clear");
    site.until("only quiet is waited for", |site| owner(site, "bob") == "activity");

    let waits = as_user(&site, "alice", "t3pin now --wait", 3);
    assert!(waits.stdout.contains("alice is put off: a turn is in flight in thread at-work"), "{waits}");
    assert!(!waits.stdout.contains("bob") && !waits.stderr.contains("bob"), "{waits}");
    assert_eq!(site.runs(&["alice", "bob"]), before, "somebody was interrupted");
    site.turn("alice", "at-work", "end");
    site.until("alice is bumped as she asked, without waiting for quiet", |site| site.serves("alice") == GOOD);
    assert_eq!(site.runs(&["bob"])[0], before[1], "bob did not ask");

    site.turn("bob", "at-work", "start");
    as_user(&site, "bob", "t3pin now --wait", 3);
    let forced = as_user(&site, "bob", "t3pin now --force --wait", 0);
    assert!(forced.stderr.contains("by force; interrupted: a turn is in flight in thread at-work"), "{forced}");
    site.await_state("bob", "settled");
    for user in ["alice", "bob"] {
        site.is_whole(user, GOOD, "31");
        assert_eq!(site.instance(user)["deferral"], Value::Null);
    }
    as_user(&site, "alice", "t3pin now --wait", 0);
}

#[test]
fn outside_of_the_window_only_who_is_asked_for_by_name_is_bumped_and_long_waits_are_escalated() {
    let site = Site::with(&["alice", "bob"]);
    let hour = |ahead: &str| site.ok(&format!("date --utc --date='{ahead} hours' +%H:00"));
    let window = format!("{}-{} UTC", hour("+3"), hour("+4"));
    site.settings(&format!("[drain]\nwindow = \"{window}\"\nescalate_after = \"1s\"\n"));
    let before = site.runs(&["alice", "bob"]);
    site.pin(GOOD);
    let enforced = site.enforce_to(3);
    assert!(enforced.stdout.contains("outside of the hours for changes"), "{enforced}");
    assert_eq!(owner(&site, "alice"), "window");
    site.until("it is escalated", |site| {
        let metrics = site.ok("curl --silent --unix-socket /run/t3pin/t3pin.sock http://t3pin/metrics");
        metrics.contains("t3pin_deferral_escalated{user=\"alice\"} 1")
    });
    assert_eq!(site.ok("journalctl -u t3pin T3PIN_USER=alice -o cat | grep -c 'has been waiting for'"), "1");
    assert!(site.ok("t3pin status alice").contains("Escalated"));
    assert_eq!(site.runs(&["alice", "bob"]), before, "somebody was bumped outside of the window");

    site.ok("t3pin now alice --wait");
    assert_eq!(site.serves("alice"), GOOD);
    assert_eq!(site.runs(&["bob"])[0], before[1], "bob was not asked for");

    site.settings("[drain]\nwindow = \"00:00-24:00 UTC\"\n");
    site.enforce_to(0);
    site.await_state("bob", "settled");
    site.is_whole("bob", GOOD, "31");
}

#[test]
fn who_calls_from_inside_their_own_server_goes_last_and_the_work_goes_on_without_their_shell() {
    let site = Site::with(&["alice", "bob"]);
    // The least active is first otherwise.
    site.ok("usermod --append --groups t3pin alice");
    let before = site.runs(&["alice", "bob"]);
    site.pin(GOOD);
    let script = "t3pin enforce --wait >/tmp/told 2>/tmp/progress; echo \\\\$? >/tmp/code.new; mv /tmp/code.new /tmp/code";
    let port = site.port("alice");
    site.ok(&format!(
        "curl --silent --show-error --fail --data '{{\"command\":\"exec bash -ic \\\"{script}\\\"\"}}' http://127.0.0.1:{port}/standin/terminal"
    ));
    site.until("the command in alice's terminal has ended", |site| site.sh("test -e /tmp/code").code == 0);
    let told = site.ok("cat /tmp/told");
    assert_eq!(site.ok("cat /tmp/code"), "3", "{told}");
    assert!(
        told.contains("alice is put off: t3pin runs in a terminal; you called from inside this server, so it goes last"),
        "{told}"
    );
    assert_ne!(site.runs(&["bob"])[0], before[1], "bob was bumped meanwhile: {told}");
    site.until("alice is bumped when her shell has ended", |site| site.serves("alice") == GOOD);
    site.await_state("alice", "settled");
    site.is_whole("alice", GOOD, "31");
    let history: Vec<Value> = serde_json::from_str(&site.ok("t3pin history --json")).unwrap();
    assert_eq!(history.iter().rev().map(|bump| bump["user"].as_str().unwrap()).collect::<Vec<_>>(), ["bob", "alice"]);
}

#[test]
fn who_is_let_go_of_keeps_everything_and_who_is_deleted_is_not_counted() {
    let site = Site::with(&["alice", "bob"]);
    let kept = site.untouched(&["alice"]);
    let told = site.ok("t3pin unenroll alice");
    assert!(told.contains("goes on with t3 0.0.24") && told.contains("t3pin enroll alice"), "{told}");
    assert_eq!(site.untouched(&["alice"]), kept, "unenroll touched something");
    site.ok("systemctl stop t3-serve@bob && userdel bob");
    assert_eq!(site.status()["instances"], Value::Array(vec![]));
    site.pin(GOOD);
    site.enforce_to(0);
    assert_eq!(site.untouched(&["alice"]), kept, "a user who was let go of was touched");
    assert_eq!(site.sh("t3pin unenroll alice").code, 5);
    site.ok("t3pin enroll alice");
    site.enforce_to(0);
    site.await_state("alice", "settled");
    site.is_whole("alice", GOOD, "31");
}
