//! The watch for the life of an instance, and what is told of things that are not as they were left.

use serde_json::Value;

use crate::common::{OLD, Site};

/// A server gets so long after its start; and one that stands still is killed soon, so that nobody waits for half a minute.
const SOON: &str = "[health]\nstart_deadline = \"2s\"\n";
const STOPS_SOON: &str = "[Service]\nTimeoutStopSec=2s\n";
/// Its listener closes 4 s after its start, and the process stays.
const LOSES_LISTENER: &str = "0.0.104";

/// A site whose watch is quick.
fn site(users: &[&str]) -> Site {
    let site = Site::with(users);
    site.write("/etc/systemd/system/t3-serve@.service.d/50-test.conf", STOPS_SOON);
    site.ok("systemctl daemon-reload");
    site.settings(SOON);
    site.enforce_to(0);
    site
}

fn signal(site: &Site, user: &str, signal: &str) {
    site.ok(&format!("systemctl kill --kill-whom=main --signal={signal} t3-serve@{user}"));
}

/// What the status says is not as it was left: kind and words.
fn drift(of: &Value) -> Vec<(String, String)> {
    let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
    of["drift"].as_array().unwrap().iter().map(|one| (text(one, "kind"), text(one, "what"))).collect()
}

#[test]
fn a_server_that_answers_nobody_is_restarted_when_it_is_idle_and_only_then() {
    let site = site(&["alice", "bob"]);
    site.ok("t3pin freeze --reason 'a fair'");
    let (before, work) = (site.runs(&["alice", "bob"]), site.work("alice"));
    signal(&site, "alice", "STOP");
    site.until("alice's server is restarted, in a freeze too", |site| site.runs(&["alice"])[0] != before[0]);
    site.until("and answers", |site| site.serves("alice") == OLD);
    site.is_whole("alice", OLD, "30");
    assert_eq!(site.work("alice"), work);
    let told = site.journal();
    assert!(told.contains("listens on port") && told.contains("it is restarted (1 of at most 3"), "{told}");
    assert_eq!(site.ok("t3pin history --json"), "[]", "that was no bump");

    site.turn("bob", "at-work", "start");
    signal(&site, "bob", "STOP");
    site.await_state("bob", "unreachable");
    let detail = site.instance("bob")["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("a turn is in flight in thread at-work") && detail.contains("systemctl restart"), "{detail}");
    let status = site.sh("t3pin status");
    assert_eq!(status.code, 6, "a person has to look: {status}");
    assert!(
        site.ok("curl --silent --unix-socket /run/t3pin/t3pin.sock http://t/metrics")
            .contains("t3pin_drift{user=\"bob\",kind=\"unreachable\"} 1")
    );
    assert_eq!(site.runs(&["bob"])[0], before[1], "somebody works there");
    signal(&site, "bob", "CONT");
    site.await_state("bob", "settled");
    assert_eq!(site.runs(&["bob"])[0], before[1], "it has come back by itself");
}

#[test]
fn what_three_restarts_did_not_help_is_left_to_a_person_also_after_the_agent_was_restarted() {
    let site = Site::bare();
    site.pin(LOSES_LISTENER);
    site.ok("t3pin enroll alice 2>&1");
    site.settings(SOON);
    site.enforce();
    let restarted = |site: &Site| site.ok("journalctl -u t3pin --no-pager -o cat").matches("it is restarted (").count();
    site.await_state("alice", "unreachable");
    let detail = site.instance("alice")["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("nobody listens on port") && detail.contains("3 restarts within 30 min"), "{detail}");
    assert_eq!(restarted(&site), 3);
    let before = site.runs(&["alice"]);
    site.ok("systemctl restart t3pin");
    site.await_state("alice", "unreachable");
    assert_eq!((restarted(&site), site.runs(&["alice"])), (3, before), "it has forgotten that it had tried");
    site.ok("systemctl restart t3-serve@alice");
    site.await_state("alice", "settled");
}

#[test]
fn what_is_not_as_it_was_left_is_told_and_left_alone() {
    let site = site(&["alice"]);
    assert_eq!(drift(&site.status()), []);
    let whole = site.sh("t3pin versions verify");
    assert!(whole.code == 0 && whole.stdout.contains("1 version(s)"), "{whole}");
    let before = site.untouched(&["alice"]);

    let file = "node_modules/t3/package.json";
    site.ok(&format!("cd /var/lib/t3pin/versions/{OLD} && chmod u+w {file} && echo >>{file} && chmod u-w {file}"));
    site.ok("printf '#!/bin/sh\\necho global\\n' >/usr/local/bin/t3 && chmod 755 /usr/local/bin/t3");
    let verified = site.sh(&format!("t3pin versions verify {OLD}"));
    assert!(verified.code == 5 && verified.stdout.contains(&format!("{file} has another size")), "{verified}");
    let kinds: Vec<String> = drift(&site.status()).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["sealed-version", "global-t3"]);
    site.ok("systemctl restart t3pin");
    site.until("the agent sees it without being asked", |site| {
        drift(&site.status()).iter().any(|(kind, _)| kind == "sealed-version")
    });
    assert!(site.ok("t3pin status").contains("/usr/local/bin/t3"), "{}", site.ok("t3pin status"));

    site.ok("ln -sfn ../versions/0.0.28 /var/lib/t3pin/bindings/alice");
    let alice = site.instance("alice");
    assert_eq!(alice["drift"][0]["kind"], "running-version", "{alice:#}");
    assert!(alice["drift"][0]["what"].as_str().unwrap().contains("0.0.24 answers, though alice is bound to 0.0.28"), "{alice:#}");
    site.ok(&format!("ln -sfn ../versions/{OLD} /var/lib/t3pin/bindings/alice"));
    assert_eq!(site.untouched(&["alice"]), before, "telling changed something");
}
