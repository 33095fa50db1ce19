//! A pin file with a mistake in it.

use std::time::Duration;
use t3pin_tests::Machine;

/// Text, the line and the key that the message has to name.
const MISTAKES: [(&str, &str, &str); 7] = [
    ("version = \"^0.0.25\"\n", "line 1", "version"),
    ("version = \"latest\"\n", "line 1", "version"),
    ("version = \"0.0.x\"\n", "line 1", "version"),
    ("version = \"0.0.25\"\nchannel = \"stable\"\n", "line 2", "channel"),
    ("version = \"0.0.25\"\n\n[users.mallory]\nversion = \"0.0.24\"\n", "line 3", "mallory"),
    ("version = 25\n", "line 1", "version"),
    ("version = \"0.0.25\n", "line 1", ""),
];

#[test]
fn a_mistake_in_the_pin_file_changes_nothing_and_is_named() {
    let machine = Machine::with_users("0.0.24", &["alice"]);
    let (run, agent) = (machine.server_run("alice"), machine.invocation("t3pin.service"));
    for (text, line, key) in MISTAKES {
        machine.write("/etc/t3pin/pin.toml", text);
        let refused = machine.sh("t3pin enforce --wait");
        assert_eq!(refused.code, 5, "{text}: {refused}");
        machine.wait_until("the mistake is seen", Duration::from_secs(10), |machine| machine.status()["pin"]["valid"] == false);
        let pin = machine.status()["pin"].clone();
        let error = pin["error"].as_str().unwrap_or_default();
        for part in ["/etc/t3pin/pin.toml", line, key] {
            assert!(error.contains(part), "{text}: {part} is not in: {error}");
        }
        assert_eq!(pin["version"], "0.0.24", "the last good pin stays in force");
        assert!(refused.to_string().contains(line), "{refused}");
        machine.pin("0.0.24");
        machine.wait_until("the repair is seen", Duration::from_secs(10), |machine| machine.status()["pin"]["valid"] == true);
    }
    assert_eq!(machine.server_run("alice"), run);

    machine.pin("0.0.25");
    machine.ok("chmod 666 /etc/t3pin/pin.toml");
    let refused = machine.sh("t3pin enforce --wait");
    assert_eq!(refused.code, 5, "others may write it: {refused}");
    assert_eq!(machine.server_run("alice"), run);

    machine.ok("chmod 644 /etc/t3pin/pin.toml");
    machine.ok("t3pin enforce --wait");
    machine.wait_settled("alice", "0.0.25");
    assert_eq!(machine.invocation("t3pin.service"), agent, "the agent was not restarted for it");
}

#[test]
fn one_user_can_be_held_elsewhere() {
    let machine = Machine::with_users("0.0.24", &["alice", "bob"]);
    let run = machine.server_run("bob");
    machine.write("/etc/t3pin/pin.toml", "version = \"0.0.25\"\n[users.bob]\nversion = \"0.0.24\"\nreason = \"mobile client\"\n");
    machine.ok("t3pin enforce --wait");
    machine.wait_settled("alice", "0.0.25");
    assert_eq!((machine.server_run("bob"), machine.instance("bob")["wanted_version"].as_str()), (run, Some("0.0.24")));
}
