//! An operator's other orders, while the user exchanges what they work on without end: going back, snapshots, credentials, taking up
//! and letting go. And what an administrator may have done to a home.

use super::{DEADLINE, MARK, Suite, wanted};
use crate::common::{GOOD, OLD, Site};
use t3pin_tests::Output;

const RACES: [&str; 3] = ["base-and-a-link-to-anothers", "base-and-another-directory", "exports-and-a-link-to-roots-home"];

pub fn all(suite: &mut Suite) {
    for race in RACES {
        let name = format!("orders during {race}");
        if !wanted(&name) {
            continue;
        }
        suite.attack(&name, |site| {
            let turns = |site: &Site| site.query("alice", "SELECT count(*) FROM projection_turns").parse::<u32>().unwrap();
            let begun = turns(site);
            site.pin_alice(GOOD);
            let mut all = vec![site.sh(&format!("timeout {DEADLINE} t3pin enforce --wait"))];
            site.await_state("alice", "settled");
            let kept =
                site.sh("t3pin snapshots list alice --json | jq -r '[.[].kept[].id | select(test(\"salvage\") | not)] | last'");
            let started = site.alice(&format!("race {race}"));
            assert_eq!(started.code, 0, "{race}: {started}");
            all.extend(orders(site, kept.stdout.trim()));
            site.alice("stop");
            all.push(site.sh("rm -f /tmp/out-*; rm -rf /home/alice/out; true"));
            // What was in the way is gone: one order is enough, and nothing was lost.
            if site.instance("alice")["bound_version"] != OLD {
                all.push(site.sh("timeout 120 t3pin rollback alice --force 2>&1; true"));
            }
            site.pin_alice(OLD);
            site.sh("systemctl reset-failed t3-serve@alice; systemctl start t3-serve@alice");
            if turns(site) < begun {
                all.push(site.sh("echo escape work of alice is gone"));
            }
            all
        });
        suite.calm();
    }
    suite.attack("home is a link of the administrator's", |site| {
        site.ok("systemctl stop t3-serve@alice && mkdir -p /srv/homes && mv /home/alice /srv/homes/alice && ln -s /srv/homes/alice /home/alice
             systemctl start t3-serve@alice");
        site.until("alice's server answers", |site| site.serves("alice") == OLD);
        site.pin_alice(GOOD);
        let mut all = vec![site.sh(&format!("timeout {DEADLINE} t3pin enforce --wait"))];
        if site.serves("alice") != GOOD {
            all.push(site.sh("echo escape alice was not bumped; t3pin explain alice"));
        }
        all.push(site.sh("timeout 60 t3pin mint alice >/dev/null || echo escape no credential"));
        all.push(site.sh("timeout 120 t3pin rollback alice --force 2>&1"));
        site.ok("systemctl stop t3-serve@alice && rm /home/alice && mv /srv/homes/alice /home/alice && rmdir /srv/homes");
        site.sh("systemctl start t3-serve@alice");
        all
    });
    suite.calm();
}

fn orders(site: &Site, kept: &str) -> Vec<Output> {
    let leaks =
        |output: Output| if output.stdout.contains(MARK) { site.sh("echo escape what is anothers was shown") } else { output };
    let order =
        |line: &str| leaks(site.sh(&format!("timeout {DEADLINE} {line} 2>&1; code=$?; [ $code = 124 ] && exit 124; exit 0")));
    let mut all = vec![
        order("t3pin mint alice"),
        order("t3pin snapshots verify alice"),
        order(&format!("t3pin snapshots export alice {kept} --output /tmp/out-root")),
    ];
    for n in 0..10 {
        all.push(order(&format!("t3pin snapshots export alice {kept} --output /home/alice/out/x{n}")));
    }
    all.extend([
        leaks(
            site.as_user(
                "alice",
                &format!("timeout {DEADLINE} t3pin snapshots export alice {kept} --output /tmp/out-alice 2>&1"),
            ),
        ),
        order("t3pin unenroll alice"),
        order("t3pin enroll alice"),
        order(&format!("t3pin snapshots restore alice {kept} --force")),
        order("t3pin rollback alice --force"),
        order("t3pin rollback alice --force"),
        order("t3pin explain alice"),
    ]);
    all
}
