//! What failed for a fault of the host's is tried again by itself and condemns no version; what is quarantined is not.

use crate::common::{GOOD, OLD, Site};

#[test]
fn a_rollout_that_the_host_has_stopped_goes_on_by_itself_when_the_host_is_well_again() {
    let site = Site::with(&["alice"]);
    site.settings("[drain]\nretry_after = \"2s\"\n");
    site.ok("systemctl stop test-registry");
    site.pin(GOOD);
    let before = site.untouched(&["alice"]);
    let failed = site.enforce();
    assert!(failed.code == 5 && failed.stdout.starts_with("held back: alice"), "{failed}");
    site.until("it was tried again in vain", |site| site.journal().contains("is tried again (try 1)"));
    assert_eq!(site.untouched(&["alice"]), before);
    assert_eq!(site.status()["quarantine"], serde_json::json!([]), "that is no fault of the version's");
    site.ok("systemctl start test-registry");
    site.await_state("alice", "settled");
    site.is_whole("alice", GOOD, "31");
}

#[test]
fn a_quarantined_version_is_not_tried_again_until_an_operator_says_so() {
    let site = Site::with(&["alice"]);
    site.settings("[drain]\nretry_after = \"1s\"\n");
    site.pin("0.0.91");
    site.enforce_to(5);
    let quarantine = site.status()["quarantine"].clone();
    assert_eq!(quarantine[0]["version"], "0.0.91", "{quarantine:#}");
    assert!(quarantine[0]["reason"].as_str().unwrap().contains("(alice, b"), "says whose bump has shown it: {quarantine:#}");
    let before = site.untouched(&["alice"]);
    let history = site.ok("t3pin history --json");
    site.enforce_to(5);
    assert_eq!(
        (site.ok("t3pin history --json"), site.untouched(&["alice"])),
        (history, before.clone()),
        "an order does not lift it either"
    );
    assert!(!site.journal().contains("is tried again by itself"), "{}", site.journal());
    let refused = site.sh("t3pin versions retry 0.0.92 alice --wait");
    assert!(refused.code == 5 && refused.stdout.contains("0.0.92 is not quarantined"), "{refused}");
    let retried = site.sh("t3pin versions retry 0.0.91 alice --wait");
    assert_eq!(retried.code, 5, "it fails once more: {retried}");
    assert_eq!(site.untouched(&["alice"]), before);
    let spent = site.ok("t3pin history --json");
    site.enforce_to(5);
    assert_eq!(site.ok("t3pin history --json"), spent, "one word is good for one try");
    assert_eq!(site.status()["quarantine"], quarantine);
    site.ok("t3pin versions clear 0.0.91");
    site.enforce_to(5);
    assert_eq!(site.status()["quarantine"][0]["version"], "0.0.91", "it has failed again");
    site.is_whole("alice", OLD, "30");
}

/// A release whose pairing endpoint this host did not know of.
const MOVED: &str = "0.0.95";

#[test]
fn a_version_that_soaks_well_with_the_one_user_who_tries_it_once_more_is_no_longer_quarantined() {
    let site = Site::with(&["alice", "bob"]);
    site.pin(MOVED);
    site.enforce_to(5);
    site.settings("[health]\npair_endpoints = [\"/api/auth/exchange-v3\", \"/api/auth/bootstrap\"]\nsoak = \"6s\"\n");
    let before = site.untouched(&["alice"]);
    let tried = site.sh(&format!("t3pin versions retry {MOVED} bob --wait"));
    assert_eq!(tried.code, 0, "{tried}\n{}", site.journal());
    assert_eq!(site.instance("bob")["state"], "soaking");
    assert_eq!(site.status()["quarantine"][0]["version"], MOVED, "not before it has soaked well");
    assert_eq!(site.untouched(&["alice"]), before, "everybody else is held back until then");
    site.until("the quarantine is lifted by itself", |site| site.status()["quarantine"] == serde_json::json!([]));
    assert!(site.journal().contains("it is no longer quarantined"), "{}", site.journal());
    site.await_state("alice", "settled");
    for user in ["alice", "bob"] {
        assert_eq!((site.serves(user).as_str(), site.level(user).as_str()), (MOVED, "32"));
    }
}
