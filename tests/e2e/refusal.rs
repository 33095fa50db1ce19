//! What is refused before anybody is touched.

use t3pin_tests::Machine;

/// What must not have changed for a user of 0.0.24.
#[derive(Debug, PartialEq)]
struct Untouched {
    run: String,
    work: String,
    level: String,
    session: bool,
}

fn look(machine: &Machine, user: &str, cookie: &str) -> Untouched {
    Untouched {
        run: machine.server_run(user),
        work: machine.work_hash(user),
        level: machine.migration_level(user),
        session: machine.session_ok(user, cookie),
    }
}

#[test]
fn a_release_whose_pairing_api_moved_touches_nobody() {
    let machine = Machine::with_users("0.0.24", &["alice", "bob"]);
    let users = ["alice", "bob"];
    users.iter().for_each(|user| machine.seed(user, "--threads 2 --turns 2"));
    let cookies = users.map(|user| machine.user_pair(user));
    let before: Vec<_> = users.iter().zip(&cookies).map(|(user, cookie)| look(&machine, user, cookie)).collect();
    assert!(before.iter().all(|user| user.session && user.level == "30"));

    machine.pin("0.0.95");
    let refused = machine.sh("t3pin enforce --wait");
    assert_eq!(refused.code, 5, "{refused}");
    assert!(refused.to_string().contains("pair_endpoints"), "it is said which setting to extend: {refused}");
    let after: Vec<_> = users.iter().zip(&cookies).map(|(user, cookie)| look(&machine, user, cookie)).collect();
    assert_eq!(after, before);
    let status = machine.status();
    assert_eq!(status["quarantine"][0]["version"], "0.0.95", "{status}");
    assert_eq!(machine.instance("alice")["state"], "held-back");

    assert_eq!(machine.sh("t3pin enforce --wait").code, 5, "it is not tried again unattended");
    machine.pin("0.0.25");
    machine.ok("t3pin enforce --wait");
    machine.wait_settled("bob", "0.0.25");
}

#[test]
fn a_migration_that_loses_or_breaks_work_is_found_in_the_rehearsal() {
    let machine = Machine::with_users("0.0.24", &["alice"]);
    machine.seed("alice", "--threads 5 --turns 4");
    let cookie = machine.user_pair("alice");
    let before = look(&machine, "alice", &cookie);
    for version in ["0.0.97", "0.0.98", "0.0.91", "0.0.102"] {
        machine.pin(version);
        let refused = machine.sh("t3pin enforce --wait");
        assert_eq!(refused.code, 5, "{version}: {refused}");
        assert_eq!(look(&machine, "alice", &cookie), before, "{version}");
    }
    assert_eq!(machine.status()["quarantine"].as_array().unwrap().len(), 4);
}

#[test]
fn a_dead_registry_changes_nothing_and_its_words_are_passed_on() {
    let machine = Machine::with_users("0.0.24", &["alice"]);
    let cookie = machine.user_pair("alice");
    let before = look(&machine, "alice", &cookie);
    machine.ok("systemctl stop test-registry");
    machine.pin("0.0.25");
    let refused = machine.sh("t3pin enforce --wait");
    assert_eq!(refused.code, 5, "{refused}");
    assert!(refused.to_string().contains("ECONNREFUSED"), "{refused}");
    assert_eq!(look(&machine, "alice", &cookie), before);
    assert_eq!(machine.ok("ls /var/lib/t3pin/versions"), "0.0.24");

    machine.ok("systemctl start test-registry && sleep 0.5");
    machine.ok("t3pin enforce --wait");
    machine.wait_settled("alice", "0.0.25");
}

#[test]
fn a_release_that_cannot_be_installed_leaves_everything_as_it_was() {
    let machine = Machine::with_users("0.0.24", &["alice"]);
    let cookie = machine.user_pair("alice");
    let before = look(&machine, "alice", &cookie);
    machine.pin("0.0.106");
    let refused = machine.sh("t3pin enforce --wait");
    assert_eq!(refused.code, 5, "{refused}");
    assert!(refused.to_string().contains("the stand-in fails to install as ordered"), "npm's last lines: {refused}");
    machine.pin("0.0.77");
    let unknown = machine.sh("t3pin enforce --wait");
    assert_eq!(unknown.code, 5, "{unknown}");
    assert!(unknown.to_string().contains("0.0.77"), "{unknown}");
    assert_eq!(machine.ok("ls /var/lib/t3pin/versions"), "0.0.24");
    assert_eq!(machine.ok("ls -A /var/lib/t3pin/staging"), "");
    assert_eq!(look(&machine, "alice", &cookie), before);
}
