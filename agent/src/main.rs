//! t3pin holds a host's T3 Code servers at a pinned version: rehearsed, snapshotted, verified, reversible.
//!
//! One binary, three roles: the agent (`t3pin agent`), the command line (every other verb), and the unprivileged worker
//! (`t3pin worker`, started by the agent only). See DESIGN section 4 for the house.

mod activity;
mod agent;
mod api;
mod cli;
mod config;
mod domain;
mod engine;
mod health;
mod host;
mod journal;
mod root_file;
mod state;
mod systemd;
mod versions;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|verb| verb == "worker") {
        return worker::child::main();
    }
    cli::main()
}
