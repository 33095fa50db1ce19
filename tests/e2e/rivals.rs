//! Something else that manages a user's server is found before anything is touched, and the bump goes on when it is gone.

use crate::common::{GOOD, OLD, Site};

const UNIT: &str = "/home/alice/.config/systemd/user/t3code.service";
const STATE: &str = "runtime/service-state.json";

/// alice's own systemd, without a login.
fn own_systemd(site: &Site) {
    site.write("/etc/systemd/system/user@.service.d/test.conf", "[Service]\nEnvironment=XDG_RUNTIME_DIR=/run/user/%i\n");
    site.ok("systemctl daemon-reload && systemctl start user@1001.service");
}

#[track_caller]
fn own_service(site: &Site, command: &str) {
    let done = site.as_user("alice", &format!("export XDG_RUNTIME_DIR=/run/user/$(id -u); {command}"));
    assert_eq!(done.code, 0, "{command}: {done}");
}

#[test]
fn who_runs_t3s_own_service_is_refused_untouched_and_bumped_by_itself_once_it_is_gone() {
    let site = Site::with(&["alice", "bob"]);
    own_systemd(&site);
    own_service(
        &site,
        "mkdir -p ~/.config/systemd/user ~/.t3/runtime
         printf '[Service]\\nExecStart=/bin/sleep infinity\\n' >~/.config/systemd/user/t3code.service
         printf '{\"protocol\":1,\"activeVersion\":\"0.0.30\",\"update\":{\"id\":\"u\",\"fromVersion\":\"0.0.30\",\"targetVersion\":\"0.0.31\",\"status\":\"pending\"}}' >~/.t3/runtime/service-state.json
         systemctl --user daemon-reload && systemctl --user start t3code.service",
    );
    let before = site.untouched(&["alice"]);
    site.pin(GOOD);
    let plan = site.ok("t3pin plan");
    let refused = site.enforce_to(5);
    let status = site.ok("t3pin status alice");
    let own = site.as_user("alice", "t3pin status").stdout;
    for (who, told) in [("plan", &plan), ("enforce", &refused.stdout), ("status", &status), ("alice's own status", &own)] {
        for part in [UNIT, STATE, "which runs (pid", "0.0.31", "t3 service uninstall", "t3pin unenroll alice"] {
            assert!(told.contains(part), "{who} does not say {part}:\n{told}");
        }
    }
    assert_eq!(site.instance("alice")["state"], "refused");
    assert!(!site.journal().contains("alice: rehearsing"), "touched before it was refused");
    assert_eq!(site.untouched(&["alice"]), before);
    site.await_state("bob", "settled");
    site.is_whole("bob", GOOD, "31");

    // One sign after the other goes; the last one holds as much as the first.
    own_service(&site, "systemctl --user stop t3code.service && rm ~/.t3/runtime/service-state.json");
    let refused = site.enforce_to(5);
    assert!(refused.stdout.contains(UNIT) && !refused.stdout.contains(STATE) && !refused.stdout.contains("pid"), "{refused}");
    own_service(&site, "rm ~/.config/systemd/user/t3code.service && systemctl --user mask t3code.service");
    site.await_state("alice", "settled");
    site.is_whole("alice", GOOD, "31");
}

#[test]
fn a_second_server_on_the_same_data_is_refused_and_the_bump_goes_on_once_it_is_gone() {
    let site = Site::with(&["alice"]);
    let by_hand = "setsid /var/lib/t3pin/versions/0.0.24/bin/t3 serve --host 127.0.0.1 --port 4999 >/dev/null 2>&1 & \
        until curl --silent --fail --max-time 1 --output /dev/null http://127.0.0.1:4999/; do sleep 0.1; done";
    assert_eq!(site.as_user("alice", by_hand).code, 0);
    let pid = site.ok("ss --listening --tcp --numeric --processes --no-header sport = 4999 | grep -o 'pid=[0-9]*' | cut -d= -f2");
    let run = site.runs(&["alice"]);
    site.pin(GOOD);
    let refused = site.enforce_to(5);
    for part in [format!("(pid {pid})"), format!("kill {pid}"), "state.sqlite".to_owned()] {
        assert!(refused.stdout.contains(&part), "does not say {part}: {refused}");
    }
    assert_eq!((site.runs(&["alice"]), site.level("alice").as_str()), (run, "30"));
    assert!(!site.journal().contains("alice: rehearsing"), "touched before it was refused");
    site.ok(&format!("kill {pid}"));
    site.await_state("alice", "settled");
    site.is_whole("alice", GOOD, "31");
}

#[test]
fn enrolling_is_refused_beside_another_manager_and_no_file_of_a_users_stops_anything_else() {
    let site = Site::with(&["alice"]);
    let refused = |what: &str| {
        let refused = site.sh("t3pin enroll dave");
        assert_eq!(refused.code, 5, "{what}: {refused}");
        assert!(refused.stdout.contains(STATE) && refused.stdout.contains("t3 service uninstall"), "{what}: {refused}");
        assert_eq!(site.sh("ls /etc/t3-serve/dave.env /var/lib/t3pin/bindings/dave").stdout, "", "a refusal leaves nothing");
    };
    site.as_user("dave", "mkdir -p ~/.t3/runtime && mkfifo ~/.t3/runtime/service-state.json");
    refused("a FIFO");
    site.as_user("dave", "cd ~/.t3/runtime && rm service-state.json && ln -s /dev/zero service-state.json");
    refused("a file without end");
    site.as_user("dave", "cd ~/.t3/runtime && rm service-state.json && ln -s /etc/shadow service-state.json");
    refused("what only root may read");
    site.as_user("dave", "rm ~/.t3/runtime/service-state.json");
    site.ok("t3pin enroll dave 2>&1");
    site.is_whole("dave", OLD, "30");
}
