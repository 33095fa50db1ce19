//! A host that has hardly any time for a server says nothing about the server's version.

use crate::common::{GOOD, OLD, Site};

/// Little for a server, much for a probe of one that is up.
const SHORT: &str = "[health]\nstart_deadline = \"1s\"\nstart_ceiling = \"CEILING\"\n[drain]\nretry_after = \"10min\"\n";
/// One processor is for the server and a crowd, each of which has a session of its own and with it the same share (sched(7), autogroups).
const CROWDED: &str = "[Service]\nCPUAffinity=0\n";
const CROWD: &str = "systemd-run --quiet --collect --unit=crowd -p CPUAffinity=0 \
    sh -c 'for n in $(seq 30); do setsid sh -c \"while :; do :; done\" & done; wait'";

#[test]
fn a_server_that_gets_no_time_from_the_host_is_waited_for_and_condemns_no_version() {
    let site = Site::with(&["alice"]);
    site.write("/etc/systemd/system/t3-serve@alice.service.d/crowded.conf", CROWDED);
    site.ok("systemctl daemon-reload");
    site.ok(CROWD);
    site.settings(&SHORT.replace("CEILING", "2s"));
    site.pin(GOOD);
    let put_back = site.enforce();
    assert!(matches!(put_back.code, 4 | 5) && put_back.stdout.contains("overloaded"), "{put_back}\n{}", site.journal());
    assert_eq!(site.status()["quarantine"], serde_json::json!([]), "the host was at fault");
    assert_eq!(site.instance("alice")["bound_version"], OLD);

    site.settings(&SHORT.replace("CEILING", "10min"));
    let enforced = site.enforce();
    assert_eq!(enforced.code, 0, "it only takes longer: {enforced}\n{}", site.journal());
    site.ok("systemctl stop crowd");
    site.await_state("alice", "settled");
    site.is_whole("alice", GOOD, "31");
}
