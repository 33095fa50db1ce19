//! A fresh installation, enrolling, and who may do what.

use crate::common::{OLD, Site};
use serde_json::Value;

#[test]
fn a_fresh_install_waits_for_the_night_and_enforces_nothing() {
    let mut site = Site::bare();
    site.pin(OLD);
    let look = |site: &Site| {
        assert_eq!(site.ok("systemctl is-active t3pin.service t3pin.socket t3pin-enforce.timer"), "active\nactive\nactive");
        assert_eq!(site.ok("systemctl is-enabled t3pin.service t3pin.socket t3pin-enforce.timer"), "enabled\nenabled\nenabled");
        assert_eq!(site.ok("systemctl show -P LastTriggerUSec t3pin-enforce.timer"), "", "the timer has fired");
        let next = site.ok("systemctl list-timers --no-legend t3pin-enforce.timer");
        assert!(next.contains(" 04:"), "due at four in the morning: {next}");
        assert_eq!(site.ok("journalctl --quiet --unit=t3pin-enforce.service --no-pager"), "", "something was enforced");
        assert_eq!(
            site.ok("ls /var/lib/t3pin/versions /var/lib/t3pin/bindings"),
            "/var/lib/t3pin/bindings:\n\n/var/lib/t3pin/versions:"
        );
        assert_eq!(site.status()["pin"]["version"], OLD);
        assert_eq!(site.ok("systemctl list-units --state=failed --plain --no-legend"), "");
    };
    look(&site);
    site.reboot();
    look(&site);
}

#[test]
fn enrolling_gives_each_user_a_server_of_their_own_and_may_be_repeated() {
    let site = Site::bare();
    let unpinned = site.sh("t3pin enroll alice");
    assert_eq!(unpinned.code, 5, "{unpinned}");
    assert!(unpinned.stdout.contains("/etc/t3pin/pin.toml"), "says where the version is to be written: {unpinned}");

    site.pin(OLD);
    for user in ["alice", "bob"] {
        let enrolled = site.sh(&format!("t3pin enroll {user}"));
        assert_eq!(enrolled.code, 0, "{enrolled}\n{}", site.journal());
    }
    site.ok("t3pin enroll carol --port 4100 2>&1");
    let users = ["alice", "bob", "carol"];
    let ports = users.map(|user| site.port(user));
    assert!(ports[0] != ports[1] && ports[2] == 4100, "{ports:?}");
    for user in users {
        assert_eq!(
            site.ok(&format!("systemctl is-enabled t3-serve@{user}; systemctl is-active t3-serve@{user}")),
            "enabled\nactive"
        );
        site.is_whole(user, OLD, "30");
    }

    let before = site.untouched(&users);
    for user in users {
        let again = site.sh(&format!("t3pin enroll {user}"));
        assert_eq!(again.code, 0, "{again}");
    }
    let other_port = site.sh("t3pin enroll alice --port 4200");
    assert_eq!(other_port.code, 5, "a server is not moved to another port by enrolling: {other_port}");
    assert_eq!(site.untouched(&users), before, "enrolling again changed something");
    assert_eq!(users.map(|user| site.port(user)), ports);

    for nobody in ["mallory", "root"] {
        let refused = site.sh(&format!("t3pin enroll {nobody}"));
        assert_eq!(refused.code, 5, "{nobody}: {refused}");
        assert!(refused.stdout.contains(nobody), "{refused}");
        assert_eq!(site.sh(&format!("ls /etc/t3-serve/{nobody}.env /var/lib/t3pin/bindings/{nobody}")).stdout, "");
    }
    status_has_its_fields(&site.status());
    site.ok("t3pin enforce --wait");
    assert_eq!(site.untouched(&users), before, "enforcing what runs already changed something");
}

