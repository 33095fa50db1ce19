//! The way back needs nobody: no network, no registry, no npm. And who is stuck is not forgotten.

use crate::common::{GOOD, OLD, Site, stopped_states};

/// No registry, no npm, nothing that npm has kept, and no way out but to the machine itself.
#[track_caller]
fn cut_off(site: &Site) {
    site.ok("systemctl stop test-registry
        for tool in npm npx; do path=$(command -v $tool) && mv \"$(readlink -f \"$path\")\" \"$(readlink -f \"$path\").gone\"; done
        rm -rf /root/.npm /home/*/.npm /var/lib/t3pin/npm /var/cache/npm
        for link in $(ls /sys/class/net | grep -v -x lo); do ip link set \"$link\" down; done");
    assert_ne!(site.sh("npm --version").code, 0, "npm is gone");
}

#[test]
fn every_way_back_works_without_network_registry_and_npm() {
    let site = Site::with(&["alice", "bob"]);
    site.ok("t3pin enroll carol --version 0.0.103 && t3pin unenroll carol");
    let (alices, bobs) = (site.work("alice"), site.work("bob"));
    // alice is settled, so that her way back is out of the archive; bob runs something that breaks in its soak.
    site.write("/etc/t3pin/pin.toml", &format!("version = \"{GOOD}\"\n[users.bob]\nversion = \"{OLD}\"\n"));
    site.enforce_to(0);
    site.await_state("alice", "settled");
    site.settings("[health]\nsoak = \"60s\"\n");
    site.watch_state("bob");
    site.write("/etc/t3pin/pin.toml", &format!("version = \"{GOOD}\"\n[users.bob]\nversion = \"0.0.104\"\n"));
    site.enforce_to(0);
    cut_off(&site);

    site.until("bob is back by himself", |site| {
        site.instance("bob")["last_bump"]["outcome"] == "rolled-back" && site.serves("bob") == OLD
    });
    let (left, found) = stopped_states(&site.moments("bob"), OLD);
    assert_eq!(found, left, "0.0.24 found other data than it had left");
    assert_eq!(site.work("bob"), bobs);
    site.is_whole("bob", OLD, "30");

    let done = site.sh("t3pin rollback alice");
    assert_eq!(done.code, 0, "{done}\n{}", site.journal());
    assert_eq!(site.work("alice"), alices);
    site.is_whole("alice", OLD, "30");

    // Killed while it pairs with what cannot be paired with, and left to the recovery of the next start.
    site.ok("echo T3_STANDIN_LIVE_FAULT=1 >>/etc/t3-serve/alice.env");
    site.settings("");
    site.write("/etc/t3pin/pin.toml", &format!("version = \"{OLD}\"\n[users.alice]\nversion = \"0.0.103\"\n"));
    let killed = site.sh("agent=$(systemctl show --property=MainPID --value t3pin.service)
         cursor=$(journalctl --quiet --lines=0 --show-cursor | sed -n 's/^-- cursor: //p')
         systemd-run --quiet --collect t3pin enforce --wait
         timeout 60 journalctl --follow --output=cat --after-cursor=\"$cursor\" T3PIN_USER=alice T3PIN_PHASE=Verified |
             grep --quiet --max-count=1 . && kill -KILL \"$agent\"");
    assert_eq!(killed.code, 0, "{killed}\n{}", site.journal());
    site.until("the recovery is over", |site| {
        let status: serde_json::Value = serde_json::from_str(&site.sh("t3pin status --json").stdout).unwrap_or_default();
        status["agent"]["state"] == "idle"
            && status["instances"][0]["last_bump"]["to"] == "0.0.103"
            && site.serves("alice") == OLD
    });
    assert!(site.journal().contains("when it was left; recovering"), "{}", site.journal());
    assert_eq!(site.work("alice"), alices);
    site.is_whole("alice", OLD, "30");
}

#[test]
fn who_is_stuck_comes_back_without_being_asked_for_once_the_cause_is_gone() {
    let site = Site::with(&["alice"]);
    let work = site.work("alice");
    site.settings("[health]\nsoak = \"1h\"\n");
    site.pin(GOOD);
    site.enforce_to(0);
    let original =
        site.ok("ls /.t3pin/alice/*/original/state.sqlite /home/.t3pin/alice/*/original/state.sqlite 2>/dev/null | tail -n 1");
    site.ok(&format!("mv '{original}' /root/out-of-reach"));
    let stuck = site.sh("t3pin rollback alice --force");
    assert_eq!(stuck.code, 6, "{stuck}");
    let told = site.instance("alice");
    assert_eq!(told["state"], "stuck", "{told:#}");
    let detail = told["detail"].as_str().unwrap_or_default();
    for part in ["tried again by itself in 1 min (try 1 of 6)", "t3pin rollback alice", "/home/alice/.t3/userdata"] {
        assert!(detail.contains(part), "{part:?} is not told: {detail}");
    }
    assert!(!site.ok("ls -d /var/lib/t3pin/evidence/*-stuck").is_empty(), "evidence of what is stuck");

    site.ok(&format!("mv /root/out-of-reach '{original}'"));
    site.until("alice is back", |site| site.instance("alice")["last_bump"]["outcome"] == "rolled-back");
    assert_eq!(site.work("alice"), work);
    site.is_whole("alice", OLD, "30");
    let story = site.ok("t3pin explain alice");
    assert!(story.contains("the way back to 0.0.24 was tried again"), "{story}");
}

#[test]
fn an_agent_that_comes_before_the_bus_waits_for_it_and_one_that_loses_it_comes_back() {
    let site = Site::with(&["alice"]);
    let before = site.runs(&["alice"]);
    // Masked, or else the agent's own unit would start it.
    site.ok("systemctl mask --quiet --runtime dbus.socket dbus.service && systemctl stop dbus.socket dbus.service; systemctl restart --no-block t3pin");
    site.until("the agent waits", |site| site.journal().contains("systemd cannot be asked yet; waiting for up to"));
    site.ok("systemctl unmask --quiet --runtime dbus.socket dbus.service && systemctl start dbus.socket dbus.service");
    site.until("the agent is up", |site| site.sh("t3pin status").code == 0);
    assert_eq!(site.ok("systemctl show --property=NRestarts --value t3pin"), "0", "it waited, and did not fail");

    site.ok("systemctl restart dbus.service");
    site.pin(GOOD);
    site.until("the agent is up again", |site| site.sh("systemctl is-active t3pin && t3pin status").code == 0);
    assert_eq!(site.runs(&["alice"]), before, "alice has nothing to do with that");
    site.until("it works as before", |site| site.sh("t3pin enforce --wait").code == 0);
    site.is_whole("alice", GOOD, "31");
}
