//! The long-running process.

use std::process::ExitCode;

/// Runs the agent until it is told to stop.
pub fn main() -> ExitCode {
    unimplemented!()
}

/// Finishes or undoes what was under way, without the agent.
pub fn recover() -> ExitCode {
    unimplemented!()
}
