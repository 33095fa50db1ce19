//! Whatever dies, and whenever: it ends somewhere sane, by itself.

use crate::common::{GOOD, OLD, Site};

/// Kills the agent as a crash would.
const KILL: &str = "kill -KILL \"$agent\"";

/// Orders something in the background and, as soon as the journal says that the bump of alice has got to `phase`, runs `then`.
/// That is a few ms later: the phase may be over by then.
#[track_caller]
fn in_phase(site: &Site, order: &str, phase: &str, then: &str) {
    let output = site.sh(&format!(
        "agent=$(systemctl show --property=MainPID --value t3pin.service)
         cursor=$(journalctl --quiet --lines=0 --show-cursor | sed -n 's/^-- cursor: //p')
         systemd-run --quiet --collect t3pin {order}
         timeout 60 journalctl --follow --output=cat --after-cursor=\"$cursor\" T3PIN_USER=alice T3PIN_PHASE='{phase}' |
             grep --quiet --max-count=1 . && {then}"
    ));
    assert_eq!(output.code, 0, "the bump never got to {phase}: {output}\n{}", site.journal());
}

/// Waits until nothing is under way, and everything of alice's is of one version. Returns that version.
#[track_caller]
fn ends_sane(site: &Site, story: &str, work: &str) -> String {
    site.until(&format!("{story}: nothing is under way any more"), |site| {
        let answer = site.sh("t3pin status --json");
        let status: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
        let state = status["instances"][0]["state"].as_str().unwrap_or("none").to_owned();
        let agent = status["agent"]["state"].as_str().unwrap_or("none").to_owned();
        assert_ne!(state, "stuck", "{story}: {status:#}");
        matches!(state.as_str(), "settled" | "held-back" | "pending") && matches!(agent.as_str(), "idle" | "draining")
    });
    let version = site.instance("alice")["bound_version"].as_str().unwrap().to_owned();
    let level = if version == GOOD { "31" } else { "30" };
    site.is_whole("alice", &version, level);
    assert_eq!(site.work("alice"), work, "{story}: something of the work is missing");
    assert_eq!(site.ok("ls -A /var/lib/t3pin/holds"), "", "{story}");
    assert_eq!(site.ok("systemctl list-units --all --plain --no-legend 't3pin-rehearse-*' 't3pin-install-*'"), "", "{story}");
    version
}

/// Back to where a round begins: on the old version, pinned to it, the good one not held against anybody.
#[track_caller]
fn back_to_old(site: &Site) {
    site.pin(OLD);
    if site.instance("alice")["bound_version"] == GOOD {
        let done = site.sh("t3pin rollback alice --force");
        assert_eq!(done.code, 0, "{done}\n{}", site.journal());
    }
    site.enforce_to(0);
    site.ok("t3pin versions clear 0.0.25");
}

/// A site whose agent may be killed often: one restart after the other would make systemd give up, which is another story.
fn site_to_kill_in() -> Site {
    let site = Site::with(&["alice"]);
    site.write("/etc/systemd/system/t3pin.service.d/fast.conf", "[Unit]\nStartLimitBurst=1000\n[Service]\nRestartSec=100ms\n");
    site.ok("systemctl daemon-reload");
    site
}

#[test]
fn an_agent_killed_before_the_new_version_runs_ends_somewhere_sane() {
    let site = site_to_kill_in();
    let work = site.work("alice");
    for phase in ["Rehearsed", "Ready", "Baselined", "Seeded", "Quiesced", "Secured", "Switched"] {
        site.pin(GOOD);
        in_phase(&site, "enforce --wait", phase, KILL);
        let version = ends_sane(&site, &format!("killed in {phase}"), &work);
        assert_eq!(site.status()["quarantine"], serde_json::json!([]), "killed in {phase}: not the version's fault");
        if version == OLD && ["Rehearsed", "Secured"].contains(&phase) {
            let enforced = site.enforce();
            assert_eq!(enforced.code, 0, "killed in {phase}; the next enforcement goes through: {enforced}\n{}", site.journal());
            site.is_whole("alice", GOOD, "31");
        }
        back_to_old(&site);
    }
}

