//! Nobody's server stays frozen, whatever happens to the agent while it looks at it.

use crate::common::{GOOD, OLD, Site};

const UNIT: &str = "t3-serve@alice.service";

/// alice's server stands still, as in the middle of a hand-over: noted first, then frozen.
fn stand_still(site: &Site) {
    site.ok(&format!(
        "mkdir -p -m 700 /run/t3pin/frozen && systemctl show -P ControlGroup {UNIT} | tr -d '\\n' >/run/t3pin/frozen/alice
         systemctl freeze {UNIT}"
    ));
    assert_eq!(site.ok(&format!("systemctl show -P FreezerState {UNIT}")), "frozen");
}

fn goes_on(site: &Site, how: &str) {
    site.until(&format!("alice's server goes on: {how}"), |site| {
        site.ok(&format!("systemctl show -P FreezerState {UNIT}")) == "running" && site.ok("ls -A /run/t3pin/frozen").is_empty()
    });
    site.serves("alice");
}

#[test]
fn a_server_that_stands_still_goes_on_when_the_agent_is_killed_or_stopped_or_hangs() {
    let site = Site::with(&["alice"]);
    let run = site.runs(&["alice"]);

    stand_still(&site);
    site.kill_agent();
    goes_on(&site, "the agent was killed");
    site.until("the agent is back", |site| site.sh("t3pin status").code == 0);

    stand_still(&site);
    site.ok("systemctl stop t3pin");
    goes_on(&site, "the agent was stopped");

    stand_still(&site);
    site.ok("systemctl start t3pin");
    goes_on(&site, "the agent was started");

    stand_still(&site);
    site.ok("kill -STOP $(systemctl show -P MainPID t3pin) && systemctl start t3pin-thaw.timer");
    goes_on(&site, "the agent hangs, and who watches over it does not");
    site.ok("kill -CONT $(systemctl show -P MainPID t3pin)");
    assert_eq!(site.runs(&["alice"]), run, "alice's server was restarted");
}

#[test]
fn a_server_goes_on_when_the_agent_is_killed_while_it_looks_at_it_standing_still() {
    let site = Site::with(&["alice"]);
    let group = site.ok(&format!("systemctl show -P ControlGroup {UNIT}"));
    // Kills the agent in the very milliseconds in which the server stands still.
    site.ok(&format!(
        "pid=$(systemctl show -P MainPID t3pin)
         (while read -r held <'/sys/fs/cgroup{group}/cgroup.freeze'; do [ $held = 0 ] || {{ kill -KILL $pid; touch /run/caught; break; }}; done) \
             >/dev/null 2>&1 &"
    ));
    site.pin(GOOD);
    site.sh("t3pin enforce --wait");
    site.until("the agent was killed", |site| site.sh("test -e /run/caught").code == 0);
    site.until("alice's server answers", |site| [OLD, GOOD].contains(&site.serves("alice").as_str()));
    site.until("nothing stands still", |site| site.ok("ls -A /run/t3pin/frozen").is_empty());
    site.until("the agent is back", |site| site.sh("t3pin status").code == 0);
    site.until("the bump goes on by itself, or by order", |site| {
        site.sh("t3pin enforce --wait");
        site.instance("alice")["state"] == "settled" && site.serves("alice") == GOOD
    });
    site.is_whole("alice", GOOD, "31");
}

#[test]
fn where_no_server_can_be_frozen_it_is_looked_at_twice_and_status_says_what_that_is_worth() {
    let site = Site::with(&["alice"]);
    assert!(!site.ok("t3pin status alice").contains("less sure"));
    // systemd's own test for a freezer (its `cg_freezer_supported`) finds none.
    site.ok("mount -t tmpfs none /sys/fs/cgroup/init.scope");
    let told = site.ok("t3pin status alice");
    assert!(told.contains("less sure here") && told.contains("freezer"), "{told}");
    site.turn("alice", "at-work", "start");
    let run = site.runs(&["alice"]);
    site.pin(GOOD);
    site.enforce_to(3);
    assert_eq!(site.runs(&["alice"]), run, "somebody was interrupted");
    site.turn("alice", "at-work", "end");
    site.await_state("alice", "settled");
    site.is_whole("alice", GOOD, "31");
    assert!(site.journal().contains("cannot be frozen"), "{}", site.journal());
}
