//! The orders to die themselves.

use std::time::Duration;

use crate::matrix::{Death, Matrix};

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