#[test]
fn an_agent_killed_once_the_new_version_runs_ends_somewhere_sane_and_on_the_way_back_too() {
    let site = site_to_kill_in();
    let work = site.work("alice");
    for phase in ["Started", "Verified", "Soaking", "Settled"] {
        site.pin(GOOD);
        in_phase(&site, "enforce --wait", phase, KILL);
        let version = ends_sane(&site, &format!("killed in {phase}"), &work);
        assert_eq!(version, GOOD, "killed in {phase}: what runs well by then is kept");
        back_to_old(&site);
    }
    for phase in ["RollingBack(Restored)", "RollingBack(Restarted)"] {
        site.pin(GOOD);
        site.enforce_to(0);
        in_phase(&site, "rollback alice", phase, KILL);
        let version = ends_sane(&site, &format!("killed in {phase}"), &work);
        assert_eq!(version, OLD, "killed in {phase}: the rollback goes on");
        back_to_old(&site);
    }
}

#[test]
fn a_host_that_goes_down_in_the_middle_of_a_bump_comes_back_sane() {
    let mut site = Site::with(&["alice"]);
    let work = site.work("alice");
    for (phase, orderly) in [("Switched", false), ("Secured", true), ("Verified", false), ("Verified", true)] {
        site.pin(GOOD);
        in_phase(&site, "enforce --wait", phase, "true");
        if orderly {
            site.reboot();
        } else {
            site.power_cut();
        }
        let story = format!("{} in {phase}", if orderly { "rebooted" } else { "power cut" });
        ends_sane(&site, &story, &work);
        back_to_old(&site);
    }
}

#[test]
fn without_the_registry_nothing_changes_and_npm_says_why() {
    let site = Site::with(&["alice", "bob"]);
    let before = site.untouched(&["alice", "bob"]);
    site.ok("systemctl stop test-registry");
    site.pin(GOOD);
    let refused = site.enforce_to(5);
    assert!(refused.stdout.contains("ECONNREFUSED"), "npm's own words: {refused}");
    assert_eq!(site.untouched(&["alice", "bob"]), before, "somebody was touched");
    assert_eq!(
        site.ok("ls -A /var/lib/t3pin/versions /var/lib/t3pin/staging"),
        "/var/lib/t3pin/staging:\n\n/var/lib/t3pin/versions:\n0.0.24"
    );
    let status = site.status();
    assert_eq!(status["quarantine"], serde_json::json!([]), "the version is not to blame: {status:#}");
    let alice = site.instance("alice");
    assert!(alice["detail"].as_str().unwrap_or_default().contains("ECONNREFUSED"), "{alice:#}");

    // What is installed already needs no registry.
    let enrolled = site.sh("t3pin enroll carol --version 0.0.24");
    assert_eq!(enrolled.code, 0, "{enrolled}");

    site.ok("systemctl start test-registry");
    site.until("the registry is up again", |site| site.sh("npm ping").code == 0);
    site.enforce_to(0);
    site.is_whole("bob", GOOD, "31");
}

#[test]
fn a_frozen_host_changes_no_version_until_it_is_thawed() {
    let site = Site::with(&["alice", "bob"]);
    site.turn("bob", "at-work", "start");
    site.pin(GOOD);
    site.enforce_to(3);
    site.await_state("alice", "settled");
    let before = site.runs(&["alice", "bob"]);

    site.ok("t3pin freeze --reason conference");
    site.turn("bob", "at-work", "end");
    let refused = site.enforce_to(5);
    assert!(refused.stdout.contains("conference") && refused.stdout.contains("t3pin thaw"), "{refused}");
    let plan = site.ok("t3pin plan");
    assert!(plan.contains("Nothing would be done") && plan.contains("conference"), "{plan}");
    let frozen = |site: &Site| {
        let status = site.status();
        assert_eq!(status["freeze"]["reason"], "conference", "{status:#}");
        assert_eq!(status["agent"]["state"], "frozen", "{status:#}");
        assert_eq!(site.instance("bob")["state"], "held-back", "{status:#}");
    };
    frozen(&site);
    site.ok("systemctl restart t3pin");
    site.until("the agent has started again", |site| site.status()["agent"]["state"] != "recovering");
    frozen(&site);
    // Several looks at those who wait go by.
    site.ok("sleep 2");
    assert_eq!(site.runs(&["alice", "bob"]), before, "a frozen host was changed");
    assert_eq!(site.serves("bob"), OLD);

    site.ok("t3pin thaw");
    site.until("bob is bumped without being asked for again", |site| site.instance("bob")["running_version"] == GOOD);
    site.await_state("bob", "settled");
    site.is_whole("bob", GOOD, "31");
    assert_eq!(site.runs(&["alice"])[0], before[0]);
}
