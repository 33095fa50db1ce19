//! File systems that never answer, where the user's data or settings should be. What waits for one may not even be killed; only this
//! user's own bump may wait for it.

use super::{ANSWER, DEADLINE, Suite, wanted};
use crate::common::{GOOD, OLD, Site};
use std::time::{Duration, Instant};
use t3pin_tests::Output;

/// Where below the home, for whom, and whether others move meanwhile.
const HANGS: [(&str, &str, bool); 6] = [
    (".t3", "own", true),
    (".t3/.t3pin", "own", false),
    (".t3/userdata/state.sqlite", "own", false),
    (".t3/userdata/secrets", "own", false),
    (".t3/userdata/secrets", "everybody", false),
    ("", "everybody", true),
];
/// Nobody piles up more than so many of the agent's threads and workers behind one file system.
const WAITING: usize = 12;

pub fn all(suite: &mut Suite) {
    for (place, whose, others) in HANGS {
        let name = format!("file system that hangs, {whose}, at ~/{place}");
        if !wanted(&name) {
            continue;
        }
        suite.attack(&name, |site| {
            site.as_user("alice", "mkdir -p .config .t3/.t3pin");
            site.ok(&format!("python3 /opt/hang.py mount '/home/alice/{place}' {whose}"));
            let all = while_it_hangs(site, others);
            site.ok("python3 /opt/hang.py end");
            all
        });
        if others {
            suite.others_are_back();
        }
        suite.calm();
    }
}

/// Everybody's version changes; only alice's may not.
fn while_it_hangs(site: &Site, others: bool) -> Vec<Output> {
    if others {
        site.pin_alice_and_carol(GOOD)
    } else {
        site.pin_alice(GOOD)
    }
    let mut all = vec![site.sh("timeout 60 t3pin plan"), site.sh(&format!("timeout {DEADLINE} t3pin enforce --wait"))];
    let asked = Instant::now();
    all.push(site.sh("timeout 60 t3pin status --json"));
    if asked.elapsed() > ANSWER {
        all.push(site.sh("echo escape the status waits for the file system"));
    }
    if others && site.serves("carol") != GOOD {
        all.push(site.sh("echo escape the bump of another waits for the file system; t3pin history --json"));
    }
    let waiting =
        site.ok("for pid in $(pgrep -x t3pin); do cat /proc/$pid/task/*/status 2>/dev/null; done | grep -c '^State:.D'; true");
    println!("    {waiting} threads wait");
    if waiting.trim().parse::<usize>().is_ok_and(|waiting| waiting > WAITING) {
        all.push(site.sh(&format!("echo escape {waiting} threads wait for the file system")));
    }
    all
}

impl Site {
    /// alice and carol move.
    pub fn pin_alice_and_carol(&self, version: &str) {
        let hold = |user: &str| format!("[users.{user}]\nversion = \"{version}\"\nreason = \"hostile\"\n");
        self.write("/etc/t3pin/pin.toml", &format!("version = \"{OLD}\"\n{}{}", hold("alice"), hold("carol")));
    }
}

impl Suite {
    /// carol is on the old version again.
    pub fn others_are_back(&self) {
        let site = &self.site;
        site.pin_alice(OLD);
        if site.serves("carol") != OLD {
            site.ok("timeout 120 t3pin rollback carol --force 2>&1");
        }
        site.wait_until("carol's server answers", Duration::from_secs(60), |_| site.serves("carol") == OLD);
    }
}
