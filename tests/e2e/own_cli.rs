//! The user's own `t3`, and pairing credentials for others: always of exactly the version that serves.

use serde_json::Value;

use crate::common::{GOOD, OLD, Site};

/// A global t3 that says so, and would be in everybody's PATH.
const GLOBAL: &str = "printf '#!/bin/sh\\necho global \"$@\"\\n' >/usr/local/bin/t3; chmod 755 /usr/local/bin/t3";

#[test]
fn the_t3_of_a_login_shell_is_the_one_that_serves() {
    let site = Site::with(&["alice"]);
    site.ok(GLOBAL);
    let login = |user: &str, script: &str| site.as_user(user, &format!("bash -lc '{script}'"));
    let told = |user: &str, script: &str| login(user, script).stdout.trim().to_owned();
    assert_eq!(told("alice", "command -v t3; t3 --version"), format!("/usr/lib/t3pin/bin/t3\nt3 v{OLD}"));
    assert_eq!(told("dave", "command -v t3; t3 a -b"), "/usr/local/bin/t3\nglobal a -b", "who has no server is left alone");
    assert_eq!(site.as_user("dave", "/usr/lib/t3pin/bin/t3 a \"b  c\"").stdout, "global a b  c\n", "and gets the next one");
    let minted = login("alice", "t3 auth pairing create --json --label \"my phone\"");
    let link: Value = serde_json::from_str(&minted.stdout).unwrap_or_else(|error| panic!("{error}: {minted}"));
    assert_eq!(link["label"], "my phone", "arguments arrive as they are");
    let cookie = site.exchange("alice", link["credential"].as_str().unwrap()).unwrap();
    assert!(site.session_ok("alice", &cookie));
    assert_eq!(login("alice", "t3 auth pairing nonsense").code, 1, "its exit code is t3's own");

    site.pin(GOOD);
    site.enforce_to(0);
    site.await_state("alice", "settled");
    assert_eq!(told("alice", "t3 --version"), format!("t3 v{GOOD}"), "it moves with the server");
    site.ok("rm /usr/local/bin/t3");
    let none = site.as_user("dave", "/usr/lib/t3pin/bin/t3 --version");
    assert_eq!(none.code, 127, "{none}");
    assert!(none.stderr.contains("t3pin enroll dave"), "says what to do: {none}");
    site.ok("rm -r /usr/lib/t3pin");
    assert_eq!(login("alice", "echo $PATH").stdout.matches("t3pin").count(), 0, "without the package the PATH is as ever");
}

#[test]
fn while_the_data_is_held_nothing_opens_it() {
    let site = Site::with(&["alice"]);
    let t3 = "/usr/lib/t3pin/bin/t3";
    site.ok("systemctl stop t3-serve@alice; echo b000099 >/var/lib/t3pin/holds/alice");
    let before = site.untouched(&["alice"]);
    let version = site.as_user("alice", &format!("{t3} --version && {t3} auth --help | head -n 1"));
    assert!(version.code == 0 && version.stdout.starts_with(&format!("t3 v{OLD}\n")), "{version}");
    for command in ["auth pairing list", "serve", ""] {
        site.as_user(
            "alice",
            &format!("{t3} {command} >/tmp/held-$$ 2>&1; echo $? >>/tmp/held-$$; mv /tmp/held-$$ /tmp/refused-$$ & disown"),
        );
    }
    let minted = site.sh("t3pin mint alice --json");
    assert_eq!((minted.code, minted.stdout.contains("\"deferred\"")), (3, true), "{minted}");
    site.until("all of them are refused", |site| site.sh("ls /tmp/refused-*").stdout.lines().count() == 3);
    assert_eq!(site.ok("tail -qn 1 /tmp/refused-*"), "3\n3\n3", "{}", site.ok("cat /tmp/refused-*"));
    assert_eq!(site.untouched(&["alice"]), before, "something opened the data that is held");

    site.as_user("alice", &format!("({t3} auth pairing list --json >/tmp/waited; touch /tmp/went-on) 2>/tmp/told & disown"));
    site.until("it says that it waits", |site| site.sh("grep -q waiting /tmp/told").code == 0);
    site.ok("rm /var/lib/t3pin/holds/alice");
    site.until("it goes on when the hand-over is over", |site| site.sh("test -e /tmp/went-on").code == 0);
    assert_eq!(site.ok("cat /tmp/waited"), "[]");
}

#[test]
fn minting_is_for_root_the_group_and_oneself_and_leaves_no_trace_of_the_credential() {
    let site = Site::with(&["alice", "bob"]);
    let minted: Value = serde_json::from_str(&site.ok("t3pin mint alice --ttl 10min --label proxy --json")).unwrap();
    assert_eq!((minted["version"].as_str(), minted["user"].as_str()), (Some(OLD), Some("alice")), "{minted}");
    let credential = minted["credential"].as_str().unwrap();
    let good_for = site.ok(&format!("echo $(( $(date -d '{}' +%s) - $(date +%s) ))", minted["expires_at"].as_str().unwrap()));
    assert!((540..=600).contains(&good_for.parse::<i64>().unwrap()), "{good_for} s");
    assert_eq!(site.query("alice", "SELECT label FROM auth_pairing_links WHERE label = 'proxy'"), "proxy");
    let leaks = |credential: &str| {
        let journal = site.ok("journalctl --no-pager -o export").contains(credential);
        let places = "/var/lib/t3pin /run/t3pin /var/log /proc/[0-9]*/cmdline /proc/[0-9]*/environ";
        journal || site.sh_with_input(&format!("grep -rqsFf - {places}"), credential).code == 0
    };
    assert!(!leaks(credential), "the credential was written down");
    let cookie = site.exchange("alice", credential).unwrap();
    assert!(site.session_ok("alice", &cookie));

    let own = site.as_user("bob", "t3pin mint");
    assert_eq!(own.code, 0, "{own}");
    assert!(site.exchange("bob", own.stdout.trim()).is_ok(), "without --json it is the credential and nothing else: {own}");
    let others = site.as_user("bob", "t3pin mint alice");
    assert_eq!((others.code, others.stdout.as_str()), (5, ""), "{others}");
    assert_eq!(site.as_user("dave", "t3pin mint").code, 5, "no server, no credential");
    site.ok("usermod --append --groups t3pin dave");
    site.until("the agent knows of the new member", |site| site.as_user("dave", "t3pin mint alice").code == 0);

    // What nobody can pair with is not made.
    site.ok("systemctl stop t3-serve@alice");
    let before = site.db_hash("alice");
    let down = site.sh("t3pin mint alice");
    assert_eq!((down.code, down.stdout.as_str()), (5, ""), "{down}");
    assert_eq!(site.db_hash("alice"), before);
    // A server of another version: its database would be moved, or the credential be worthless.
    site.write("/etc/t3pin/pin.toml", &format!("version = \"{OLD}\"\n[users.bob]\nversion = \"{GOOD}\"\n"));
    site.enforce_to(0);
    site.ok("systemctl start t3-serve@alice");
    site.until("alice's server answers", |site| site.serves("alice") == OLD);
    let minted: Value = serde_json::from_str(&site.ok("t3pin mint bob --json")).unwrap();
    assert_eq!(minted["version"], GOOD);
    site.ok("ln -sfn ../versions/0.0.25 /var/lib/t3pin/bindings/alice");
    let wrong = site.sh("t3pin mint alice");
    assert_eq!((wrong.code, site.level("alice").as_str()), (5, "30"), "{wrong}");
}
