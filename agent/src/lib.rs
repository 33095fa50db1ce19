//! t3pin holds a host's T3 Code servers at a pinned version: rehearsed, snapshotted, verified, reversible.
//!
//! One binary, three roles: the agent (`t3pin agent`), the command line (every other verb), and the unprivileged worker
//! (`t3pin worker`, started by the broker, `t3pin workers`, for the agent only). See DESIGN section 4 for the house.
//!
//! This is no library for others: what is public is so for the project's own tests, which drive the very same decisions and
//! journal on a simulated host.

mod activity;
mod agent;
mod api;
mod cli;
pub mod conduct;
mod config;
pub mod domain;
pub mod engine;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod health;
mod host;
pub mod journal;
mod kill_point;
mod root_file;
#[cfg(feature = "simulation")]
pub mod simulated;
mod state;
mod systemd;
mod versions;
mod worker;

use std::process::ExitCode;

/// The whole program: one of its three roles, by its arguments. Called by `main` alone.
pub fn run() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|verb| verb == "worker") {
        return worker::child::main();
    }
    if std::env::args_os().nth(1).is_some_and(|verb| verb == "workers") {
        return worker::broker::serve::main();
    }
    cli::main()
}
