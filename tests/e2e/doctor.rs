//! What is missing on a host is told before a bump needs it.

use serde_json::Value;

use crate::common::Site;

/// What was found about one thing.
fn found(report: &Value, check: &str) -> (String, String) {
    let finding = report["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == check);
    let finding = finding.unwrap_or_else(|| panic!("{check} is not in {report:#}"));
    (finding["health"].as_str().unwrap().to_owned(), finding["what"].as_str().unwrap().to_owned())
}

#[test]
fn the_doctor_finds_a_well_host_well_and_names_what_would_keep_a_bump_from_being_done() {
    let site = Site::with(&["alice", "bob"]);
    let before = site.untouched(&["alice", "bob"]);
    let well = site.sh("t3pin doctor");
    assert!(well.code == 0 && !well.stdout.contains("PROBLEM"), "{well}");
    assert!(well.stdout.contains("is ready for a bump"), "{well}");
    let refused = site.as_user("alice", "t3pin doctor");
    assert_eq!(refused.code, 5, "the host is not alice's to look at: {refused}");

    site.ok("systemctl stop t3pin-enforce.timer; mv /usr/bin/make /usr/bin/make-was");
    site.ok("chmod 0 /home/bob/.t3/userdata");
    let sick = site.sh("t3pin doctor --json");
    assert_eq!(sick.code, 6, "{sick}");
    let report: Value = serde_json::from_str(&sick.stdout).unwrap();
    assert_eq!(found(&report, "t3pin-enforce.timer").0, "problem", "{report:#}");
    let compiler = found(&report, "compiler");
    assert!(compiler.0 == "problem" && compiler.1.starts_with("make not found"), "{report:#}");
    assert_ne!(found(&report, "bob").0, "ok", "{report:#}");
    assert_eq!(found(&report, "alice").0, "ok", "{report:#}");
    site.ok("systemctl start t3pin-enforce.timer; mv /usr/bin/make-was /usr/bin/make; chmod 755 /home/bob/.t3/userdata");
    assert_eq!(site.sh("t3pin doctor").code, 0);
    assert_eq!(site.untouched(&["alice", "bob"]), before, "it only looks");
}
