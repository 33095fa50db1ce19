//! A release that drops all pairings: who they were is known, each device gets a link of its own, and it is seen who has used it.

use serde_json::Value;

use crate::common::{GOOD, OLD, Site};

/// Pairs a browser that its user gives a name.
#[track_caller]
fn paired(site: &Site, name: &str) -> String {
    let minted = site.as_user("alice", &format!("t3pin mint --label '{name}'"));
    site.exchange("alice", minted.stdout.trim()).unwrap_or_else(|why| panic!("{name}: {minted} {why}"))
}

/// What `t3pin reissue --json` of alice's own answers.
#[track_caller]
fn reissued(site: &Site) -> Value {
    let told = site.as_user("alice", "t3pin reissue --ttl 10min --json");
    assert_eq!(told.code, 0, "{told}\n{}", site.journal());
    serde_json::from_str(&told.stdout).unwrap()
}

/// Device and credential of every link.
fn links(reissued: &Value) -> Vec<(&str, &str)> {
    let links = reissued["links"].as_array().unwrap();
    links.iter().map(|link| (link["device"].as_str().unwrap(), link["credential"].as_str().unwrap())).collect()
}

fn metric(site: &Site) -> String {
    site.ok("curl --silent --unix-socket /run/t3pin/t3pin.sock http://t3pin/metrics | sed -n 's/^t3pin_devices_to_pair_again{user=\"alice\"} //p'")
}

