//! Who may see and change what, and what is said when nobody answers.

use t3pin_tests::Machine;

#[test]
fn without_the_agent_there_is_one_line_and_exit_code_7() {
    let machine = Machine::with_users("0.0.24", &["alice"]);
    machine.ok("systemctl stop t3pin.socket t3pin.service");
    let status = machine.sh("t3pin status");
    assert_eq!((status.code, status.stdout.as_str(), status.stderr.trim().lines().count()), (7, "", 1), "{status}");
    assert_eq!(machine.serving("alice").as_deref(), Some("0.0.24"), "servers do not need it");
    let elsewhere = machine.sh("t3pin --socket /run/nowhere.sock status");
    assert_eq!(elsewhere.code, 7, "{elsewhere}");
    assert!(elsewhere.stderr.contains("/run/nowhere.sock"), "{elsewhere}");
    machine.ok("systemctl start t3pin.socket && t3pin status");
}

#[test]
fn an_ordinary_user_sees_their_own_instance_and_changes_nothing() {
    let machine = Machine::with_users("0.0.24", &["alice", "bob"]);
    let seen = machine.as_user("alice", "t3pin status --json");
    let status: serde_json::Value = serde_json::from_str(&seen.stdout).unwrap_or_else(|error| panic!("{error}: {seen}"));
    let users: Vec<_> = status["instances"].as_array().unwrap().iter().map(|one| one["user"].as_str().unwrap()).collect();
    assert_eq!(users, ["alice"]);
    assert_eq!(status["pin"]["version"], "0.0.24", "the host's state is for everybody");
    assert!(!seen.stdout.contains("bob"), "{seen}");

    machine.pin("0.0.25");
    for forbidden in ["enforce --wait", "rollback bob", "rollback --all", "freeze", "enroll carol"] {
        let refused = machine.as_user("alice", &format!("t3pin {forbidden}"));
        assert_eq!(refused.code, 5, "{forbidden}: {refused}");
    }
    assert_eq!(machine.serving("bob").as_deref(), Some("0.0.24"));
    assert!(machine.status()["freeze"].is_null());

    machine.ok("usermod -aG t3pin dave");
    let member = machine.sh("runuser -u dave -- t3pin status --json");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&member.stdout).unwrap()["instances"].as_array().unwrap().len(), 2);
}
