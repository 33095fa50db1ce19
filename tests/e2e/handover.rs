//! Nobody's server stays frozen, whatever happens to the agent while it looks at it.

use crate::common::Site;

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
