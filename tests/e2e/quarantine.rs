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
        (history, before),
        "an order does not lift it either"
    );
    assert!(!site.journal().contains("is tried again by itself"), "{}", site.journal());
    site.ok("t3pin versions clear 0.0.91");
    site.enforce_to(5);
    assert_eq!(site.status()["quarantine"][0]["version"], "0.0.91", "it has failed again");
    site.is_whole("alice", OLD, "30");
}
