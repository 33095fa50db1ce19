//! Releases that take in their rehearsal what others need: the disk, the memory.

use std::time::Duration;

use crate::common::{GOOD, OLD, Site};

/// Writes wherever it may until there is no room.
const FILLS_DISK: &str = "0.0.108";

/// Takes more memory than a rehearsal may have.
const EATS_MEMORY: &str = "0.0.109";

/// Ends a process of a rehearsal that has more than a GiB, as the kernel ends it where the limit holds. Fails when there is none.
const PLAY_KERNEL: &str = r#"for unit in $(systemctl list-units --plain --no-legend 't3pin-rehearse-*' | cut -d' ' -f1); do
    for pid in $(cat "/sys/fs/cgroup$(systemctl show --property=ControlGroup --value "$unit")/cgroup.procs"); do
        [ "$(sed -n 's/^VmRSS:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$pid/status")" -gt 1048576 ] && kill -KILL "$pid" && exit 0
    done
done 2>/dev/null; exit 1"#;

/// Where everybody may write. Each on a file system of its own here, so that nothing else of this computer has a part in what is free.
const COMMONS: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// Notes every 20 ms what is free, in MiB: on the file system of the homes, and where everybody may write. Keeps the least.
const WATCH: &str = r#"
import os, time
PLACES = ("/home", "/tmp", "/var/tmp", "/dev/shm")
least = {}
while True:
    for place in PLACES:
        found = os.statvfs(place)
        least[place] = min(least.get(place, 1 << 60), found.f_bavail * found.f_frsize >> 20)
    with open("/root/least.new", "w") as file:
        file.write(" ".join(str(least[place]) for place in PLACES))
    os.rename("/root/least.new", "/root/least")
    time.sleep(0.02)
"#;

/// What is free on a file system, in MiB.
fn free(site: &Site, place: &str) -> i64 {
    site.ok(&format!("df --block-size=1M --output=avail '{place}' | tail -n 1")).parse().unwrap()
}

/// From now on the least that is free is kept.
fn watch(site: &Site) {
    site.sh("systemctl stop watch-room; rm -f /root/least");
    site.write("/root/watch-room.py", WATCH);
    site.ok("systemd-run --quiet --collect --unit=watch-room python3 /root/watch-room.py");
    site.until("it is watched", |site| site.sh("test -e /root/least").code == 0);
}

/// The least that was free for the homes, and in [`COMMONS`], in MiB.
fn least(site: &Site) -> (i64, Vec<i64>) {
    let text = site.ok("cat /root/least");
    let mut least: Vec<i64> = text.split(' ').map(|number| number.parse().unwrap()).collect();
    (least.remove(0), least)
}

/// A site whose homes have a file system of their own with `free` MiB free.
fn site_with_homes(users: &[&str], mebibytes: i64) -> Site {
    let site = Site::bare();
    site.ok("cp -a /home /root/homes && mount -t tmpfs -o size=3g,mode=755 homes /home && cp -a /root/homes/. /home/");
    site.enroll(users);
    leave(&site, mebibytes);
    site
}

/// Leaves so many MiB free for the homes.
fn leave(site: &Site, mebibytes: i64) {
    site.ok(&format!(
        "used=$(df --block-size=1M --output=used /home | tail -n 1) && mount -o remount,size=$((used + {mebibytes}))m /home"
    ));
}

#[test]
fn a_release_that_takes_all_there_is_in_its_rehearsal_harms_nobody_and_is_condemned_once_it_is_sure_that_it_was_it() {
    let site = site_with_homes(&["alice", "bob"], 900);
    site.settings("[drain]\nretry_after = \"2s\"\n");
    let users = ["alice", "bob"];
    for place in ["/tmp", "/var/tmp"] {
        site.ok(&format!("mount -t tmpfs -o size=300m,mode=1777 commons {place}"));
    }
    let (before, room, commons) = (site.untouched(&users), free(&site, "/home"), COMMONS.map(|place| free(&site, place)));
    let unharmed = |what: &str| {
        assert_eq!(site.untouched(&users), before, "{what}: somebody was touched\n{}", site.journal());
        site.nothing_is_left(FILLS_DISK);
        assert_eq!(site.ok("find / /home /tmp /var/tmp /dev/shm -xdev -name 'standin-fills-*' 2>/dev/null"), "", "{what}");
        let (homes, least) = least(&site);
        assert!(homes > 20, "{what}: the homes had {homes} MiB left at one time");
        for ((place, least), before) in COMMONS.iter().zip(least).zip(commons) {
            assert!(least > before - 50, "{what}: the host's {place} had {least} MiB left at one time, and {before} before");
        }
        for user in users {
            assert_eq!(site.serves(user), OLD, "{what}");
        }
    };

    // Little room: that is no fault of a version's, as far as anybody can tell.
    watch(&site);
    pin_alice(&site, FILLS_DISK);
    let told = site.enforce_to(5).stdout;
    assert!(told.contains("could not tell"), "{told}");
    assert_eq!(site.status()["quarantine"], serde_json::json!([]), "{told}");
    let alice = site.instance("alice");
    assert_eq!(alice["state"], "refused", "{alice:#}");
    unharmed("little room");
    assert!((free(&site, "/home") - room).abs() <= 2, "the room is back: {} of {room} MiB", free(&site, "/home"));
    site.until("it is tried again by itself", |site| site.journal().contains("is tried again (try 1)"));
    site.until("in vain", |site| site.instance("alice")["state"] == "refused");
    unharmed("tried again");
    println!("least free in MiB: {:?}", least(&site));

    // Room enough to see that it writes beyond any reason where the old version does not.
    leave(&site, 2500);
    let room = free(&site, "/home");
    watch(&site);
    site.wait_until("it is condemned", Duration::from_secs(120), |site| site.status()["quarantine"][0]["version"] == FILLS_DISK);
    let status = site.status();
    assert!(status["quarantine"][0]["reason"].as_str().unwrap().contains("MB beside a copy of"), "{status:#}");
    site.await_state("alice", "held-back");
    unharmed("much room");
    println!("least free in MiB: {:?} of {room}", least(&site));
    assert!(least(&site).0 > room - 1200, "it was stopped long before the disk was full: {:?} of {room}", least(&site));
    assert!((free(&site, "/home") - room).abs() <= 2, "the room is back: {} of {room} MiB", free(&site, "/home"));

    eats_memory(&site);
    site.pin(OLD);
    site.enforce_to(0);
    assert_eq!(site.untouched(&users), before, "somebody was touched");
}

