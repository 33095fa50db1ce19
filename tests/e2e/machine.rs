//! What all other tests stand on: that a machine is a real one, alone, and gone when it is dropped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use t3pin_tests::Machine;

/// Everything on the host that names a machine: processes, mounts, directories, cgroups.
fn traces_of(name: &str) -> Vec<String> {
    let mut traces = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        // One that ends meanwhile has no trace.
        let command = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        let mounts = fs::read_to_string(process.path().join("mountinfo")).unwrap_or_default();
        let cgroups = fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
        for (kind, text) in [("runs", command), ("sees its mount", mounts), ("is in its cgroup", cgroups)] {
            if text.contains(name) {
                traces.push(format!("{} {kind}", process.path().display()));
            }
        }
    }
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/machine/run");
    let places = [
        run.as_path(),
        Path::new("/run/systemd/nspawn"),
        Path::new("/sys/fs/cgroup"),
        Path::new("/run/netns"),
        Path::new("/var/lib/machines"),
    ];
    for place in places.into_iter().filter(|place| place.exists()) {
        let found = Command::new("find").arg(place).args(["-maxdepth", "3", "-name", &format!("*{name}*")]).output().unwrap();
        traces.extend(String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned));
    }
    traces
}

#[test]
fn machines_run_side_by_side_and_leave_nothing_behind() {
    let (one, two) = thread::scope(|scope| {
        let one = scope.spawn(Machine::boot);
        let two = scope.spawn(Machine::boot);
        (one.join().unwrap(), two.join().unwrap())
    });
    assert_ne!(one.ok("cat /etc/machine-id"), two.ok("cat /etc/machine-id"));
    one.write("/root/mark", "one");
    assert_eq!(two.sh("cat /root/mark").code, 1, "each has its own file system");
    assert_eq!(one.ok("ps -o comm= 1"), "systemd");
    assert_eq!(one.ok("systemctl list-units --state=failed --plain --no-legend"), "");

    let name = one.name().to_owned();
    assert!(!traces_of(&name).is_empty());
    drop(one);
    assert_eq!(traces_of(&name), Vec::<String>::new());
    assert_eq!(two.ok("systemctl is-active test-registry"), "active", "the other one is not disturbed");
}

#[test]
fn a_panicking_test_leaves_nothing_behind() {
    let mut name = String::new();
    let result = thread::scope(|scope| {
        scope
            .spawn(|| {
                let machine = Machine::boot();
                machine.name().clone_into(&mut name);
                machine.ok("sleep infinity & exit 3");
                unreachable!("that command failed");
            })
            .join()
    });
    assert!(result.is_err());
    assert_eq!(traces_of(&name), Vec::<String>::new());
}

