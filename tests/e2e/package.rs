//! The package itself: no server stops for it, and nothing that cannot be made again goes with it.

use crate::common::{GOOD, OLD, Site};

const USERS: [&str; 2] = ["alice", "bob"];
const APT: &str = "DEBIAN_FRONTEND=noninteractive apt-get --yes --quiet --no-install-recommends";

#[test]
fn installing_upgrading_removing_and_purging_stop_no_server_and_lose_no_data() {
    let site = Site::with(&USERS);
    // Something of everything that has to stay: a snapshot of alice's, a salvage of bob's.
    site.pin(GOOD);
    site.enforce_to(0);
    for user in USERS {
        site.await_state(user, "settled");
    }
    site.ok("t3pin rollback bob 2>&1");
    let before = site.untouched(&USERS);
    let precious = |site: &Site| {
        site.ok("find /var/lib/t3pin/snapshots /.t3pin /var/lib/t3pin/versions /var/lib/t3pin/bindings /etc/t3-serve /etc/t3pin/pin.toml \
                 -printf '%p %m %U %s %T@ %l\\n' | sort")
    };
    let kept = precious(&site);
    assert!(kept.contains("/.t3pin/bob/") && kept.contains("/snapshots/alice/"), "{kept}");
    let agent = |site: &Site| site.ok("systemctl show -P MainPID t3pin.service");
    let first = agent(&site);

    // The very package that is installed, under a name without its version.
    site.ok("cp /root/t3pin_*.deb /root/t3pin.deb");
    site.ok(&format!("{APT} install --reinstall /root/t3pin.deb 2>&1"));
    assert_eq!(site.untouched(&USERS), before, "installing again touched somebody");

    site.ok("cd /root && dpkg-deb --raw-extract t3pin.deb next && sed -i 's/^Version: .*/&+next/' next/DEBIAN/control && \
             dpkg-deb --build --root-owner-group next next.deb");
    site.ok(&format!("{APT} install /root/next.deb 2>&1"));
    assert!(site.ok("dpkg-query --show t3pin").ends_with("+next"));
    assert_ne!(agent(&site), first, "the old agent still runs");
    assert_eq!(site.untouched(&USERS), before, "upgrading touched somebody");
    site.is_whole("alice", GOOD, "31");
    assert_eq!(site.ok("systemctl is-active t3pin.service t3pin.socket t3pin-enforce.timer"), "active\nactive\nactive");

    let before = site.untouched(&USERS);
    site.ok(&format!("{APT} remove t3pin 2>&1"));
    assert_eq!(site.untouched(&USERS), before, "removing touched somebody");
    assert_eq!(
        site.sh("systemctl is-active t3pin.service t3pin.socket t3pin-enforce.timer").stdout,
        "inactive\ninactive\ninactive\n"
    );
    assert_eq!((site.serves("alice"), site.serves("bob")), (GOOD.to_owned(), OLD.to_owned()));
    assert_eq!(precious(&site), kept);

    let said = site.ok(&format!("{APT} purge t3pin 2>&1"));
    for place in ["/var/lib/t3pin", "/.t3pin", "/etc/t3-serve"] {
        assert!(
            said.lines().any(|line| line.starts_with("t3pin:") && line.contains(place)),
            "does not say {place} is left: {said}"
        );
    }
    assert_eq!(site.untouched(&USERS), before, "purging touched somebody");
    assert_eq!(precious(&site), kept, "purging removed something that cannot be made again");

    site.ok(&format!("{APT} install /root/next.deb 2>&1"));
    assert_eq!(site.untouched(&USERS), before, "installing after a purge touched somebody");
    assert_eq!(site.instance("alice")["state"], "settled");
    assert_eq!(site.instance("bob")["state"], "held-back", "what was decided before is still known");
    site.is_whole("alice", GOOD, "31");
    site.is_whole("bob", OLD, "30");
}
