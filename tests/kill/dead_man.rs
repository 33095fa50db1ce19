//! The agent does not come back: it cannot stay up, or cannot even read its journal. Nobody is left half-way for that.

use std::time::Duration;

use crate::matrix::{Death, GOOD, Matrix, OLD};

const LONG: Duration = Duration::from_secs(120);

/// Given up after a few starts, as on every host, only sooner.
const FEW_STARTS: &str = "[Unit]\nStartLimitBurst=3\nStartLimitIntervalSec=10min\n[Service]\nRestartSec=100ms\n";
/// Not started again by anybody, and nobody steps in: this test does what is to be done.
const NEVER: &str = "/etc/systemd/system/t3pin.service.d/never.conf";

fn alice(agents_unit: &str) -> (Matrix, String) {
    let matrix = Matrix::with(&["alice"], Death::Kill);
    matrix.machine.write("/etc/systemd/system/t3pin.service.d/quick.conf", agents_unit);
    matrix.machine.ok("systemctl daemon-reload && systemctl reset-failed t3pin");
    let work = matrix.machine.work_hash("alice");
    (matrix, work)
}

/// Has alice bumped, with `orders` to die.
fn bump(matrix: &Matrix, orders: &str) {
    matrix.pin(&[("alice", GOOD)]);
    matrix.machine.write("/etc/t3pin/kill-points", orders);
    matrix.machine.sh("t3pin enforce");
}

/// Old binary and old data belong together, nothing is lost, and the user can work, with no agent anywhere.
fn serves_old_without_the_agent(matrix: &Matrix, work: &str) {
    let machine = &matrix.machine;
    machine.wait_until("alice's server answers", LONG, |machine| machine.serving("alice").as_deref() == Some(OLD));
    assert_ne!(machine.sh("systemctl is-active --quiet t3pin.service").code, 0);
    assert_eq!(machine.ok("readlink /var/lib/t3pin/bindings/alice"), "../versions/0.0.24");
    assert_eq!(machine.migration_level("alice"), "30");
    assert_eq!(machine.work_hash("alice"), work);
    assert_eq!(machine.ok("ls -A /var/lib/t3pin/holds"), "");
    machine.user_pair("alice");
}

#[test]
fn an_agent_that_cannot_stay_up_leaves_nobody_half_way() {
    let (mut matrix, work) = alice(FEW_STARTS);
    bump(&matrix, &format!("alice recorded:switched kill\n{}", "- amid:agent-up kill\n".repeat(20)));
    matrix.machine.wait_until("the recovery service has ended", LONG, |machine| {
        machine.ok("systemctl show --property=ExecMainExitTimestampMonotonic --value t3pin-recover.service") != "0"
    });
    assert_eq!(matrix.machine.ok("systemctl show --property=Result --value t3pin-recover.service"), "success");
    serves_old_without_the_agent(&matrix, &work);
    let before = matrix.machine.invocation("t3-serve@alice.service");

    matrix.machine.ok("rm /etc/t3pin/kill-points && systemctl reset-failed t3pin && systemctl start t3pin");
    matrix.die_until(&[], "true", |matrix, _| matrix.note(&["alice cannot-stay-up".to_owned()]));
    assert_eq!(matrix.machine.invocation("t3-serve@alice.service"), before, "nothing was left to be done");
    matrix.end();
}

#[test]
fn a_recovery_that_cannot_read_the_journal_puts_everybody_back_by_what_lies_on_disk() {
    let (mut matrix, work) = alice(FEW_STARTS);
    for point in ["recorded:secured", "done:secured", "amid:switched", "recorded:started"] {
        bump(&matrix, &format!("alice {point} hang\n"));
        matrix.machine.wait_until("the agent has got there", LONG, |machine| machine.ok("cat /etc/t3pin/kill-points").is_empty());
        matrix.machine.write(NEVER, "[Unit]\nOnFailure=\n[Service]\nExecCondition=/bin/false\n");
        matrix.machine.ok("systemctl daemon-reload && systemctl kill --signal=KILL t3pin.service");
        matrix.machine.wait_until("the agent is gone", LONG, |machine| {
            machine.ok("systemctl show --property=MainPID --value t3pin.service") == "0"
        });
        // As a newer t3pin would leave it.
        matrix.machine.ok(
            "cd /var/lib/t3pin && mkdir /root/aside && cp -a journal.sqlite* journal.copies /root/aside/ && sqlite3 journal.sqlite 'PRAGMA user_version = 999; UPDATE meta SET schema = 999'",
        );
        let said = matrix.machine.sh("t3pin recover");
        assert_ne!(said.code, 0, "{said}");
        assert!(said.stderr.contains("newer t3pin wrote it"), "{said}");
        println!("{point}: {said}");
        serves_old_without_the_agent(&matrix, &work);
        assert_eq!(matrix.machine.ok("sqlite3 /var/lib/t3pin/journal.sqlite 'PRAGMA user_version'"), "999", "it is left alone");
        let before = matrix.machine.invocation("t3-serve@alice.service");

        matrix
            .machine
            .ok("cd /var/lib/t3pin && rm -rf journal.sqlite* journal.copies && mv /root/aside/* . && rmdir /root/aside");
        matrix.machine.ok(&format!(
            "rm {NEVER} && systemctl daemon-reload && systemctl reset-failed && systemctl start t3pin.socket t3pin"
        ));
        matrix.die_until(&[], "true", |matrix, _| matrix.note(&[format!("alice no-journal:{point}")]));
        assert_eq!(matrix.machine.instance("alice")["bound_version"], OLD, "{point}");
        assert_eq!(matrix.machine.invocation("t3-serve@alice.service"), before, "{point}: alice was interrupted once more");
        matrix.back_to_old(&["alice"]);
    }
    matrix.end();
}