#[test]
fn devices_that_lost_their_pairing_get_a_link_each_and_are_counted_until_they_have_used_it() {
    let site = Site::with(&["alice", "bob"]);
    let cookies = ["laptop", "phone", "old tablet"].map(|name| paired(&site, name));
    let id = site.query("alice", "SELECT session_id FROM auth_sessions WHERE client_label = 'old tablet'");
    site.as_user("alice", &format!("/usr/lib/t3pin/bin/t3 auth session revoke {id}"));
    assert!(site.session_ok("alice", &cookies[0]) && !site.session_ok("alice", &cookies[2]));
    let hostile = "UPDATE auth_sessions SET client_label = 'phone' || char(27) || '[2J' || char(10) WHERE client_label = 'phone'";
    site.as_user("alice", &format!("sqlite3 -cmd '.timeout 5000' .t3/userdata/state.sqlite \"{hostile}\""));
    let none = site.as_user("alice", "t3pin reissue");
    assert!(none.code == 0 && none.stdout.starts_with("Nobody has to pair again"), "{none}");

    // Before: how many, and who.
    site.turn("alice", "work", "start");
    site.pin(GOOD);
    site.enforce_to(3);
    let plan = site.ok("t3pin plan");
    assert!(plan.contains("2 devices will have to pair again ("), "{plan}\n{}", site.journal());
    assert!(site.ok("t3pin status alice").contains("2 sessions will have to pair again"));
    let told = site.as_user("alice", "t3pin explain alice").stdout;
    assert!(told.contains("Who has to pair again\n  - ") && told.contains("  - phone") && told.contains("  - laptop"), "{told}");
    assert!(!told.contains("old tablet") && !told.contains('\u{1b}'), "{told}");
    assert_eq!(site.instance("alice")["to_pair_again"], 0);

    // After: confirmed, and counted.
    site.turn("alice", "work", "end");
    site.await_state("alice", "settled");
    assert!(!site.session_ok("alice", &cookies[0]));
    assert_eq!((site.instance("alice")["to_pair_again"].as_u64(), metric(&site).as_str()), (Some(2), "2"), "{}", site.journal());
    let history: Value = serde_json::from_str(&site.ok("t3pin history alice --json")).unwrap();
    assert_eq!((&history[0]["sessions_lost"], &history[0]["to_pair_again"]), (&Value::from(2), &Value::from(2)), "{history:#}");
    assert!(site.ok("t3pin status alice").contains("2 devices still have to pair again: t3pin reissue alice"));
    let told = site.ok("t3pin explain alice");
    assert!(told.contains("  - laptop") && told.contains("  - t3pin reissue alice: "), "{told}");

    // For whom: oneself and operators.
    let others = site.as_user("bob", "t3pin reissue alice");
    assert_eq!((others.code, others.stdout.as_str()), (5, ""), "{others}");
    assert!(site.as_user("bob", "t3pin reissue").stdout.starts_with("Nobody has to pair again"));
    site.ok("systemctl stop t3-serve@alice");
    let down = site.sh("t3pin reissue alice");
    assert_eq!((down.code, down.stdout.as_str()), (5, ""), "{down}");
    site.ok("echo b000099 >/var/lib/t3pin/holds/alice");
    let held = site.sh("t3pin reissue alice --json");
    assert_eq!((held.code, held.stdout.contains("\"deferred\"")), (3, true), "{held}");
    site.ok("rm /var/lib/t3pin/holds/alice; systemctl start t3-serve@alice");
    site.until("alice's server answers", |site| site.serves("alice") == GOOD);

    let bind = |version: &str| site.ok(&format!("ln -sfn ../versions/{version} /var/lib/t3pin/bindings/alice"));
    bind(OLD);
    let wrong = site.sh("t3pin reissue alice");
    bind(GOOD);
    assert_eq!((wrong.code, wrong.stdout.as_str(), site.level("alice").as_str()), (5, "", "31"), "{wrong}");

    // What was not used is revoked when it is asked for again.
    let first = reissued(&site);
    let mut devices: Vec<_> = links(&first).into_iter().map(|(device, _)| device).collect();
    devices.sort_unstable();
    assert_eq!((devices, &first["version"]), (vec!["laptop", "phone"], &Value::from(GOOD)), "{first:#}");
    let labels = site.query("alice", "SELECT label FROM auth_pairing_links WHERE label LIKE 'again:%' ORDER BY label");
    assert_eq!(labels, "again: laptop\nagain: phone");
    let second = reissued(&site);
    let (first, second) = (links(&first), links(&second));
    assert_eq!(second.len(), 2);
    for (device, credential) in &first {
        assert!(site.exchange("alice", credential).is_err(), "the first link of {device} still works");
    }
    let cookie = site.exchange("alice", second[0].1).unwrap();
    site.until("the counter has seen it", |site| metric(site) == "1");
    let third = reissued(&site);
    let third = links(&third);
    assert_eq!(third.iter().map(|(device, _)| *device).collect::<Vec<_>>(), [second[1].0], "one has paired again");
    assert!(site.exchange("alice", second[1].1).is_err(), "its earlier link is revoked");
    let last = site.exchange("alice", third[0].1).unwrap();
    assert!(site.session_ok("alice", &cookie) && site.session_ok("alice", &last));
    let all = site.as_user("alice", "t3pin reissue");
    assert_eq!((all.code, all.stdout.as_str()), (0, "All of 2 have paired again with alice's server.\n"), "{all}");
    assert_eq!((metric(&site).as_str(), site.instance("alice")["to_pair_again"].as_u64()), ("0", Some(0)));

    // Nothing of it opens anything.
    let credentials = first.iter().chain(&second).chain(&third).map(|(_, credential)| *credential);
    let values = cookies.iter().chain([&cookie, &last]).map(|cookie| cookie.split_once('=').unwrap().1);
    let secrets: Vec<&str> = credentials.chain(values).collect();
    let agents = site.ok("journalctl --unit t3pin --no-pager -o export");
    assert!(!secrets.iter().any(|secret| agents.contains(secret)), "a secret is in the agent's journal");
    let found = site.sh_with_input("grep -rlsFf - /var/lib/t3pin /run/t3pin /proc/[0-9]*/cmdline", &secrets.join("\n"));
    assert_eq!(found.stdout, "", "a secret was written down");
    // A restarted agent has not forgotten, and a release that loses nobody costs nobody anything.
    site.ok("systemctl restart t3pin");
    site.pin("0.0.28");
    site.enforce_to(0);
    site.await_state("alice", "settled");
    assert!(site.session_ok("alice", &last));
    assert!(site.as_user("alice", "t3pin reissue").stdout.starts_with("All of 2 have paired again"));
    assert!(site.ok("t3pin history alice --json").contains("\"sessions_lost\": 0"));
}
