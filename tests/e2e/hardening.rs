//! The units' sandbox: as tight as it is said to be, and no obstacle to a rollback wherever the homes lie.

use crate::common::{GOOD, OLD, Site, stopped_states};

#[test]
fn the_agent_is_as_little_exposed_as_promised_and_has_neither_network_nor_other_ids() {
    let site = Site::bare();
    for unit in ["t3pin.service", "t3pin-recover.service"] {
        let said = site.ok(&format!("systemd-analyze security --no-pager {unit} | tail -n 1"));
        let exposure: f64 = said.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or_else(|| panic!("{said}"));
        assert!(exposure <= 2.5, "{unit}: {said}");
    }
    let pid = site.ok("systemctl show -P MainPID t3pin");
    let own = site.ok(&format!("readlink /proc/{pid}/ns/net /proc/1/ns/net"));
    let mut networks = own.lines();
    assert_ne!(networks.next(), networks.next(), "the agent is on the host's network");
    assert_eq!(site.ok(&format!("grep -c . /proc/{pid}/net/route")), "1", "only the heading: no way anywhere");
    // CAP_SETUID is 7, CAP_SETGID 6 (capability.h).
    let bounding = site.ok(&format!("sed -n 's/^CapBnd:\\t//p' /proc/{pid}/status"));
    let bounding = u64::from_str_radix(&bounding, 16).unwrap();
    assert_eq!(bounding & 0b1100_0000, 0, "{bounding:x}");
}

/// alice's home on the root file system, bob's on one that is mounted once the agent has long been running.
#[test]
fn a_bump_and_its_rollback_work_for_homes_on_the_root_and_on_mounts_that_come_later() {
    let site = Site::bare();
    site.pin(OLD);
    site.ok("mv /home/bob /root/bob-was && mkdir /home/bob && mount -t tmpfs -o size=300M tmpfs /home/bob && cp -a /root/bob-was/. /home/bob/ && chown --reference=/root/bob-was /home/bob && chmod --reference=/root/bob-was /home/bob");
    for user in ["alice", "bob"] {
        site.ok(&format!("t3pin enroll {user} 2>&1"));
        site.turn(user, "old-work", "start");
        site.turn(user, "old-work", "end");
        site.watch_state(user);
    }
    let work = ["alice", "bob"].map(|user| site.work(user));
    site.pin(GOOD);
    site.enforce_to(0);
    for user in ["alice", "bob"] {
        site.is_whole(user, GOOD, "31");
        site.ok(&format!("t3pin rollback {user} --force 2>&1"));
        site.until("the rollback is done", |site| site.serves(user) == OLD);
        let (before, after) = stopped_states(&site.moments(user), OLD);
        assert_eq!(before, after, "{user}'s data did not come back as it was");
        site.is_whole(user, OLD, "30");
    }
    assert_eq!(["alice", "bob"].map(|user| site.work(user)), work);
    let said = site.ok("journalctl -u t3pin-workers --no-pager");
    assert!(!said.contains("less of a cage"), "the workers were not shut in here, so this shows nothing: {said}");
    assert_ne!(site.sh("ls -d /home/bob/.t3pin").stdout, "", "bob's custody lies on bob's file system");
}
