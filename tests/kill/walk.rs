//! One long walk past every place to die at: installs, bumps, refusals, rollbacks by themselves and on order, recoveries, a
//! retention run, and somebody who is stuck. Several users die in one round, each where others do not, and one user at many
//! places of one bump, as far as recovery goes on with it; at every rest everybody must be whole.
//!
//! Once with SIGKILL, and once with the power of the whole machine cut.

use crate::matrix::{BAD, Death, Deaths, GOOD, LIVE_FAULT, Matrix, OLD};

const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];

/// Nobody is bumped yet, and nothing is installed: `-` dies of the install and of what every start does.
const GOOD_BUMPS: Deaths<'_> = &[
    (
        "-",
        &[
            "amid:install-staged",
            "amid:install-fetched",
            "amid:install-built",
            "amid:install-sealed",
            "amid:install-published",
            "amid:recovery-begun",
            "amid:recovery-left-over",
            "amid:recovery-done",
        ],
    ),
    (
        "alice",
        &[
            "recorded:planned",
            "recorded:closing-cancelled",
            "done:closing-cancelled",
            "recorded:closed-cancelled",
            "recorded:rehearsed",
            "recorded:secured",
            "done:secured",
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
        ],
    ),
    (
        "bob",
        &[
            "done:rehearsed",
            "recorded:ready",
            "recorded:baselined",
            "done:baselined",
            "recorded:seeded",
            "done:seeded",
            "recorded:quiesced",
            "recorded:switched",
        ],
    ),
    // In the middle of the switch, and again at every place of the recovery from that.
    (
        "carol",
        &[
            "amid:switched",
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
            "done:quiesced",
            "done:switched",
        ],
    ),
];

/// Pairs well in its rehearsal, and not when it runs for dave.
const ROLLED_BACK: Deaths<'_> = &[(
    "dave",
    &[
        "recorded:rolling-back-stopped",
        "done:rolling-back-stopped",
        "amid:restored",
        "done:rolling-back-restarted",
        "recorded:closing-rolled-back",
    ],
)];

/// Does not survive its rehearsal.
const REFUSED: Deaths<'_> = &[("dave", &["recorded:closing-refused", "done:closing-refused", "recorded:closed-refused"])];

fn past_every_place(death: Death) {
    let mut matrix = Matrix::with(&USERS, death);
    matrix.machine.ok("echo T3_STANDIN_LIVE_FAULT=1 >>/etc/t3-serve/dave.env");

    if death == Death::Kill {
        // A machine whose agent hangs before it has said that it is up never gets through its boot.
        matrix.die(&[("-", &["amid:agent-up"])], "systemctl restart t3pin");
    }
    let three = [("alice", GOOD), ("bob", GOOD), ("carol", GOOD)];
    matrix.pin(&three);
    matrix.die(GOOD_BUMPS, "t3pin enforce --wait");
    matrix.machine.sh("t3pin enforce --wait");
    for (user, version) in three {
        matrix.machine.wait_settled(user, version);
    }
    matrix.pin(&[("dave", LIVE_FAULT)]);
    matrix.die(ROLLED_BACK, "t3pin enforce --wait");
    assert_eq!(matrix.machine.instance("dave")["bound_version"], OLD);
    matrix.pin(&[("dave", BAD)]);
    matrix.die(REFUSED, "t3pin enforce --wait");

    // Out of the archive, on order.
    let rest = ["recorded:rolling-back-quiesced-force-false-rest-done", "done:rolling-back-quiesced-force-false-rest-done"];
    matrix.die(&[("alice", &[rest[0], rest[1], "amid:unarchived", "done:rolling-back-restored"])], "t3pin rollback alice");
    let rest = ["recorded:rolling-back-quiesced-force-true-rest-done", "done:rolling-back-quiesced-force-true-rest-done"];
    matrix.die(&[("bob", &rest)], "t3pin rollback bob --force");
    matrix.back_to_old(&USERS);

    // The second snapshot, where one is kept.
    matrix.pin(&three);
    matrix.die(&[("alice", &["amid:retired"]), ("bob", &["amid:forgotten"]), ("carol", &["amid:swept"])], "t3pin enforce --wait");
    matrix.back_to_old(&USERS);

    // Out of the soak, on order.
    matrix.soak("1h");
    matrix.pin(&[("alice", GOOD), ("bob", GOOD), ("dave", GOOD)]);
    matrix.die(&[], "t3pin enforce --wait");
    let rest = ["recorded:rolling-back-quiesced-force-false-rest-soaking", "done:rolling-back-quiesced-force-false-rest-soaking"];
    matrix.die(&[("alice", &rest)], "t3pin rollback alice");
    let rest = ["recorded:rolling-back-quiesced-force-true-rest-soaking", "done:rolling-back-quiesced-force-true-rest-soaking"];
    matrix.die(&[("bob", &rest)], "t3pin rollback bob --force");

    stuck(&mut matrix);
    let mut untried = matrix.untried();
    untried.retain(|point| death == Death::Kill || point != "amid:agent-up");
    assert!(untried.is_empty(), "nobody dies at {untried:?}");
    matrix.end();
}

/// Somebody whose original is out of reach is stuck, stays so whatever dies, and comes back as soon as it is there again.
fn stuck(matrix: &mut Matrix) {
    let original = matrix.machine.ok("ls -d /.t3pin/dave/*/original /home/.t3pin/dave/*/original 2>/dev/null | tail -n 1");
    matrix.machine.ok(&format!("mv '{original}/state.sqlite' /root/out-of-reach"));
    let stays = |matrix: &mut Matrix, points: &[String]| {
        let dave = matrix.machine.instance("dave");
        let told = dave["state"] == "stuck" && dave.to_string().contains("t3pin rollback dave");
        let wrong = if told { vec![] } else { vec![format!("dave is not stuck, or is not told what to do: {dave}")] };
        matrix.judge(points, wrong, "dave");
    };
    matrix.die_until(&[("dave", &["recorded:stuck"])], "t3pin rollback dave --force", stays);
    let rest = ["recorded:rolling-back-quiesced-force-true-rest-stuck", "done:rolling-back-quiesced-force-true-rest-stuck"];
    matrix.die_until(&[("dave", &rest)], "t3pin rollback dave --force", stays);
    matrix.machine.ok(&format!("mv /root/out-of-reach '{original}/state.sqlite'"));
    let rest = ["recorded:rolling-back-quiesced-force-false-rest-stuck", "done:rolling-back-quiesced-force-false-rest-stuck"];
    // By itself: a start is a reason to try again.
    matrix.die(&[("dave", &rest)], "systemctl restart t3pin");
    assert_eq!(matrix.machine.instance("dave")["bound_version"], OLD);
}

#[test]
fn an_agent_killed_anywhere_leaves_everybody_whole() {
    past_every_place(Death::Kill);
}

#[test]
fn a_power_cut_anywhere_leaves_everybody_whole() {
    past_every_place(Death::PowerCut);
}
