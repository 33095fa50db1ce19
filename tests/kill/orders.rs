//! The orders to die themselves, and what no point is needed for.

use std::collections::BTreeSet;
use std::time::Duration;
use t3pin_tests::Machine;

use crate::matrix::{Death, Matrix};
use crate::{bump, install, recovery, rollback};

/// Left to the simulation: the same actions as in points that are tried here, on the way to another rest.
const ELSEWHERE: [&str; 4] = ["cancelled", "stuck", "force-true", "rest-soaking"];

#[test]
fn every_point_is_tried() {
    let matrix = Matrix::with(&[], Death::Kill);
    let tried: BTreeSet<&str> =
        [bump::POINTS, rollback::BY_ITSELF, rollback::REFUSED, rollback::ASKED, install::POINTS, recovery::POINTS]
            .concat()
            .into_iter()
            .collect();
    let known = matrix.known_points();
    let left: Vec<_> = known
        .iter()
        .filter(|point| !tried.contains(point.as_str()) && !ELSEWHERE.iter().any(|other| point.contains(other)))
        .collect();
    assert!(left.is_empty(), "nobody dies at {left:?}");
}

#[test]
fn an_order_to_die_at_an_unknown_point_is_an_error() {
    let matrix = Matrix::with(&[], Death::Kill);
    assert!(matrix.known_points().contains("amid:switched"));
    matrix.machine.write("/etc/t3pin/kill-points", "alice amid:swiched kill\n");
    matrix.machine.sh("systemctl restart t3pin");
    matrix.machine.wait_until("the agent says why it does not start", Duration::from_secs(20), |machine| {
        machine.ok("journalctl -u t3pin --no-pager").contains("\"alice amid:swiched kill\" is no order to die")
    });
}

#[test]
fn a_rollback_restores_the_database_byte_for_byte() {
    let machine = Machine::with_users("0.0.24", &["bob"]);
    machine.seed("bob", "--threads 3 --turns 3");
    machine.ok("echo T3_STANDIN_LIVE_FAULT=1 >>/etc/t3-serve/bob.env");
    // Both at the very moment of the stop and of the start: what the servers themselves write does not get in the way.
    machine.write(
        "/etc/systemd/system/t3-serve@.service.d/hash.conf",
        "[Service]\nExecStartPre=/bin/sh -c 'sha256sum < $HOME/.t3/userdata/state.sqlite >> $HOME/starts'\n\
         ExecStopPost=/bin/sh -c 'sha256sum < $HOME/.t3/userdata/state.sqlite >> $HOME/stops'\n",
    );
    machine.ok("systemctl daemon-reload && systemctl restart t3-serve@bob && rm -f /home/bob/st[ao]*s");
    machine.wait_until("bob's server answers", Duration::from_secs(20), |machine| machine.serving("bob").is_some());
    machine.pin("0.0.103");
    assert_eq!(machine.sh("t3pin enforce --wait").code, 4);
    let stops = machine.ok("cat /home/bob/stops");
    let starts = machine.ok("cat /home/bob/starts");
    assert_eq!(stops.lines().count(), 2, "0.0.24 and 0.0.103 were stopped");
    assert_eq!(starts.lines().last(), stops.lines().next(), "0.0.24 starts on the bytes that it left");
    assert_ne!(stops.lines().nth(1), stops.lines().next());
}
