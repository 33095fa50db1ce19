//! What unlucky hosts had that nobody had thought of. Each was broken once.

use crate::common::{GOOD, OLD, Site};

/// Runs the old version by hand, as somebody who does not know of the service.
const BY_HAND: &str = "setsid /var/lib/t3pin/versions/0.0.24/bin/t3 serve --host 127.0.0.1 --port 4999 >/dev/null 2>&1 & \
    until curl --silent --fail --max-time 1 --output /dev/null http://127.0.0.1:4999/; do sleep 0.1; done";

#[test]
fn enrolling_starts_no_second_server_beside_one_that_runs_by_hand() {
    let site = Site::with(&["alice"]);
    assert_eq!(site.as_user("dave", BY_HAND).code, 0);
    let second = site.sh("t3pin enroll dave");
    assert_eq!(second.code, 5, "two servers on one database: {second}");
    assert!(second.stdout.contains("state.sqlite") && second.stdout.contains("pid"), "says who has it open: {second}");
    let taken = site.sh("t3pin enroll bob --port 4999");
    assert_eq!(taken.code, 5, "{taken}");
    assert!(taken.stdout.contains("4999"), "{taken}");
    assert_eq!(site.sh("ls /etc/t3-serve /var/lib/t3pin/bindings | grep -E 'dave|bob'").stdout, "", "a refusal leaves nothing");
    assert_eq!(site.sh("systemctl is-enabled t3-serve@dave t3-serve@bob").stdout.matches("enabled").count(), 0);
}

#[test]
fn enrolling_moves_no_data_to_another_version_even_by_order() {
    let site = Site::with(&["alice"]);
    site.pin(GOOD);
    site.enforce_to(0);
    site.as_user("dave", "/var/lib/t3pin/versions/0.0.24/bin/t3 auth pairing list");
    assert_eq!(site.level("dave"), "30");
    let newer = site.sh(&format!("t3pin enroll dave --version {GOOD}"));
    assert_eq!((newer.code, site.level("dave").as_str()), (5, "30"), "no way back from a migration without custody: {newer}");
    site.as_user("dave", "/var/lib/t3pin/versions/0.0.25/bin/t3 auth pairing list");
    let older = site.sh(&format!("t3pin enroll dave --version {OLD}"));
    assert_eq!(older.code, 5, "{OLD} cannot pair on data that {GOOD} has migrated: {older}");
    assert_eq!(site.sh("ls /etc/t3-serve/dave.env /var/lib/t3pin/bindings/dave").stdout, "", "a refusal leaves nothing");
    site.ok(&format!("t3pin enroll dave --version {GOOD} 2>&1"));
    site.is_whole("dave", GOOD, "31");
}

#[test]
fn a_server_that_is_taken_over_runs_on_and_keeps_its_address() {
    let site = Site::with(&["alice"]);
    let unit = |start: &str| {
        format!(
            "[Service]\nUser=%i\nEnvironmentFile=/etc/t3-serve/%i.env\nSuccessExitStatus=130\nExecStart={start}\n[Install]\nWantedBy=multi-user.target\n"
        )
    };
    let t3 = "/var/lib/t3pin/versions/0.0.24/bin/t3";
    let listens = |site: &Site| site.ok("ss --listening --tcp --numeric --no-header sport = 4103 | awk '{print $4}'");
    let up = "until ss --listening --tcp --numeric --no-header sport = 4103 | grep -q .; do sleep 0.1; done";

    // A file for dave alone: the template is everybody's. One where nobody can tell is not taken over on a guess.
    let script = format!("/bin/sh -c 'exec {t3} serve --host 127.0.0.2 --port 4103'");
    site.write("/etc/systemd/system/t3-serve@dave.service", &unit(&script));
    site.write("/etc/t3-serve/dave.env", "T3_PORT=4103\n");
    site.ok(&format!("systemctl daemon-reload; systemctl enable --quiet --now t3-serve@dave; {up}"));
    let refused = site.sh("t3pin enroll dave");
    assert_eq!(refused.code, 5, "{refused}");
    assert!(refused.stdout.contains("T3_HOST"), "says what to do: {refused}");
    assert_eq!(site.sh("ls -d /var/lib/t3pin/bindings/dave /etc/systemd/system/t3-serve@dave.service.d").stdout, "");

    let says = unit(&format!("{t3} serve --host 127.0.0.2 --port ${{T3_PORT}}"));
    site.write("/etc/systemd/system/t3-serve@dave.service", &says);
    site.ok(&format!("systemctl daemon-reload; systemctl restart t3-serve@dave; sleep 0.5; {up}"));
    let before = site.runs(&["dave"]);
    site.ok("t3pin enroll dave 2>&1");
    assert_eq!(site.runs(&["dave"]), before, "taking it over has stopped it");
    site.ok(&format!("systemctl restart t3-serve@dave; sleep 0.5; {up}"));
    assert_eq!(listens(&site), "127.0.0.2:4103", "its user's clients know no other address");
    // A template of the host's own that comes later would start alice's server, and not from her binding.
    site.write("/etc/systemd/system/t3-serve@.service", &says);
    site.ok("systemctl daemon-reload");
    let alice = site.untouched(&["alice"]);
    site.pin(GOOD);
    let refused = site.enforce_to(5);
    assert!(refused.stdout.contains("t3pin enroll alice"), "says what to do: {refused}");
    assert_eq!(site.untouched(&["alice"]), alice, "it would start another version than it is told");
    assert_eq!((listens(&site).as_str(), site.level("dave").as_str()), ("127.0.0.2:4103", "31"));
}

