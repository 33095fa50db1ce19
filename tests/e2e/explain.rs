//! What is left of a bump that went badly, and how it is told.

use crate::common::{OLD, Site};

#[test]
fn a_rolled_back_bump_leaves_evidence_without_secrets_and_is_told_in_plain_words() {
    let site = Site::with(&["alice", "bob"]);
    let cookie = site.user_pair("alice");
    site.ok("echo T3_STANDIN_LIVE_FAULT=1 >>/etc/t3-serve/alice.env");
    site.pin("0.0.103");
    site.enforce_to(4);
    site.is_whole("alice", OLD, "30");

    let told = site.ok("t3pin explain alice");
    for part in [
        "0.0.24 -> 0.0.103, rolled-back",
        "What was planned",
        "rehearsed well",
        "0.0.103 was started",
        "failed at Exchange",
        "0.0.103 was stopped",
        "the data of 0.0.24 is back in place",
        "What was wrong",
        "What 0.0.103 said last",
        "state: held-back",
        "t3pin versions clear 0.0.103",
        "-rolled-back",
    ] {
        assert!(told.contains(part), "{part:?} is not told:\n{told}\n{}", site.journal());
    }
    let id = told.split(' ').next().unwrap().to_owned();
    assert_eq!(site.ok(&format!("t3pin explain {id}")), told, "the bump by its own name");

    let bundle = format!("/var/lib/t3pin/evidence/{id}-rolled-back");
    assert_eq!(site.ok(&format!("ls {bundle}")), "facts.json\njournal.jsonl\nprobes.json\nrehearsal.log\nunit.log");
    let modes = site.ok(&format!("find /var/lib/t3pin/evidence -printf '%m %U\\n' | sort -u; ls {bundle} | wc -l"));
    assert_eq!(modes, "600 0\n700 0\n5", "only root reads it");
    assert_eq!(site.ok(&format!("jq -r '.versions.to, .migration_level.before' {bundle}/facts.json")), "0.0.103\n30");
    let log = site.ok(&format!("cat {bundle}/unit.log"));
    assert!(log.contains("T3 Code") && log.contains("***"), "the server's own words, its startup token blanked: {log}");
    // What the server really said has tokens in it: none of them, and no cookie, is in any file.
    let tokens = site.ok(
        "journalctl -u t3-serve@alice -o cat | grep --only-matching --extended-regexp '(Token: |token=)[A-Z0-9]{12}' | grep --only-matching '[A-Z0-9]*$' | sort -u",
    );
    assert!(!tokens.is_empty());
    for secret in tokens.lines().chain([cookie.as_str(), cookie.split('=').next_back().unwrap()]) {
        let found =
            site.sh(&format!("grep --recursive --fixed-strings --files-with-matches -- '{secret}' /var/lib/t3pin/evidence"));
        assert_eq!(found.stdout, "", "a secret is in the evidence");
        assert!(!told.contains(secret), "a secret is in the story");
    }

    // Users are told of themselves, and where root's files lie is none of their business.
    let own = site.as_user("alice", "t3pin explain alice");
    assert!(own.code == 0 && own.stdout.contains("What was wrong") && !own.stdout.contains("/evidence/"), "{own}");
    for what in ["alice", id.as_str()] {
        let others = site.as_user("bob", &format!("t3pin explain {what}"));
        assert_ne!(others.code, 0, "{others}");
    }
    let nobody_yet = site.ok("t3pin explain bob");
    assert!(nobody_yet.contains("held-back") || nobody_yet.contains("had no bump"), "{nobody_yet}");

    // A release that does not get through its rehearsal is told of as well.
    site.pin("0.0.91");
    site.enforce_to(5);
    let refused = site.ok("t3pin explain bob 2>&1; t3pin explain alice 2>&1");
    assert!(refused.contains("0.0.91, refused") && refused.contains("tried on a copy only"), "{refused}");
    assert!(!site.ok("ls -d /var/lib/t3pin/evidence/*-refused").is_empty());
}
