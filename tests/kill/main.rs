//! The agent dies in the middle, by SIGKILL, at a phase of its own for each of several users, and again and again on the way back.
//! Whatever is hit, everybody ends on a binary and data that belong together, unattended.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use std::time::Duration;
use t3pin_tests::Machine;

/// Whatever was under way ended by itself, and binary and data belong together.
fn assert_whole(machine: &Machine, user: &str, work: &str) {
    machine.wait_until(&format!("{user} is in a sane place"), Duration::from_secs(60), |machine| {
        let instance = instance(machine, user);
        let resting = ["settled", "pending", "held-back"].iter().any(|state| instance["state"] == *state);
        resting && instance["running_version"] == instance["bound_version"] && machine.serving(user).is_some()
    });
    let version = machine.serving(user).unwrap();
    let level = if version == "0.0.24" { "30" } else { "31" };
    assert_eq!(machine.migration_level(user), level, "{user} runs {version} on data of its own");
    assert_eq!(machine.work_hash(user), work);
    machine.user_pair(user);
}

/// One user's instance in the status; null while nobody answers, because the agent was just killed.
fn instance(machine: &Machine, user: &str) -> Value {
    let status: Value = serde_json::from_str(&machine.sh("t3pin status --json").stdout).unwrap_or_default();
    status["instances"].as_array().into_iter().flatten().find(|one| one["user"] == user).cloned().unwrap_or_default()
}

/// When to kill the agent: as soon as its status shows the user in the phase or past it, and so many ms later.
type Kill<'a> = (&'a str, &'a str, u32);

const KILLER: &str = include_str!("killer.mjs");

fn arm(machine: &Machine, kills: &[Kill]) {
    machine.write("/opt/killer.mjs", KILLER);
    let words: String = kills.iter().map(|(user, phase, delay)| format!(" {user} {phase} {delay}")).collect();
    machine.ok(&format!("setsid node /opt/killer.mjs{words} >/run/killer 2>&1 </dev/null &"));
    machine.wait_until("the killer watches", Duration::from_secs(10), |machine| machine.ok("cat /run/killer") == "watching");
}

/// Waits for the last kill, and until the agent is back.
fn wait_killed(machine: &Machine, kills: &[Kill]) {
    machine.wait_until("the agent died each time, and is back", Duration::from_secs(90), |machine| {
        machine.ok("cat /run/killer").lines().count() == kills.len() + 1 && machine.sh("t3pin status").code == 0
    });
    println!("{}", machine.ok("sed 1d /run/killer"));
}

fn killed_on_the_way(kills: &[Kill]) {
    let users: Vec<_> = kills.iter().map(|(user, ..)| *user).collect();
    let machine = Machine::with_users("0.0.24", &users);
    // Enough data that no phase is over before it is seen.
    users.iter().for_each(|user| machine.seed(user, "--threads 3 --turns 3 --megabytes 16"));
    let work: Vec<_> = users.iter().map(|user| machine.work_hash(user)).collect();
    arm(&machine, kills);
    machine.pin("0.0.25");
    machine.sh("t3pin enforce --wait");
    for (user, work) in users.iter().zip(&work) {
        assert_whole(&machine, user, work);
    }
    for _ in 0..kills.len() {
        machine.sh("t3pin enforce --wait");
    }
    wait_killed(&machine, kills);
    for (user, work) in users.iter().zip(&work) {
        machine.wait_settled(user, "0.0.25");
        assert_whole(&machine, user, work);
    }
    assert_eq!(machine.ok("ls -A /var/lib/t3pin/holds 2>/dev/null || true"), "", "nobody's unit is held back");
}

#[test]
fn an_agent_killed_on_the_way_out_of_the_old_version_ends_what_was_under_way() {
    killed_on_the_way(&[("alice", "rehearsed", 0), ("bob", "baselined", 0), ("carol", "quiesced", 0), ("dave", "secured", 0)]);
}

#[test]
fn an_agent_killed_on_the_way_into_the_new_version_ends_what_was_under_way() {
    killed_on_the_way(&[("alice", "switched", 0), ("bob", "started", 0), ("carol", "verified", 100), ("dave", "soaking", 100)]);
}

#[test]
fn an_agent_killed_again_and_again_in_a_rollback_still_brings_everything_back() {
    let machine = Machine::with_users("0.0.24", &["bob"]);
    machine.seed("bob", "--threads 3 --turns 3");
    machine.ok("echo T3_STANDIN_LIVE_FAULT=1 >>/etc/t3-serve/bob.env");
    let (work, cookie) = (machine.work_hash("bob"), machine.user_pair("bob"));
    let kills = [("bob", "verified", 0), ("bob", "rolling-back", 0), ("bob", "rolling-back", 30), ("bob", "rolling-back", 150)];
    arm(&machine, &kills);
    machine.pin("0.0.103");
    machine.sh("t3pin enforce --wait");
    wait_killed(&machine, &kills);
    machine.wait_until("bob is rolled back", Duration::from_secs(90), |machine| {
        instance(machine, "bob")["last_bump"]["outcome"] == "rolled-back"
    });
    assert_whole(&machine, "bob", &work);
    assert_eq!(machine.serving("bob").as_deref(), Some("0.0.24"));
    assert!(machine.session_ok("bob", &cookie));
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

#[test]
fn a_rollback_restores_the_database_byte_for_byte() {
    let machine = Machine::with_users("0.0.24", &["bob"]);
    machine.seed("bob", "--threads 3 --turns 3");
    machine.ok("echo T3_STANDIN_LIVE_FAULT=1 >>/etc/t3-serve/bob.env");
    // Both at the very moment of the stop and of the start: what the servers themselves write does not get in the way.
    machine.write(
        "/etc/systemd/system/t3-serve@.service.d/hash.conf",
        "[Service]\nExecStartPre=/bin/sh -c 'sha256sum < $HOME/.t3/userdata/state.sqlite >> $HOME/starts'\n\
         ExecStopPost=/bin/sh -c 'sha256sum < $HOME/.t3/userdata/state.sqlite >> $HOME/stops'\n",
    );
    machine.ok("systemctl daemon-reload && systemctl restart t3-serve@bob && rm -f /home/bob/st[ao]*s");
    machine.wait_until("bob's server answers", Duration::from_secs(20), |machine| machine.serving("bob").is_some());
    machine.pin("0.0.103");
    assert_eq!(machine.sh("t3pin enforce --wait").code, 4);
    let stops = machine.ok("cat /home/bob/stops");
    let starts = machine.ok("cat /home/bob/starts");
    assert_eq!(stops.lines().count(), 2, "0.0.24 and 0.0.103 were stopped");
    assert_eq!(starts.lines().last(), stops.lines().next(), "0.0.24 starts on the bytes that it left");
    assert_ne!(stops.lines().nth(1), stops.lines().next());
}
