//! Upgrading, removing and purging the package.

use t3pin_tests::Machine;

#[test]
fn upgrade_and_removal_stop_no_server_and_purge_leaves_users_data() {
    let machine = Machine::with_users("0.0.24", &["alice"]);
    machine.pin("0.0.25");
    machine.ok("t3pin enforce --wait");
    machine.wait_settled("alice", "0.0.25");
    let (run, cookie) = (machine.server_run("alice"), machine.user_pair("alice"));
    let snapshot = machine.instance("alice")["last_bump"]["snapshot"].as_str().expect("there is a snapshot").to_owned();
    let agent = machine.invocation("t3pin.service");

    machine.ok("cd /root && dpkg-deb -R t3pin.deb newer && sed -i 's/^Version: .*/Version: 99.0-1/' newer/DEBIAN/control && dpkg-deb -Zgzip -z1 -b newer newer.deb");
    machine.ok("DEBIAN_FRONTEND=noninteractive apt-get install --yes /root/newer.deb 2>&1");
    assert_ne!(machine.invocation("t3pin.service"), agent, "the new agent runs");
    assert_eq!(machine.instance("alice")["state"], "settled");
    assert_eq!(machine.server_run("alice"), run);

    machine.ok("DEBIAN_FRONTEND=noninteractive apt-get remove --yes t3pin 2>&1");
    assert_eq!(machine.sh("command -v t3pin").code, 1);
    assert!(machine.session_ok("alice", &cookie), "alice's server goes on");

    let purged = machine.ok("DEBIAN_FRONTEND=noninteractive apt-get purge --yes t3pin 2>&1");
    assert!(purged.contains("/var/lib/t3pin"), "it is said where the data is: {purged}");
    assert!(machine.session_ok("alice", &cookie));
    machine.ok(&format!("test -s {snapshot}/userdata/state.sqlite && test -s /home/alice/.t3/userdata/state.sqlite"));

    machine.install_deb();
    assert_eq!(machine.serving("alice").as_deref(), Some("0.0.25"));
    machine.pin("0.0.25");
    assert_eq!(machine.instance("alice")["bound_version"], "0.0.25", "a new installation takes up what was left");
}
