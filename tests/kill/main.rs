//! The agent dies by SIGKILL, or the whole machine loses power, at every boundary of a bump, a rollback, an install, a retention run
//! and a recovery. Whatever is hit, everybody ends on a binary and data that belong together, unattended.
//!
//! The package under test is built with the feature `kill-points`: see `agent/src/kill_point.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bump;
mod full_disk;
mod install;
mod matrix;
mod orders;
mod recovery;
mod rollback;
