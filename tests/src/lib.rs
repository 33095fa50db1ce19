//! A throwaway Debian with a real systemd as PID 1, for tests that show what an operator would see.
//!
//! [`Machine::boot`] starts one in about a second, over a file system that `tests/machine/build` has made; it can do nothing to the host
//! and nothing is left of it when it is dropped. Everything a test does in it goes through commands that an operator has too.
//!
//! A method that cannot do what it says panics with all that is known: here that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent;
mod cgroup;
mod command;
mod machine;
mod operator;
mod outside;
mod run_dir;
mod user;

pub use command::Output;
pub use machine::Machine;
