//! What comes back when a bump is undone, by itself or by order.

use crate::common::{GOOD, OLD, Site, stopped_states};
use serde_json::Value;

/// The database in the salvage of a user's last bump.
#[track_caller]
fn salvaged(site: &Site, user: &str) -> String {
    let instance = site.instance(user);
    let salvage = instance["last_bump"]["salvage"].as_str().unwrap_or_else(|| panic!("no salvage is told of: {instance:#}"));
    assert_eq!(site.ok(&format!("stat --format '%a %U' \"$(dirname {salvage})\"")), "700 root", "only root gets at it");
    let database = site.ok(&format!("find {salvage} -name state.sqlite"));
    assert!(!database.is_empty(), "there is no database in {salvage}");
    database
}

#[track_caller]
fn quarantined(site: &Site, version: &str) -> String {
    let status = site.status();
    let mut entries = status["quarantine"].as_array().unwrap().iter();
    let entry = entries.find(|entry| entry["version"] == version).unwrap_or_else(|| panic!("{version} is not: {status:#}"));
    entry["reason"].as_str().unwrap().to_owned()
}

#[test]
fn a_release_that_fails_for_the_second_user_is_undone_byte_for_byte_and_goes_no_further() {
    let users = ["alice", "bob", "carol"];
    let site = Site::with(&users);
    site.watch_state("bob");
    let cookie = site.user_pair("bob");
    let work = site.work("bob");
    let before = site.runs(&users);
    let carols = site.untouched(&["carol"]);
    site.ok("echo T3_STANDIN_LIVE_FAULT=1 >>/etc/t3-serve/bob.env");

    site.pin("0.0.103");
    let ended = site.enforce_to(4);
    assert!(ended.stdout.contains("bob was rolled back to 0.0.24 with its data"), "{ended}");

    let moments = site.moments("bob");
    let versions: Vec<String> = moments.iter().map(|moment| format!("{} {}", moment.0, moment.1)).collect();
    assert_eq!(versions, ["stopped 0.0.24", "starts 0.0.103", "stopped 0.0.103", "starts 0.0.24"], "{moments:?}");
    let (left, found) = stopped_states(&moments, OLD);
    assert_eq!(found, left, "0.0.24 found other data than it had left: {moments:?}");
    assert_ne!(moments[2].2, left, "0.0.103 had migrated its copy, or this shows nothing");
    assert!(site.session_ok("bob", &cookie), "a browser that was paired before the bump no longer is");
    assert_eq!(site.work("bob"), work);
    site.is_whole("bob", OLD, "30");

    let bob = site.instance("bob");
    assert_eq!(bob["state"], "held-back", "{bob:#}");
    assert_eq!(bob["last_bump"]["outcome"], "rolled-back", "{bob:#}");
    let reason = bob["last_bump"]["reason"].as_str().unwrap().trim();
    assert!(reason.contains("500"), "says what failed: {bob:#}");
    let history = site.ok("t3pin history bob");
    assert!(history.contains("rolled-back") && history.contains(reason), "{history}");
    assert_eq!(
        site.ok(&format!("sqlite3 {} 'SELECT max(migration_id) FROM effect_sql_migrations'", salvaged(&site, "bob"))),
        "32"
    );

    assert!(quarantined(&site, "0.0.103").contains(reason));
    assert_eq!(site.status()["rollout"]["state"], "stopped");
    assert_eq!(site.untouched(&["carol"]), carols, "carol was touched after bob's failure");
    assert_eq!(site.instance("carol")["state"], "held-back");
    site.await_state("alice", "settled");
    site.is_whole("alice", "0.0.103", "32");

    let now = site.runs(&users);
    assert_ne!(now[0], before[0]);
    let again = site.enforce_to(5);
    assert!(again.stdout.contains("quarantined"), "{again}");
    assert_eq!(site.runs(&users), now, "it was tried again, or alice was taken back");
}