#[test]
fn a_server_is_not_stopped_while_somebody_else_has_its_database_open() {
    let site = Site::with(&["alice"]);
    site.ok("(echo 'SELECT 1 FROM projection_threads;'; sleep 300) | sqlite3 -readonly /home/alice/.t3/userdata/state.sqlite >/dev/null 2>&1 &");
    site.until("the database is open", |site| site.sh("pgrep -x sqlite3").code == 0);
    let before = site.runs(&["alice"]);
    site.pin(GOOD);
    let put_off = site.enforce_to(3);
    assert!(put_off.stdout.contains("sqlite3 (pid"), "says who: {put_off}");
    assert_eq!(site.runs(&["alice"]), before, "a bump that could only be undone has interrupted the user");
    site.ok("pkill -x sqlite3");
    site.await_state("alice", "settled");
    site.is_whole("alice", GOOD, "31");
}

#[test]
fn what_was_rolled_back_by_order_does_not_come_again_after_going_back_further() {
    let site = Site::with(&["alice"]);
    for version in [GOOD, "0.0.28"] {
        site.pin(version);
        site.enforce_to(0);
        site.await_state("alice", "settled");
    }
    site.ok("t3pin rollback alice 2>&1; t3pin rollback alice 2>&1");
    site.is_whole("alice", OLD, "30");
    let before = site.untouched(&["alice"]);
    site.enforce_to(5);
    assert_eq!(site.instance("alice")["state"], "held-back");
    assert_eq!(site.untouched(&["alice"]), before, "the operator's word counts until it is cleared");
    site.ok("t3pin versions clear 0.0.28");
    site.enforce_to(0);
    site.is_whole("alice", "0.0.28", "32");
}

#[test]
fn a_rollback_for_which_nothing_is_kept_any_more_stops_nobody() {
    let site = Site::with(&["alice"]);
    site.settings("[snapshots]\nkeep = 1\n");
    for version in [GOOD, "0.0.28"] {
        site.pin(version);
        site.enforce_to(0);
        site.await_state("alice", "settled");
    }
    site.ok("t3pin rollback alice 2>&1");
    let before = site.untouched(&["alice"]);
    let too_far = site.sh("t3pin rollback alice");
    assert_eq!(too_far.code, 5, "{too_far}");
    assert!(too_far.stdout.contains("retention"), "says why: {too_far}");
    assert_eq!(site.untouched(&["alice"]), before);
    site.is_whole("alice", GOOD, "31");
}

#[test]
fn users_cannot_read_the_agents_ledger_nor_keep_it_from_starting() {
    let site = Site::with(&["alice"]);
    assert_eq!(site.ok("cd /var/lib/t3pin && stat --format %a agent.lock journal.sqlite*").replace("600", "").trim(), "");
    assert_ne!(site.as_user("alice", "flock --nonblock /var/lib/t3pin/agent.lock true").code, 0);
    assert_ne!(site.as_user("alice", "head -c 1 /var/lib/t3pin/journal.sqlite").code, 0);
    assert_eq!(site.as_user("alice", "ls /var/lib/t3pin/versions").code, 0, "which versions there are is no secret");
}

#[test]
fn a_masked_server_is_left_alone() {
    let site = Site::with(&["alice", "bob"]);
    site.ok("systemctl mask --quiet --now t3-serve@alice 2>&1");
    let hash = site.db_hash("alice");
    site.pin(GOOD);
    let refused = site.enforce_to(5);
    assert!(refused.stdout.contains("unmask"), "says what to do: {refused}");
    assert_eq!((site.db_hash("alice"), site.level("alice").as_str()), (hash, "30"));
    site.is_whole("bob", GOOD, "31");
    site.ok("systemctl unmask --quiet t3-serve@alice; systemctl reset-failed t3-serve@alice; systemctl start t3-serve@alice");
    site.until("alice's server answers", |site| site.serves("alice") == OLD);
    site.enforce_to(0);
    site.is_whole("alice", GOOD, "31");
}
