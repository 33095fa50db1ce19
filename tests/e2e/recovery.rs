//! The agent dies in the middle.

use std::time::Duration;
use t3pin_tests::Machine;

/// Whatever was under way ended by itself, and binary and data belong together.
fn assert_whole(machine: &Machine, user: &str, work: &str) {
    machine.wait_until(&format!("{user} is in a sane place"), Duration::from_secs(60), |machine| {
        let instance = machine.instance(user);
        let resting = ["settled", "pending", "held-back"].iter().any(|state| instance["state"] == *state);
        resting && instance["running_version"] == instance["bound_version"] && machine.serving(user).is_some()
    });
    let version = machine.serving(user).unwrap();
    let level = if version == "0.0.24" { "30" } else { "31" };
    assert_eq!(machine.migration_level(user), level, "{user} runs {version} on data of its own");
    assert_eq!(machine.work_hash(user), work);
    machine.user_pair(user);
}

/// Kills the agent as soon as the status shows the user in `phase` (or past it: then the kill comes late, and must do no harm either).
fn kill_in(machine: &Machine, user: &str, phase: &str) {
    let phase_now = format!("t3pin status --json | jq -r '.instances[] | select(.user == \"{user}\") | .phase // \"none\"'");
    machine.ok(&format!(
        "for i in $(seq 600); do case $({phase_now}) in {phase} | soaking | settled) break ;; esac; done
         pid=$(systemctl show --property=MainPID --value t3pin.service); kill -KILL $pid"
    ));
}

fn killed_in(phase: &str) {
    let machine = Machine::with_users("0.0.24", &["alice", "bob"]);
    machine.seed("alice", "--threads 3 --turns 3");
    let work = machine.work_hash("alice");
    machine.pin("0.0.25");
    machine.ok("setsid t3pin enforce >/run/enforced 2>&1 </dev/null &");
    kill_in(&machine, "alice", phase);
    assert_whole(&machine, "alice", &work);
    machine.sh("t3pin enforce --wait");
    machine.wait_settled("alice", "0.0.25");
    machine.wait_settled("bob", "0.0.25");
    assert_eq!(machine.work_hash("alice"), work);
    assert_eq!(machine.ok("ls -A /var/lib/t3pin/holds 2>/dev/null || true"), "", "nobody's unit is held back");
}

#[test]
fn killed_while_rehearsing_the_agent_ends_what_was_under_way() {
    killed_in("planned");
}

#[test]
fn killed_with_the_server_stopped_the_agent_ends_what_was_under_way() {
    killed_in("quiesced");
}

#[test]
fn killed_around_the_switch_the_agent_ends_what_was_under_way() {
    killed_in("switched");
}

#[test]
fn killed_before_the_verdict_the_agent_ends_what_was_under_way() {
    killed_in("started");
}

#[test]
fn a_power_cut_in_the_middle_of_a_bump_ends_whole_too() {
    let mut machine = Machine::with_users("0.0.24", &["alice"]);
    machine.seed("alice", "--threads 3 --turns 3");
    let work = machine.work_hash("alice");
    machine.pin("0.0.25");
    machine.ok("setsid t3pin enforce >/run/enforced 2>&1 </dev/null &");
    let phase = "t3pin status --json | jq -r '.instances[0].phase // \"none\"'";
    machine
        .ok(&format!("for i in $(seq 600); do case $({phase}) in secured | switched | started | soaking) break ;; esac; done"));
    machine.power_cut();
    assert_whole(&machine, "alice", &work);
}
