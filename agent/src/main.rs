//! The program `t3pin`. Everything is in the library beside it, so that the tests can reach the decisions.

use std::process::ExitCode;

fn main() -> ExitCode {
    t3pin::run()
}
