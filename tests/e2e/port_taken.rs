//! Another process of the user's own on the server's port: no fault of the version's, whatever it answers.

use crate::common::{GOOD, OLD, Site};

/// Takes the port as soon as it is free, and answers nobody.
const SQUATTER: &str = "import socket, time
def take(port):
    while True:
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(('127.0.0.1', port))
            s.listen()
            return s
        except OSError:
            s.close()
s = take(PORT)
time.sleep(600)
";

#[test]
fn a_process_of_the_users_own_that_takes_the_port_condemns_no_version() {
    let site = Site::with(&["alice", "bob"]);
    site.settings("[health]\nstart_deadline = \"3s\"\nstart_ceiling = \"6s\"\n[drain]\nretry_after = \"10min\"\n");
    let before = site.untouched(&["bob"]);
    let squatter = SQUATTER.replace("PORT", &site.port("alice").to_string());
    site.write("/home/alice/squatter.py", &squatter);
    site.ok("systemd-run --quiet --collect --uid=alice --unit=squatter python3 /home/alice/squatter.py");
    site.pin(GOOD);
    let enforced = site.enforce_to(6);
    assert!(enforced.stdout.contains("alice is stuck"), "neither version can have the port: {enforced}");
    let detail = site.instance("alice")["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("python3 (pid ") && detail.contains("which is not of the server's unit"), "{detail}");
    assert_eq!(site.status()["quarantine"], serde_json::json!([]));
    assert_eq!(site.untouched(&["bob"]), before, "the rollout stops there");

    site.ok("systemctl stop squatter");
    // What is stuck is tried again by itself, and at every start of the agent.
    site.ok("systemctl restart t3pin");
    site.until("alice is back", |site| site.serves("alice") == OLD && site.instance("alice")["state"] != "stuck");
    site.is_whole("alice", OLD, "30");
    site.enforce_to(0);
    for user in ["alice", "bob"] {
        site.await_state(user, "settled");
        site.is_whole(user, GOOD, "31");
    }
}