/// What dashboards may rely on.
fn status_has_its_fields(status: &Value) {
    for field in ["/agent/state", "/pin/version", "/pin/valid", "/pin/error", "/rollout"] {
        assert!(status.pointer(field).is_some(), "{field} is missing in {status:#}");
    }
    for instance in status["instances"].as_array().unwrap() {
        for field in ["user", "unit", "port", "bound_version", "running_version", "state", "deferral", "last_bump"] {
            assert!(instance.get(field).is_some(), "{field} is missing in {instance:#}");
        }
        assert_eq!(instance["state"], "settled", "{instance:#}");
    }
    assert_eq!(status["agent"]["state"], "idle");
    assert_eq!(status["pin"]["valid"], true);
}

#[test]
fn users_see_only_what_is_theirs_and_change_nothing() {
    let site = Site::with(&["alice", "bob"]);
    let seen = |user: &str| {
        let answer = site.as_user(user, "t3pin status --json");
        let status: Value = serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer}"));
        status["instances"].as_array().unwrap().iter().map(|i| i["user"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(seen("alice"), ["alice"]);
    assert_eq!(seen("dave"), [""; 0]);
    assert_eq!(site.as_user("alice", "t3pin status bob").code, 5, "what bob has is not alice's business");
    let plan = site.as_user("alice", "t3pin plan");
    assert!(plan.code == 0 && !plan.stdout.contains("bob"), "{plan}");
    let history = site.as_user("alice", "t3pin history --json");
    assert_eq!(history.stdout.trim(), "[]", "{history}");

    let before = site.untouched(&["alice", "bob"]);
    site.pin("0.0.25");
    let verbs = [
        "enforce --wait",
        "enforce",
        "rollback alice",
        "rollback --all --force",
        "enroll alice",
        "enroll dave",
        "freeze --reason mine",
        "thaw",
        "versions clear 0.0.25",
    ];
    for verb in verbs {
        let refused = site.as_user("alice", &format!("t3pin {verb}"));
        assert_eq!(refused.code, 5, "t3pin {verb}: {refused}");
        assert_eq!(refused.stderr.trim().lines().count(), 1, "t3pin {verb}: {refused}");
    }
    let spoofed = site.as_user(
        "alice",
        "curl --silent --output /dev/null --write-out '%{http_code}' --unix-socket /run/t3pin/t3pin.sock --data '{}' http://root/v1/freeze",
    );
    assert_eq!(spoofed.stdout, "403", "{spoofed}");
    assert_eq!(site.untouched(&["alice", "bob"]), before);
    assert_eq!(site.status()["freeze"], Value::Null);
    site.pin(OLD);

    site.ok("usermod --append --groups t3pin dave");
    site.until("dave counts as a member of group t3pin", |_| seen("dave") == ["alice", "bob"]);
    for verb in ["enforce --wait", "freeze --reason conference", "thaw", "enroll dave"] {
        let allowed = site.as_user("dave", &format!("t3pin {verb}"));
        assert_eq!(allowed.code, 0, "t3pin {verb}: {allowed}");
    }
    assert_eq!(seen("dave"), ["alice", "bob", "dave"]);
}

#[test]
fn without_an_agent_there_is_one_clear_line_and_exit_code_7() {
    let site = Site::bare();
    let unreachable = |command: &str, socket: &str| {
        let output = site.sh(command);
        assert_eq!(output.code, 7, "{command}: {output}");
        assert_eq!(output.stdout, "", "{command}: {output}");
        assert_eq!(output.stderr.trim().lines().count(), 1, "{command}: {output}");
        assert!(output.stderr.contains(socket), "names the socket: {output}");
    };
    unreachable("t3pin status --socket /nowhere", "/nowhere");
    unreachable("T3PIN_SOCKET=/nowhere t3pin status", "/nowhere");
    site.ok("systemctl stop t3pin.socket t3pin.service");
    for verb in ["status", "plan", "enforce --wait", "rollback --all", "history", "freeze", "thaw"] {
        unreachable(&format!("t3pin {verb}"), "/run/t3pin/t3pin.sock");
    }
    let json = site.sh("t3pin status --json");
    assert!(json.code == 7 && serde_json::from_str::<Value>(&json.stdout).is_ok(), "{json}");
    site.ok("systemctl start t3pin.socket");
    assert_eq!(site.sh("t3pin status").code, 0, "the socket alone brings the agent up");
}
