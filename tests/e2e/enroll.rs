//! A fresh host.

use t3pin_tests::{FAST, Machine};

#[test]
fn a_fresh_install_touches_nobody_and_enrolling_twice_changes_nothing() {
    let machine = Machine::boot();
    machine.write("/etc/t3pin/conf.d/50-test.toml", FAST);
    machine.install_deb();
    assert_eq!(machine.status()["instances"], serde_json::json!([]));
    assert_eq!(machine.ok("systemctl is-enabled t3pin.service t3pin.socket t3pin-enforce.timer"), "enabled\nenabled\nenabled");
    assert_eq!(machine.sh("t3pin enroll alice").code, 5, "there is no pin yet");

    machine.pin("0.0.24");
    assert_eq!(machine.sh("t3pin enroll nobody-here").code, 5);
    machine.ok("t3pin enroll alice");
    machine.ok("t3pin enroll bob --port 3790");
    assert_eq!(machine.port("bob"), 3790);
    assert_ne!(machine.port("alice"), 3790);
    let cookie = machine.user_pair("alice");

    let (run, env) = (machine.server_run("alice"), machine.ok("cat /etc/t3-serve/alice.env"));
    machine.ok("t3pin enroll alice");
    assert_eq!((machine.server_run("alice"), machine.ok("cat /etc/t3-serve/alice.env")), (run, env));
    assert!(machine.session_ok("alice", &cookie));

    let instance = machine.instance("alice");
    assert_eq!(instance["unit"], "t3-serve@alice.service");
    assert_eq!((&instance["bound_version"], &instance["running_version"]), (&"0.0.24".into(), &"0.0.24".into()));
    assert_eq!(instance["state"], "settled");
    assert_eq!(machine.ok("stat -c %U:%a /home/alice/.t3/userdata/secrets"), "alice:700");
}

#[test]
fn enrolled_servers_and_their_versions_outlive_a_reboot() {
    let mut machine = Machine::with_users("0.0.24", &["alice"]);
    let cookie = machine.user_pair("alice");
    machine.reboot();
    machine.wait_settled("alice", "0.0.24");
    assert!(machine.session_ok("alice", &cookie));
}
