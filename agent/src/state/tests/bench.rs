//! What securing costs in the downtime. Prints, judges nothing.

use std::time::Instant;

use super::stage::{FileSystem, Stage};

#[test]
fn securing_a_megabyte_is_timed() {
    let fs = FileSystem::on_disk();
    let stage = Stage::new(&fs, "alice");
    stage.database(30_000, true);
    stage.write("secrets/key", b"key", 0o600);
    stage.write("environment-id", b"id", 0o644);
    let start = Instant::now();
    crate::state::secure::refuse_held(&stage.place, "", &[]).unwrap();
    println!("holders looked for in {:?}", start.elapsed());
    let start = Instant::now();
    let (seed, _) = stage.secure("0.0.24").unwrap();
    let secured = start.elapsed();
    stage.switch_in().unwrap();
    let switched = start.elapsed() - secured;
    let start = Instant::now();
    stage.restore(false).unwrap();
    println!("{} bytes: secured in {secured:?}, switched in {switched:?}, restored in {:?}", seed.bytes, start.elapsed());
}
