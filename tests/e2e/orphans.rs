//! Installs and rehearsals whose agent dies: they end, whether it comes back or not, and nothing of them stays.

use crate::common::{GOOD, OLD, Site};

/// Back at once, however often it dies.
const FAST: &str = "[Unit]\nStartLimitBurst=1000\n[Service]\nRestartSec=100ms\n";
/// Dead for good: nobody starts it again, and nobody steps in for it.
const NEVER: &str = "[Unit]\nOnFailure=\n[Service]\nExecCondition=/bin/false\n";
const NEVER_AT: &str = "/etc/systemd/system/t3pin.service.d/never.conf";

/// The processes of all sandboxes of this kind, each with the time of its start: `PID:TICKS`.
fn processes(site: &Site, units: &str) -> Vec<String> {
    let list = site.ok(&format!(
        r#"for unit in $(systemctl list-units --plain --no-legend --state=active '{units}' | cut -d' ' -f1); do
            for pid in $(cat "/sys/fs/cgroup$(systemctl show --property=ControlGroup --value "$unit")/cgroup.procs"); do
                stat=$(cat "/proc/$pid/stat") && set -- ${{stat##*) }} && echo "$pid:${{20}}"
            done
        done 2>/dev/null; true"#
    ));
    list.lines().map(str::to_owned).collect()
}

/// Which of `processes` live.
fn alive(site: &Site, processes: &[String]) -> String {
    site.ok(&format!(
        r#"for one in {}; do
            stat=$(cat "/proc/${{one%:*}}/stat") && set -- ${{stat##*) }} && [ "$1" != Z ] && [ "${{20}}" = "${{one#*:}}" ] && echo "$one"
        done 2>/dev/null; true"#,
        processes.join(" ")
    ))
}

/// Waits until a sandbox of this kind has at least so many processes.
#[track_caller]
fn caught_in(site: &Site, units: &str, at_least: usize) -> Vec<String> {
    let mut caught = vec![];
    site.until(&format!("{units} runs"), |site| {
        caught = processes(site, units);
        caught.len() >= at_least
    });
    caught
}

#[test]
fn what_a_killed_agent_leaves_running_ends_and_the_rollout_goes_on() {
    let users = ["alice", "bob"];
    let site = Site::with(&users);
    site.write("/etc/systemd/system/t3pin.service.d/fast.conf", FAST);
    site.settings("[health]\nstart_deadline = \"4s\"\nstart_ceiling = \"4s\"\n");
    site.ok("systemctl daemon-reload");
    let before = site.untouched(&users);

    never_back(&site, "0.0.93", 2, &before);
    never_back(&site, "0.0.105", 50, &before);

    site.settings("");
    site.pin(GOOD);
    site.ok("systemd-run --quiet --collect t3pin enforce --wait");
    for units in ["t3pin-install-*", "t3pin-rehearse-*"] {
        let caught = caught_in(&site, units, 2);
        site.kill_agent();
        site.until(&format!("{units} of the dead agent have ended"), |site| alive(site, &caught).is_empty());
        site.until("the agent is back", |site| site.sh("t3pin status").code != 7);
        assert_eq!(site.untouched(&users), before, "{units}: somebody was touched");
    }
    for user in users {
        site.await_state(user, "settled");
        site.is_whole(user, GOOD, "31");
    }
    assert_eq!(site.status()["quarantine"], serde_json::json!([]));
    assert_eq!(
        (site.sandboxes(), site.ok("ls -A /var/lib/t3pin/staging /var/lib/t3pin/holds")),
        (String::new(), "/var/lib/t3pin/holds:\n\n/var/lib/t3pin/staging:".to_owned())
    );
    assert_eq!(site.ok("find /home -name .t3pin"), "", "copies");
}

/// The agent dies in the middle of a rehearsal of `version`, which does not end by itself or leaves children, and does not come back for as long
/// as the sandbox is there.
#[track_caller]
fn never_back(site: &Site, version: &str, processes: usize, before: &[String]) {
    site.pin(version);
    site.ok("systemd-run --quiet --collect t3pin enforce --wait");
    let caught = caught_in(site, "t3pin-rehearse-*", processes);
    let deadline = site.ok("systemctl show --property=RuntimeMaxUSec --value 't3pin-rehearse-*'");
    assert_eq!(deadline, "3min 4s", "systemd ends it at the latest then, whatever hangs in it");
    site.write(NEVER_AT, NEVER);
    site.ok("systemctl daemon-reload");
    site.kill_agent();
    site.until(&format!("{version}: the sandbox ends without an agent"), |site| {
        site.sandboxes().is_empty() && alive(site, &caught).is_empty()
    });
    assert_ne!(site.sh("systemctl is-active --quiet t3pin.service").code, 0);
    assert_eq!(site.untouched(&["alice", "bob"]), before, "{version}: somebody was touched");
    // Pinned back before the agent is there again, so that the rollout does not go on with that.
    site.pin(OLD);
    site.ok(&format!("rm {NEVER_AT} && systemctl daemon-reload && systemctl reset-failed && systemctl start t3pin.socket t3pin"));
    site.enforce_to(0);
    site.nothing_is_left(version);
    assert_eq!(site.untouched(&["alice", "bob"]), before, "{version}: somebody was touched");
}
