//! Killed in the middle of the switch, and again at every boundary of the recovery from that.

use crate::matrix::{Death, GOOD, Matrix};

/// What recovery from a death in the middle of `switched` passes through.
pub const POINTS: &[&str] = &[
    "recorded:rolling-back-restored",
    "amid:restored",
    "done:rolling-back-restored",
    "recorded:rolling-back-restarted",
    "done:rolling-back-restarted",
    "recorded:rolling-back-rechecked",
    "done:rolling-back-rechecked",
    "recorded:closing-rolled-back",
    "done:closing-rolled-back",
];

fn every_boundary(death: Death) {
    let mut matrix = Matrix::with(&["alice"], death);
    for point in POINTS {
        matrix.die_while_enforcing(&[("alice", "amid:switched"), ("alice", point)], GOOD);
        matrix.note(&[("alice", point)]);
        matrix.back_to_old();
    }
    // And again and again, at all of them in one bump.
    let mut all = vec![("alice", "amid:switched")];
    all.extend(POINTS.iter().map(|point| ("alice", *point)));
    matrix.die_while_enforcing(&all, GOOD);
    matrix.note(&[("alice", "all-of-the-recovery")]);
    matrix.end();
}

#[test]
fn a_recovery_killed_at_any_boundary_ends_safe() {
    every_boundary(Death::Kill);
}

#[test]
fn a_power_cut_at_any_boundary_of_a_recovery_ends_safe() {
    every_boundary(Death::PowerCut);
}