/// Whether the host has too little or the release wants too much cannot be told.
fn eats_memory(site: &Site) {
    site.settings("[drain]\nretry_after = \"1h\"\n");
    pin_alice(site, EATS_MEMORY);
    site.ok("systemd-run --quiet --collect t3pin enforce --wait");
    if site.sh("grep --quiet --word-regexp memory /sys/fs/cgroup/cgroup.controllers").code != 0 {
        println!("no limit on memory holds in this machine: the test ends the candidate in place of the kernel");
        site.until("the candidate has eaten", |site| site.sh(PLAY_KERNEL).code == 0);
    }
    site.await_state("alice", "refused");
    let alice = site.instance("alice");
    assert!(alice["detail"].as_str().unwrap().contains("the rehearsal could not tell"), "{alice:#}");
    let quarantine = site.status()["quarantine"].clone();
    assert!(quarantine.as_array().unwrap().iter().all(|entry| entry["version"] != EATS_MEMORY), "{quarantine:#}");
    site.nothing_is_left(EATS_MEMORY);
}

/// alice is to run `version`, and bob what he runs.
fn pin_alice(site: &Site, version: &str) {
    site.write("/etc/t3pin/pin.toml", &format!("version = \"{version}\"\n[users.bob]\nversion = \"{OLD}\"\nreason = \"demo\"\n"));
}

#[test]
fn who_has_no_room_at_home_is_told_how_much_is_missing_and_is_bumped_by_itself_once_there_is_some() {
    let site = site_with_homes(&["alice", "bob"], 30);
    site.settings("[drain]\nretry_after = \"2s\"\n[health]\nsoak = \"5s\"\n");
    let users = ["alice", "bob"];
    let (before, works) = (site.untouched(&users), users.map(|user| site.work(user)));
    site.pin(GOOD);
    let refused = site.enforce_to(5);
    assert!(refused.stdout.contains("no room") || refused.stdout.contains("not enough room on /home"), "{refused}");
    let full = |site: &Site| {
        assert_eq!(site.status()["quarantine"], serde_json::json!([]), "that is no fault of the version's");
        for user in users {
            let instance = site.instance(user);
            let detail = instance["detail"].as_str().unwrap_or_default();
            assert!(
                detail.contains("/home") && detail.contains("bytes are needed") && detail.contains("are free"),
                "{instance:#}"
            );
            assert_eq!(site.serves(user), OLD);
        }
        assert_eq!(site.runs(&users), before[..2], "somebody was touched");
    };
    full(&site);
    site.ok("fallocate --length 25M /home/full");
    site.until("it was tried again in vain", |site| site.journal().contains("is tried again (try 1)"));
    full(&site);
    assert_eq!(site.untouched(&users), before);
    site.nothing_is_left(GOOD);

    leave(&site, 1000);
    site.await_state("alice", "soaking");
    a_stopped_server_does_not_soak(&site, &works[0]);
    for (user, work) in users.iter().zip(&works) {
        site.await_state(user, "settled");
        site.is_whole(user, GOOD, "31");
        assert_eq!(site.work(user), *work, "{user}");
    }
}

/// alice is in her soak.
fn a_stopped_server_does_not_soak(site: &Site, work: &str) {
    site.ok("systemctl stop t3-serve@alice");
    let soaks = |site: &Site| {
        let alice = site.instance("alice");
        let detail = alice["detail"].as_str().unwrap_or_default();
        alice["state"] == "soaking"
            && detail.contains("somebody has stopped the server")
            && detail.contains("systemctl start t3-serve@alice")
    };
    site.until("the status says what is the matter", soaks);
    // More looks than would roll a broken server back, and more time than a soak takes.
    site.ok("sleep 6");
    assert!(soaks(site), "{:#}", site.instance("alice"));
    assert!(site.ok("t3pin status alice").contains("somebody has stopped the server"), "{}", site.ok("t3pin status alice"));
    assert_eq!(site.status()["quarantine"], serde_json::json!([]));
    assert_ne!(site.sh("systemctl is-active --quiet t3-serve@alice").code, 0, "it was started against somebody's will");
    assert!(!site.ok("t3pin history --json").contains("rolled-back"), "{}", site.ok("t3pin history --json"));

    site.ok("systemctl start t3-serve@alice");
    site.until("the soak goes on", |site| {
        let alice = site.instance("alice");
        alice["state"] == "soaking" && !alice["detail"].as_str().unwrap_or_default().contains("stopped")
    });
    site.await_state("alice", "settled");
    assert_eq!(site.work("alice"), work);
}
