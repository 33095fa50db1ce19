//! File systems with just too little room at each write: the homes', the agent's own, and both. What can be known before is
//! refused before; what cannot is undone; nothing half-made is ever left under a final name.

use std::time::Duration;

use crate::matrix::{Death, GOOD, Matrix, half_made};

const LONG: Duration = Duration::from_secs(120);

/// Before these the disk runs full: whatever the phase writes does not fit.
const BEFORE: &[&str] = &[
    "recorded:rehearsed",
    "recorded:seeded",
    "recorded:secured",
    "recorded:switched",
    "amid:switched",
    "recorded:verified",
    "recorded:settled",
];
/// And these, when there is the time: the first bytes fit, and the next do not.
const SPARE: &[u32] = &[0, 24, 500];

/// Puts what lies below `path` on a file system of its own, whose size can be changed.
const OWN: &str = r#"own() { mkdir -p "$1" && cp -a "$1" "$1.was" && mount -t tmpfs -o size=3g,mode=755 own "$1" && cp -a "$1.was/." "$1/" && rm -rf "$1.was"; }
    systemctl stop t3pin.socket t3pin.service 't3-serve@*'"#;

/// Leaves so many KiB free on a file system made by `own`.
fn leave(matrix: &Matrix, path: &str, spare: u32) {
    matrix.machine.ok(&format!(
        "used=$(df --block-size=1K --output=used '{path}' | tail -n 1) && mount -o remount,size=$((used + {spare}))k '{path}'"
    ));
}

fn make_room(matrix: &Matrix, path: &str) {
    matrix.machine.ok(&format!("mount -o remount,size=3g '{path}'"));
}

fn too_little_room(paths: &[&str], spares: &[u32]) {
    let mut matrix = Matrix::with(&["alice"], Death::Kill);
    let own: String = paths.iter().map(|path| format!(" && own {path}")).collect();
    matrix.machine.ok(&format!("{OWN}{own} && systemctl start t3pin.socket t3pin.service t3-serve@alice"));
    matrix.machine.seed("alice", "--threads 1 --turns 1 --megabytes 2");
    matrix.take_work();
    // Installed before, so that what is too little is the bump's own.
    matrix.pin(&[("alice", GOOD)]);
    matrix.machine.ok("t3pin enforce --wait");
    matrix.machine.wait_settled("alice", GOOD);
    matrix.back_to_old(&["alice"]);

    let before = matrix.machine.invocation("t3-serve@alice.service");
    paths.iter().for_each(|path| leave(&matrix, path, 500));
    let said = matrix.machine.sh("t3pin enforce --wait");
    paths.iter().for_each(|path| make_room(&matrix, path));
    assert!(said.code == 5 && said.stdout.contains("not enough room"), "what can be known before is refused before: {said}");
    assert_eq!(matrix.machine.invocation("t3-serve@alice.service"), before, "and touches nobody");

    for (point, spare) in spares.iter().flat_map(|spare| BEFORE.iter().map(move |point| (*point, *spare))) {
        full_from(&mut matrix, paths, point, spare);
    }
    matrix.end();
}

/// The disk runs full as soon as the bump has got to `point`, and has room again when the agent knows no further.
fn full_from(matrix: &mut Matrix, paths: &[&str], point: &str, spare: u32) {
    let what = format!("full-disk:{point}:{spare}:{}", paths.join("+"));
    matrix.machine.write("/etc/t3pin/kill-points", &format!("alice {point} pause\n"));
    matrix.machine.ok("systemd-run --quiet --collect t3pin enforce --wait");
    matrix
        .machine
        .wait_until(&format!("{what}: the bump gets there"), LONG, |machine| machine.ok("cat /etc/t3pin/kill-points").is_empty());
    paths.iter().for_each(|path| leave(matrix, path, spare));
    matrix.machine.ok("systemctl kill --kill-whom=main --signal=CONT t3pin.service");
    // At rest, or, as long as it cannot even write down that it is, with the user served.
    matrix.machine.wait_until(&format!("{what}: the agent knows no further"), LONG, |machine| {
        let state = &machine.status()["agent"]["state"];
        let full = "journalctl --quiet --output=cat --unit=t3pin --since=-60s | grep --quiet --ignore-case 'is full\\|no space\\|no room'";
        ["idle", "draining", "stuck"].iter().any(|rest| state == *rest)
            || (machine.sh(full).code == 0 && machine.serving("alice").is_some())
    });
    let said = matrix.machine.instance("alice");
    println!("{what}: {} {}", said["state"], said["detail"]);
    let half_made = half_made(&matrix.machine);
    paths.iter().for_each(|path| make_room(matrix, path));
    assert!(half_made.is_empty(), "{what}: {half_made:?}");
    // What could not be undone without room is undone now; a start is a reason to try again.
    matrix.die_until(&[], "systemctl restart t3pin", |matrix, _| matrix.note(&[format!("alice {what}")]));
    matrix.back_to_old(&["alice"]);
}

#[test]
fn a_disk_that_runs_full_in_a_bump_ends_safe() {
    too_little_room(&["/home", "/var/lib/t3pin"], &[0]);
}

#[test]
fn homes_that_run_full_end_safe_at_each_write() {
    too_little_room(&["/home"], SPARE);
}

#[test]
fn an_agents_disk_that_runs_full_ends_safe_at_each_write() {
    too_little_room(&["/var/lib/t3pin"], SPARE);
}

#[test]
fn disks_that_all_run_full_end_safe_at_each_write() {
    too_little_room(&["/home", "/var/lib/t3pin"], SPARE);
}
