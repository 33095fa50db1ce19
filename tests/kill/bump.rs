//! Every boundary of a bump that goes well.

use crate::matrix::{Death, GOOD, Matrix};

const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];

/// In the order of a bump.
pub const POINTS: &[&str] = &[
    "recorded:planned",
    "recorded:rehearsed",
    "done:rehearsed",
    "recorded:ready",
    "recorded:baselined",
    "done:baselined",
    "recorded:seeded",
    "done:seeded",
    "recorded:quiesced",
    "done:quiesced",
    "recorded:secured",
    "done:secured",
    "recorded:switched",
    "amid:switched",
    "done:switched",
    "recorded:started",
    "done:started",
    "recorded:verified",
    "done:verified",
    "recorded:soaking",
    "recorded:settled",
    "amid:archived",
    "done:settled",
    "recorded:closing-done",
    "done:closing-done",
    "recorded:closed-done",
];

fn every_boundary(death: Death) {
    let mut matrix = Matrix::with(&USERS, death);
    for points in POINTS.chunks(USERS.len()) {
        let deaths: Vec<_> = USERS.iter().copied().zip(points.iter().copied()).collect();
        matrix.die_while_enforcing(&deaths, GOOD);
        matrix.note(&deaths);
        matrix.machine.sh("t3pin enforce --wait");
        for user in USERS {
            matrix.machine.wait_settled(user, GOOD);
        }
        matrix.back_to_old();
    }
    matrix.end();
}

#[test]
fn an_agent_killed_at_any_boundary_of_a_good_bump_ends_safe() {
    every_boundary(Death::Kill);
}

#[test]
fn a_power_cut_at_any_boundary_of_a_good_bump_ends_safe() {
    every_boundary(Death::PowerCut);
}
