//! A good release over a renamed pairing endpoint and a migration that drops all sessions.

use crate::common::{GOOD, OLD, Poller, Site};

const USERS: [&str; 3] = ["alice", "bob", "carol"];

#[test]
fn a_good_bump_reaches_everybody_and_interrupts_nobody_at_work() {
    let site = Site::with(&USERS);
    let alices = site.user_pair("alice");
    assert!(site.session_ok("alice", &alices));
    site.turn("carol", "at-work", "start");
    let before = site.runs(&USERS);
    let poller = Poller::start(&site, &USERS);

    site.pin(GOOD);
    planning_changes_nothing(&site);

    let enforced = site.enforce_to(3);
    assert!(enforced.stdout.contains("carol is put off: a turn is in flight in thread at-work"), "{enforced}");
    assert!(
        enforced.stderr.contains("alice: rehearsed well") && enforced.stderr.contains("1 session(s) will have to pair again"),
        "who has to pair again is said beforehand: {enforced}"
    );
    let carol = site.instance("carol");
    assert_eq!(carol["state"], "deferred", "{carol:#}");
    assert!(carol["deferral"]["reason"].as_str().unwrap().contains("at-work"), "{carol:#}");
    assert!(carol["deferral"]["since"].as_str().unwrap().starts_with("20"), "{carol:#}");
    assert_eq!(site.status()["agent"]["state"], "draining");
    assert_eq!(site.status()["rollout"]["state"], "waiting");

    for user in ["alice", "bob"] {
        assert!(matches!(site.instance(user)["state"].as_str(), Some("soaking" | "settled")), "{:#}", site.instance(user));
        site.await_state(user, "settled");
        site.is_whole(user, GOOD, "31");
    }
    assert!(!site.session_ok("alice", &alices), "the stand-in's migration drops sessions, as the real one");
    assert_eq!(site.runs(&["carol"])[0], before[2], "carol was restarted at work");
    assert_eq!(site.serves("carol"), OLD);
    assert_eq!(site.level("carol"), "30");
    assert_eq!(site.query("carol", "SELECT count(*) FROM projection_turns WHERE completed_at IS NULL"), "1", "the turn goes on");

    site.turn("carol", "at-work", "end");
    let work = site.work("carol");
    site.until("carol is bumped without being asked for again", |site| {
        site.runs(&["carol"])[0] != before[2] && site.instance("carol")["running_version"] == GOOD
    });
    site.await_state("carol", "settled");
    assert_eq!(site.work("carol"), work, "something of carol's work is missing");
    site.is_whole("carol", GOOD, "31");
    let carol = site.instance("carol");
    assert_eq!(carol["deferral"], serde_json::Value::Null, "{carol:#}");
    assert_eq!(carol["last_bump"]["outcome"], "done", "{carol:#}");
    assert!(carol["last_bump"]["downtime_ms"].as_u64().unwrap() > 0, "{carol:#}");
    assert_eq!(site.status()["agent"]["state"], "idle");
    assert_eq!(site.status()["rollout"]["state"], "done");

    let history: Vec<serde_json::Value> = serde_json::from_str(&site.ok("t3pin history --json")).unwrap();
    let order: Vec<&str> = history.iter().rev().map(|bump| bump["user"].as_str().unwrap()).collect();
    assert_eq!(order, USERS, "the least active first, the deferred one last");
    poller.assert_gaps_only_in_own_bumps(&site, &history);
    site.enforce_to(0);
}

fn planning_changes_nothing(site: &Site) {
    assert_eq!(site.status()["pin"]["version"], GOOD);
    let look = |site: &Site| {
        let tree = "find /var/lib/t3pin /.t3pin /etc/t3pin /etc/t3-serve ! -path '*/journal.*' -printf '%p %T@ %s %i\\n' 2>/dev/null | sort";
        (site.untouched(&USERS), site.sh(tree).stdout, site.ok("t3pin history --json"))
    };
    let before = look(site);
    site.until("alice and bob have been quiet for long enough", |site| {
        site.ok("t3pin plan --json | jq -r '.steps[] | \"\\(.action) \\(.user)\"'")
            == "install null\nbump alice\nbump bob\ndefer carol"
    });
    let plan = site.ok("t3pin plan");
    assert!(plan.contains("at-work"), "says why: {plan}");
    assert!(plan.contains("not installed yet"), "{plan}");
    assert_eq!(look(site), before, "planning changed something");
}
