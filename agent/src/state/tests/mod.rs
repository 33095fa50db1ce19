//! Promises 1 and 2 on real files: a tmpfs of its own is "the user's file system", so that custody lies in it, and the worker's
//! tasks run on a thread with the user's ids.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attachments;
mod bench;
mod bench_archive;
mod crash;
mod filesystems;
mod hostile;
mod keeping;
mod process;
pub(super) mod stage;
mod traps;
mod twice;
