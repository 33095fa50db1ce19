//! The pin file: what is wrong with it is named, and changes nothing.

use crate::common::{GOOD, OLD, Site};

const PIN: &str = "/etc/t3pin/pin.toml";

#[test]
fn a_bad_pin_file_changes_nothing_names_file_line_and_key_and_is_taken_up_once_repaired() {
    let site = Site::with(&["alice", "bob"]);
    let users = ["alice", "bob"];
    let before = site.untouched(&users);
    let agent = site.ok("systemctl show -P MainPID t3pin.service");
    let bad = [
        ("version = \"^0.0.25\"\n", "line 1", "version"),
        ("version = \"0.0.x\"\n", "line 1", "version"),
        ("# the newest\nversion = \"latest\"\n", "line 2", "version"),
        ("version = 25\n", "line 1", "version"),
        ("version = \"0.0.25\"\nchannel = \"nightly\"\n", "line 2", "channel"),
        ("version = \"0.0.25\"\n\n[users.mallory]\nversion = \"0.0.24\"\n", "line 3", "users.mallory"),
        ("version = \"0.0.25\"\n[users.alice]\nversion = \"0.0.24\"\nwhy = \"?\"\n", "line 4", "users.alice.why"),
        ("version = \"0.0.25\"\nintegrity = \"sha1-abc\"\n", "line 2", "integrity"),
        ("version = \"0.0.25\n", "line 1", "TOML"),
        ("\n", "version", "missing"),
    ];
    for (text, line, key) in bad {
        site.write(PIN, text);
        is_refused(&site, &[line, key]);
    }
    site.pin(GOOD);
    site.ok(&format!("chmod 666 {PIN}"));
    is_refused(&site, &["666", "chmod"]);
    site.ok(&format!("chmod 644 {PIN} && chown alice {PIN}"));
    is_refused(&site, &["chown"]);
    site.ok(&format!("mv {PIN} /root/pin.toml && ln -s /root/pin.toml {PIN}"));
    is_refused(&site, &["link"]);
    site.ok(&format!("rm {PIN}"));
    is_refused(&site, &["does not exist"]);
    assert_eq!(site.untouched(&users), before, "something was changed");

    site.pin(GOOD);
    let pin = &site.status()["pin"];
    assert!(pin["valid"] == true && pin["version"] == GOOD && pin["error"].is_null(), "{pin:#}");
    assert_eq!(site.untouched(&users), before, "editing the file alone changes nobody");
    site.enforce_to(0);
    assert_eq!(site.ok("systemctl show -P MainPID t3pin.service"), agent, "the agent was restarted");
    for user in users {
        site.await_state(user, "settled");
        site.is_whole(user, GOOD, "31");
    }

    // The last good pin outlives the agent.
    site.write(PIN, "version = \"newest\"\n");
    let before = site.untouched(&users);
    site.ok("systemctl restart t3pin.service");
    let pin = &site.status()["pin"];
    assert!(pin["valid"] == false && pin["version"] == GOOD, "{pin:#}");
    site.enforce_to(5);
    assert_eq!(site.untouched(&users), before);
}

/// Enforcing is refused with a message that has the file and these words; the status says the same, and what stays in force.
#[track_caller]
fn is_refused(site: &Site, words: &[&str]) {
    let text = site.sh(&format!("cat {PIN}")).stdout;
    let refused = site.enforce();
    assert_eq!(refused.code, 5, "{text}: {refused}");
    let status = site.status();
    let error = status["pin"]["error"].as_str().unwrap_or_else(|| panic!("{text}: {status:#}")).to_owned();
    for words in words.iter().chain(&[PIN]) {
        assert!(refused.stdout.contains(words), "{text}: the answer does not say \"{words}\": {refused}");
        assert!(error.contains(words), "{text}: the status does not say \"{words}\": {error}");
    }
    assert!(refused.stdout.contains("0.0.24 stays pinned"), "{text}: {refused}");
    assert_eq!(status["pin"]["valid"], false, "{text}");
    assert_eq!(status["pin"]["version"], OLD, "{text}");
    let shown = site.ok("t3pin status");
    assert!(shown.contains(PIN), "{text}: {shown}");
    assert!(site.ok("journalctl --unit=t3pin --output=cat").contains(&error), "{text}: not in the journal: {error}");
}
