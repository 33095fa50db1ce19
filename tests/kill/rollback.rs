//! Every boundary of a bump that is rolled back: by itself, out of the soak on an operator's order, and one that is refused.

use crate::matrix::{BAD, Death, GOOD, LIVE_FAULT, Matrix, OLD};

/// Rolled back because nobody can pair with the new version.
pub const BY_ITSELF: &[&str] = &[
    "recorded:rolling-back-stopped",
    "done:rolling-back-stopped",
    "recorded:rolling-back-restored",
    "amid:restored",
    "done:rolling-back-restored",
    "recorded:rolling-back-restarted",
    "done:rolling-back-restarted",
    "recorded:rolling-back-rechecked",
    "done:rolling-back-rechecked",
    "recorded:closing-rolled-back",
    "done:closing-rolled-back",
    "recorded:closed-rolled-back",
];

/// Rolled back on an order, after the bump was settled.
pub const ASKED: &[&str] = &[
    "recorded:rolling-back-quiesced-force-false-rest-done",
    "done:rolling-back-quiesced-force-false-rest-done",
    "amid:unarchived",
    "done:rolling-back-restored",
];

pub const REFUSED: &[&str] = &["recorded:closing-refused", "done:closing-refused", "recorded:closed-refused"];

fn every_boundary(death: Death) {
    let mut matrix = Matrix::with(&["bob"], death);
    matrix.machine.ok("echo T3_STANDIN_LIVE_FAULT=1 >>/etc/t3-serve/bob.env");
    for point in BY_ITSELF {
        matrix.die_while_enforcing(&[("bob", point)], LIVE_FAULT);
        assert_eq!(matrix.machine.instance("bob")["bound_version"], OLD, "{point}");
        matrix.note(&[("bob", point)]);
        matrix.back_to_old();
    }
    for point in REFUSED {
        matrix.die_while_enforcing(&[("bob", point)], BAD);
        matrix.note(&[("bob", point)]);
        matrix.back_to_old();
    }
    for point in ASKED {
        matrix.machine.pin(GOOD);
        matrix.machine.ok("t3pin enforce --wait");
        matrix.machine.wait_settled("bob", GOOD);
        matrix.die(&[("bob", point)], "t3pin rollback bob");
        matrix.machine.sh("t3pin rollback bob --force");
        matrix.note(&[("bob", point)]);
        matrix.back_to_old();
    }
    matrix.end();
}

#[test]
fn an_agent_killed_at_any_boundary_of_a_rollback_ends_safe() {
    every_boundary(Death::Kill);
}

#[test]
fn a_power_cut_at_any_boundary_of_a_rollback_ends_safe() {
    every_boundary(Death::PowerCut);
}
