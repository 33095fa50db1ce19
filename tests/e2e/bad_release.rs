//! Releases that must not get through to anybody.

use crate::common::{OLD, Site};

const USERS: [&str; 2] = ["alice", "bob"];

/// Rehearsals that have begun.
fn rehearsals(site: &Site) -> usize {
    site.ok("journalctl --unit=t3pin --output=cat T3PIN_PHASE=Rehearsed").lines().count()
}

#[test]
fn a_release_whose_pairing_moved_touches_nobody_until_it_is_said_where_to() {
    let site = Site::with(&USERS);
    let before = site.untouched(&USERS);
    site.pin("0.0.95");
    let refused = site.enforce_to(5);
    assert!(refused.stdout.contains("pair_endpoints"), "names the setting to extend: {refused}");
    assert_eq!(site.untouched(&USERS), before, "somebody was touched");
    site.nothing_is_left("0.0.95");
    let status = site.status();
    assert_eq!(status["quarantine"][0]["version"], "0.0.95", "{status:#}");
    assert!(status["quarantine"][0]["reason"].as_str().unwrap().contains("pair_endpoints"), "{status:#}");
    assert_eq!(status["rollout"]["state"], "stopped", "{status:#}");
    for user in USERS {
        let instance = site.instance(user);
        assert_eq!(instance["state"], "held-back", "{instance:#}");
        assert_eq!(instance["running_version"], OLD, "{instance:#}");
    }

    let tried = rehearsals(&site);
    let again = site.enforce_to(5);
    assert!(again.stdout.contains("t3pin versions clear 0.0.95"), "says how it may be tried again: {again}");
    assert_eq!(rehearsals(&site), tried, "a quarantined version was tried again");

    site.settings(
        "[health]\npair_endpoints = [\"/api/auth/exchange-v3\", \"/api/auth/browser-session\", \"/api/auth/bootstrap\"]\n",
    );
    site.enforce_to(5);
    assert_eq!(rehearsals(&site), tried, "only the operator lifts a quarantine");
    site.ok("t3pin versions clear 0.0.95");
    site.enforce_to(0);
    for user in USERS {
        site.await_state(user, "settled");
        assert_eq!(site.serves(user), "0.0.95");
        assert_eq!(site.level(user), "32");
    }
    assert_eq!(site.status()["quarantine"], serde_json::json!([]));
}

#[test]
fn no_bad_release_gets_past_its_rehearsal() {
    let site = Site::with(&USERS);
    for thread in ["more-work", "still-more-work"] {
        site.turn("alice", thread, "start");
        site.turn("alice", thread, "end");
    }
    site.settings("[health]\nstart_deadline = \"5s\"\nstart_ceiling = \"20s\"\n");
    let before = site.untouched(&USERS);
    let bad = [
        ("0.0.91", "crashes at its start", "exit"),
        ("0.0.93", "hangs", "nobody answers"),
        ("0.0.97", "wipes the work", "rows of the user's work"),
        ("0.0.98", "corrupts the database", "corrupt"),
        ("0.0.102", "is not what it says", "0.0.1"),
    ];
    for (version, what, words) in bad {
        site.pin(version);
        let refused = site.enforce_to(5);
        assert!(refused.stdout.contains(words), "{version} {what}, and the message does not say so: {refused}");
        assert_eq!(site.untouched(&USERS), before, "{version} {what}, and somebody was touched");
        let status = site.status();
        let quarantined = status["quarantine"].as_array().unwrap().iter().any(|entry| entry["version"] == version);
        assert!(quarantined, "{version} {what}, and may be tried again unattended: {status:#}");
        site.nothing_is_left(version);
    }
    let history = site.ok("t3pin history --json");
    assert!(!history.contains("rolled-back"), "nobody was switched, so nobody was rolled back: {history}");
    site.pin(OLD);
    site.enforce_to(0);
    assert_eq!(site.untouched(&USERS), before);
}

#[test]
fn a_slow_migration_that_visibly_works_is_given_its_time() {
    let site = Site::with(&["alice"]);
    // It takes 20 s: more than the deadline, less than the ceiling.
    site.settings("[health]\nstart_deadline = \"5s\"\nstart_ceiling = \"120s\"\n");
    site.ok("echo T3_STANDIN_MIGRATION_MS=8000 >>/etc/t3-serve/alice.env");
    let work = site.work("alice");
    site.pin("0.0.96");
    site.enforce_to(0);
    site.await_state("alice", "settled");
    assert_eq!(site.work("alice"), work);
    site.is_whole("alice", "0.0.96", "33");
}

#[test]
fn a_release_that_does_not_install_changes_nothing_and_npm_says_why() {
    let site = Site::with(&USERS);
    let before = site.untouched(&USERS);
    site.pin("0.0.106");
    let refused = site.enforce_to(5);
    assert!(refused.stdout.contains("the stand-in fails to install as ordered"), "npm's own words: {refused}");
    assert_eq!(site.untouched(&USERS), before, "somebody was touched");
    assert_eq!(site.ok("ls /var/lib/t3pin/versions"), OLD);
    site.nothing_is_left("0.0.106");
    let instance = site.instance("bob");
    assert_eq!(instance["state"], "held-back", "{instance:#}");
    assert!(instance["detail"].as_str().unwrap().contains("as ordered"), "{instance:#}");
    site.pin(OLD);
    site.enforce_to(0);
    site.is_whole("bob", OLD, "30");
}

#[test]
fn what_a_release_forks_ends_with_it_in_the_rehearsal_and_after_a_rollback() {
    let site = Site::with(&USERS);
    // In the rehearsal there is no end to it. It pairs all the same while there is room, so it may well get through to the users:
    // there a few must do, for the sake of the host.
    for user in USERS {
        site.ok(&format!("echo T3_STANDIN_FORKS=20 >>/etc/t3-serve/{user}.env"));
    }
    let before = site.untouched(&USERS);
    site.pin("0.0.105");
    let enforced = site.enforce();
    match enforced.code {
        5 => assert_eq!(site.untouched(&USERS), before, "somebody was touched: {enforced}"),
        0 => {
            let owners = site.ok("for pid in $(pgrep --exact sleep); do grep ^0:: /proc/$pid/cgroup; done | sort -u");
            let outside = owners.lines().find(|cgroup| !cgroup.contains("t3-serve@"));
            assert_eq!(outside, None, "something outlived its rehearsal");
            site.ok("t3pin rollback --all --force 2>&1");
        }
        _ => panic!("{enforced}\n{}", site.journal()),
    }
    site.nothing_is_left("0.0.105");
    for user in USERS {
        site.is_whole(user, OLD, "30");
    }
}
