//! Every boundary of an install.

use crate::matrix::{Death, GOOD, Matrix};

pub const POINTS: &[&str] =
    &["amid:install-staged", "amid:install-fetched", "amid:install-built", "amid:install-sealed", "amid:install-published"];

fn every_boundary(death: Death) {
    let mut matrix = Matrix::with(&["alice"], death);
    let before = matrix.machine.invocation("t3-serve@alice.service");
    for point in POINTS {
        matrix.die_while_enforcing(&[("-", point)], GOOD);
        let half_made = matrix
            .machine
            .ok("ls -A /var/lib/t3pin/staging; cd /var/lib/t3pin/versions && ls -A | grep -v -x -e 0.0.24 -e 0.0.25 || true");
        assert_eq!(half_made, "", "{point}: something half-made is left");
        matrix.note(&[("-", point)]);
        matrix.machine.sh("t3pin enforce --wait");
        matrix.machine.wait_settled("alice", GOOD);
        matrix.back_to_old();
        matrix.machine.ok("t3pin versions remove 0.0.25");
    }
    if death == Death::Kill {
        assert_ne!(matrix.machine.invocation("t3-serve@alice.service"), before, "alice was bumped in between");
    }
    matrix.end();
}

#[test]
fn an_agent_killed_at_any_boundary_of_an_install_ends_safe() {
    every_boundary(Death::Kill);
}

#[test]
fn a_power_cut_at_any_boundary_of_an_install_ends_safe() {
    every_boundary(Death::PowerCut);
}
