//! The agent dies by SIGKILL, or the whole machine loses power, at every boundary of a bump, a rollback, an install, a retention run
//! and a recovery; or a disk has too little room. Whatever is hit, everybody ends on a binary and data that belong together, unattended.
//!
//! The package under test is built with the feature `kill-points`: see `agent/src/kill_point.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod dead_man;
mod full_disk;
mod matrix;
mod orders;
mod walk;