#[test]
fn what_a_killed_test_left_is_removed_by_the_next_boot() {
    let mut killed = Command::new(env!("CARGO_BIN_EXE_machine"))
        .args(["--", "bash", "-c", "echo up; sleep infinity"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let name = format!("t3pin-test-{}-0", killed.id());
    let mut line = String::new();
    BufReader::new(killed.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!traces_of(&name).is_empty(), "nobody has cleaned up yet");

    let _machine = Machine::boot();
    // Another test that boots at this moment may be at it.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !traces_of(&name).is_empty() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(traces_of(&name), Vec::<String>::new());
}

#[test]
fn units_can_be_frozen_and_thawed() {
    let machine = Machine::boot();
    machine.ok("systemd-run --unit=sleeper sleep infinity && systemctl freeze sleeper");
    assert_eq!(machine.ok("systemctl show -P FreezerState sleeper"), "frozen");
    assert_eq!(machine.ok("cat /sys/fs/cgroup/system.slice/sleeper.service/cgroup.freeze"), "1");
    machine.ok("systemctl thaw sleeper && systemctl stop sleeper");
}

#[test]
fn a_unit_without_network_has_its_own_loopback() {
    let machine = Machine::boot();
    let inside = "ip -brief link show lo && ! curl --silent --max-time 5 http://127.0.0.1:4873/";
    let links = machine.ok(&format!("systemd-run --quiet --wait --pipe --property=PrivateNetwork=yes bash -c '{inside}'"));
    assert!(links.contains("UP"), "{links}");
}

#[test]
fn packages_come_from_the_machines_own_registry() {
    let machine = Machine::boot();
    assert_eq!(machine.ok("npm view node-pty version"), "1.1.0");
    assert_eq!(machine.ok("npm view node-pty@1.1.0 dependencies.node-addon-api"), "^7.1.0");
    let missing = machine.sh("npm view no-such-package-here version");
    assert!(missing.code != 0 && missing.stderr.contains("E404"), "{missing}");
    let requests = machine.ok("journalctl --unit=test-registry --no-pager");
    assert!(requests.contains("GET /node-pty 200"), "{requests}");
    let user = machine.as_user("alice", "id -un; pwd; npm view node-addon-api version");
    assert!(user.stdout.starts_with("alice\n/home/alice\n7."), "{user}");
}

#[test]
fn disk_and_journal_outlive_a_reboot_and_a_power_cut() {
    let mut machine = Machine::boot();
    machine.ok("systemd-run --unit=before --wait echo from-before && journalctl --sync");
    machine.write("/var/lib/mark", "kept");
    let first = machine.ok("cat /proc/sys/kernel/random/boot_id; systemctl show -P UserspaceTimestampMonotonic");
    machine.reboot();
    assert_eq!(machine.ok("cat /var/lib/mark"), "kept");
    let second = machine.ok("cat /proc/sys/kernel/random/boot_id; systemctl show -P UserspaceTimestampMonotonic");
    assert_ne!(first, second);
    machine.power_cut();
    assert_eq!(machine.ok("cat /var/lib/mark"), "kept");
    assert!(machine.ok("journalctl --no-pager --unit=before").contains("from-before"));
    machine.wait_until("the registry is up again", Duration::from_secs(5), |machine| machine.sh("npm ping").code == 0);
}

#[test]
fn a_user_pairs_with_either_contract_and_is_known_by_the_cookie() {
    let machine = Machine::boot();
    for (version, user, port) in [("0.0.24", "alice", 3724), ("0.0.25", "bob", 3725)] {
        let installed = format!("/var/lib/t3pin/versions/{version}");
        // Not --prefix: npm would look for its global settings there, and not know the registry.
        machine.ok(&format!(
            "set -e
            mkdir -p {installed}/bin /var/lib/t3pin/bindings && cd {installed} && npm install --ignore-scripts t3@{version} 2>&1
            ln -s ../node_modules/.bin/t3 bin/t3
            ln -s ../versions/{version} /var/lib/t3pin/bindings/{user}
            npm_config_nodedir=/usr/local npm rebuild node-pty 2>&1"
        ));
        machine.write(&format!("/etc/t3-serve/{user}.env"), &format!("T3_PORT={port}\n"));
        assert_eq!(machine.port(user), port);
        machine.ok(&format!(
            "systemd-run --quiet --unit=t3-{user} --uid={user} --setenv=HOME=/home/{user} --working-directory=/home/{user} \
             --property=SuccessExitStatus=130 /var/lib/t3pin/bindings/{user}/bin/t3 serve --host 127.0.0.1 --port {port} --no-browser"
        ));
        machine.wait_until("the server answers", Duration::from_secs(20), |machine| {
            machine.sh(&format!("curl --silent --fail --max-time 2 http://127.0.0.1:{port}/api/auth/session")).code == 0
        });
        let cookie = machine.user_pair(user);
        assert!(machine.session_ok(user, &cookie));
        assert!(!machine.session_ok(user, "t3_session=made.up"));
        machine.ok(&format!("systemctl stop t3-{user}"));
        assert_eq!(machine.db_hash(user).len(), 64);
    }
}