#[test]
fn a_server_that_loses_its_listener_in_its_soak_is_rolled_back_by_itself() {
    let site = Site::with(&["alice"]);
    site.watch_state("alice");
    site.settings("[health]\nsoak = \"60s\"\n");
    let cookie = site.user_pair("alice");
    site.pin("0.0.104");
    site.enforce_to(0);
    assert_eq!(site.instance("alice")["state"], "soaking");
    // Work that was done meanwhile does not keep a server that nobody can reach; it is kept as salvage.
    site.turn("alice", "new-work", "start");
    site.turn("alice", "new-work", "end");

    site.until("alice is back on 0.0.24", |site| {
        site.instance("alice")["last_bump"]["outcome"] == "rolled-back" && site.serves("alice") == OLD
    });
    let (left, found) = stopped_states(&site.moments("alice"), OLD);
    assert_eq!(found, left, "0.0.24 found other data than it had left");
    assert!(site.session_ok("alice", &cookie));
    site.is_whole("alice", OLD, "30");
    let threads = format!("sqlite3 {} 'SELECT title FROM projection_threads ORDER BY 1'", salvaged(&site, "alice"));
    assert_eq!(site.ok(&threads), "new-work\nold-work");
    let reason = quarantined(&site, "0.0.104");
    assert!(reason.contains("nobody answers"), "{reason}");
    let alice = site.instance("alice");
    assert_eq!(alice["state"], "held-back", "{alice:#}");
    site.enforce_to(5);
}

#[test]
fn a_rollback_by_order_brings_back_the_data_of_before_the_bump_and_holds() {
    let site = Site::with(&["alice", "bob"]);
    site.watch_state("alice");
    let cookie = site.user_pair("alice");
    let work = site.work("alice");
    site.pin(GOOD);
    site.enforce_to(0);
    for user in ["alice", "bob"] {
        site.await_state(user, "settled");
    }
    let bobs = site.runs(&["bob"]);

    site.turn("alice", "at-work", "start");
    let busy = site.runs(&["alice"]);
    let refused = site.sh("t3pin rollback alice");
    assert_eq!(refused.code, 3, "{refused}");
    assert!(refused.stdout.contains("at-work") && refused.stdout.contains("--force"), "{refused}");
    assert_eq!(site.runs(&["alice"]), busy, "alice was restarted at work");
    assert_eq!(site.instance("alice")["state"], "settled", "{:#}", site.instance("alice"));
    assert_eq!(site.instance("alice")["last_bump"]["outcome"], "done", "{:#}", site.instance("alice"));
    site.is_whole("alice", GOOD, "31");

    let done = site.sh("t3pin rollback alice --force");
    assert_eq!(done.code, 0, "{done}");
    let (left, found) = stopped_states(&site.moments("alice"), OLD);
    assert_eq!(found, left, "0.0.24 found other data than it had left: {:?}", site.moments("alice"));
    assert!(site.session_ok("alice", &cookie), "a browser that was paired before the bump no longer is");
    assert_eq!(site.work("alice"), work);
    site.is_whole("alice", OLD, "30");
    let database = salvaged(&site, "alice");
    assert!(done.stdout.contains(database.trim_end_matches("/state.sqlite").trim_end_matches("/userdata")), "says where: {done}");
    assert_eq!(site.ok(&format!("sqlite3 {database} \"SELECT count(*) FROM projection_threads WHERE title = 'at-work'\"")), "1");
    assert_eq!(site.instance("alice")["last_bump"]["outcome"], "rolled-back");
    assert_eq!(site.status()["quarantine"], Value::Array(vec![]), "the version is good for the others");

    let back = site.runs(&["alice"]);
    let held = site.enforce_to(5);
    assert!(held.stdout.contains("t3pin versions clear 0.0.25"), "says how to allow it again: {held}");
    assert_eq!(site.instance("alice")["state"], "held-back", "{:#}", site.instance("alice"));
    assert_eq!(site.runs(&["alice"]), back, "enforcing undid what a person had decided");
    assert_eq!(site.runs(&["bob"]), bobs, "bob was not meant");

    site.ok("t3pin versions clear 0.0.25");
    site.enforce_to(0);
    site.await_state("alice", "settled");
    site.is_whole("alice", GOOD, "31");
    let nothing = site.sh("t3pin rollback dave");
    assert_eq!(nothing.code, 5, "{nothing}");
}
