//! File systems with just too little room at each write: the homes', the agent's own, and both. What can be known before is
//! refused before; what cannot is undone; nothing half-made is ever left under a final name.

use crate::matrix::{Death, GOOD, Matrix, OLD, half_made};

/// KiB left free, from nothing at all to enough for most of what a bump writes.
const SPARE: &[u32] = &[0, 24, 120, 500, 1_500, 3_500, 7_000, 14_000];
/// Of these a few, for every run: nothing fits, the first copies fit, nearly everything fits.
const FEW: &[u32] = &[0, 500, 7_000];

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
    let mut refused = 0;
    for spare in spares {
        paths.iter().for_each(|path| leave(&matrix, path, *spare));
        let said = matrix.machine.sh("t3pin enforce --wait");
        refused += u32::from(said.stdout.contains("not enough room"));
        println!("{spare} KiB free on {paths:?}: exit code {}: {}", said.code, said.stdout.lines().last().unwrap_or_default());
        // While the disk is still full.
        let half_made = half_made(&matrix.machine);
        let bound = matrix.machine.instance("alice")["bound_version"].clone();
        paths.iter().for_each(|path| make_room(&matrix, path));
        // Whatever is under way ends by itself now that there is room.
        matrix.die_until(&[], "true", |matrix, _| {
            matrix.note(&[format!("alice full-disk:{spare}")]);
            assert!(half_made.is_empty(), "{spare} KiB free on {paths:?}: {half_made:?}");
            assert!(bound == OLD || bound == GOOD, "{spare} KiB free on {paths:?}: bound to {bound}");
        });
        matrix.machine.ok("t3pin enforce --wait");
        matrix.machine.wait_settled("alice", GOOD);
        matrix.back_to_old(&["alice"]);
    }
    assert!(refused > 0, "what can be known before is refused before");
    matrix.end();
}

#[test]
fn too_little_room_ends_safe() {
    too_little_room(&["/home", "/var/lib/t3pin"], FEW);
}

#[test]
fn too_little_room_in_the_homes_ends_safe_at_each_write() {
    too_little_room(&["/home"], SPARE);
}

#[test]
fn too_little_room_for_the_agent_ends_safe_at_each_write() {
    too_little_room(&["/var/lib/t3pin"], SPARE);
}

#[test]
fn too_little_room_everywhere_ends_safe_at_each_write() {
    too_little_room(&["/home", "/var/lib/t3pin"], SPARE);
}
