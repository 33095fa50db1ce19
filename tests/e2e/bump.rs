//! A good release.

use std::time::Duration;
use t3pin_tests::Machine;

#[test]
fn a_good_bump_moves_the_idle_and_waits_for_the_one_at_work() {
    let machine = Machine::with_users("0.0.24", &["alice", "bob", "carol"]);
    for user in ["alice", "bob", "carol"] {
        machine.seed(user, "--threads 3 --turns 2");
    }
    machine.user_pair("alice");
    machine.seed("carol", "--busy writing");
    let carols_run = machine.server_run("carol");
    let (alices_work, carols_work) = (machine.work_hash("alice"), machine.work_hash("carol"));

    machine.pin("0.0.25");
    let enforced = machine.sh("t3pin enforce --wait");
    assert_eq!(enforced.code, 3, "carol is put off: {enforced}");
    for user in ["alice", "bob"] {
        machine.wait_settled(user, "0.0.25");
        assert_eq!(machine.migration_level(user), "31");
        assert!(machine.session_ok(user, &machine.user_pair(user)), "{user} can pair where 0.0.25 wants it");
        let bump = machine.instance(user)["last_bump"].clone();
        assert_eq!((&bump["from"], &bump["to"], &bump["outcome"]), (&"0.0.24".into(), &"0.0.25".into(), &"done".into()));
        assert!(bump["downtime_ms"].as_u64().is_some_and(|ms| ms > 0), "{bump}");
    }
    assert_eq!(machine.work_hash("alice"), alices_work);

    let carol = machine.instance("carol");
    assert_eq!((&carol["state"], &carol["running_version"]), (&"deferred".into(), &"0.0.24".into()), "{carol}");
    assert!(carol["deferral"]["reason"].to_string().contains("turn"), "{carol}");
    assert_eq!(machine.server_run("carol"), carols_run, "her turn was not interrupted");
    assert_eq!(machine.work_hash("carol"), carols_work);

    machine.seed("carol", "--idle");
    assert_eq!(machine.server_run("carol"), carols_run, "her turn ended by itself");
    machine.wait_settled("carol", "0.0.25");
    assert_eq!(machine.migration_level("carol"), "31");
}

#[test]
fn nobody_else_is_unreachable_while_one_is_bumped_and_a_version_is_installed() {
    let machine = Machine::with_users("0.0.24", &["alice", "bob"]);
    machine.seed("alice", "--busy writing");
    let port = machine.port("alice");
    let poll = format!(
        "while [ ! -e /run/enough ]; do curl --silent --fail --max-time 2 -o /dev/null http://127.0.0.1:{port}/ && echo up || echo DOWN; sleep 0.02; done"
    );
    machine.ok(&format!("setsid bash -c '{poll}' >/run/polled 2>&1 </dev/null &"));
    machine.pin("0.0.25");
    assert_eq!(machine.sh("t3pin enforce --wait").code, 3);
    machine.wait_settled("bob", "0.0.25");
    machine.ok("touch /run/enough");
    let polled = machine.ok("cat /run/polled");
    assert!(polled.lines().count() > 50, "it was looked at all the time");
    assert_eq!(polled.lines().filter(|line| *line != "up").count(), 0);
}

#[test]
fn a_plan_changes_nothing_and_a_freeze_stops_version_changes() {
    let machine = Machine::with_users("0.0.24", &["alice"]);
    let run = machine.server_run("alice");
    machine.pin("0.0.25");
    let plan: serde_json::Value = serde_json::from_str(&machine.ok("t3pin plan --json")).unwrap();
    let actions: Vec<_> = plan["steps"].as_array().unwrap().iter().map(|step| step["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["install", "bump"], "{plan}");
    assert!(!machine.ok("ls /var/lib/t3pin/versions").contains("0.0.25"));

    machine.ok("t3pin freeze --reason conference");
    let refused = machine.sh("t3pin enforce --wait");
    assert_eq!(refused.code, 5, "{refused}");
    assert!(format!("{refused}").contains("conference"), "{refused}");
    assert_eq!(machine.server_run("alice"), run);

    machine.ok("t3pin thaw");
    machine.ok("t3pin enforce --wait");
    machine.wait_settled("alice", "0.0.25");
}

#[test]
fn a_slow_migration_is_waited_for() {
    let machine = Machine::with_users("0.0.24", &["alice"]);
    machine.ok("echo T3_STANDIN_MIGRATION_MS=3000 >>/etc/t3-serve/alice.env");
    machine.write("/etc/t3pin/conf.d/60-test.toml", "[health]\nstart_deadline = \"4s\"\n");
    machine.ok("systemctl restart t3pin");
    machine.pin("0.0.96");
    let enforced = machine.sh("t3pin enforce --wait");
    assert_eq!(enforced.code, 0, "{enforced}");
    machine.wait_until("alice is settled", Duration::from_secs(60), |machine| machine.instance("alice")["state"] == "settled");
    assert_eq!(machine.serving("alice").as_deref(), Some("0.0.96"));
}
