//! What runs with the user's ids is killed, stopped and looked into, at every moment of a bump: that user's bump fails, and nobody else's.

use super::{DEADLINE, Suite, wanted};
use crate::common::GOOD;

pub fn all(suite: &mut Suite) {
    let names = suite.site.ok("python3 /opt/claws.py list");
    for claw in names.lines() {
        let name = format!("claws {claw}");
        if !wanted(&name) {
            continue;
        }
        // What only looks lets the bump through; what does not must not keep carol's.
        let looks = claw.starts_with("look");
        suite.attack(&name, |site| {
            site.ok("rm -f /home/alice/found");
            site.as_user("alice", &format!("python3 /opt/claws.py {claw} /home/alice/found"));
            site.pin_alice_and_carol(GOOD);
            let mut all = vec![site.sh(&format!("timeout {DEADLINE} t3pin enforce --wait"))];
            if site.serves("carol") != GOOD {
                all.push(site.sh("echo escape the bump of another did not go on; t3pin history --json"));
            }
            all.push(site.sh("timeout 120 t3pin rollback alice --force >/dev/null 2>&1; true"));
            let half = site.instance("alice")["state"] == "stuck";
            if looks && half {
                all.push(site.sh("echo escape alice is stuck"));
            }
            site.alice("stop");
            all.push(site.sh("cat /home/alice/found 2>/dev/null; true"));
            if claw == "look-into-workers-that-work" && !all.last().is_some_and(|found| found.stdout.contains("tried")) {
                all.push(site.sh("echo escape no worker was caught at work: the attack sees nothing"));
            }
            // Whatever was in the way is gone: t3pin finishes or undoes it by itself, or by one order.
            all.push(site.sh("timeout 120 t3pin rollback alice --force >/dev/null 2>&1; true"));
            if site.instance("alice")["state"] == "stuck" {
                all.push(site.sh("echo escape alice is still stuck; t3pin explain alice"));
            }
            all
        });
        suite.others_are_back();
        suite.calm();
    }
}
