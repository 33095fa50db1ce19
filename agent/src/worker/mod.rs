//! The same binary as an unprivileged child: everything that touches a user's files or runs a user's t3.
//!
//! The parent ([`run`]) has `t3pin worker` started with the user's ids (by the [`broker`], where there is one), writes one
//! [`Task`] to its standard input and reads one [`Answer`] from its standard output, both bounded JSON. The child
//! ([`child::main`]) gives up what no task needs (no new privileges, resource limits, dies with its parent) before it reads the
//! task, and what this one does not need (files elsewhere, network, programs: [`confine`]) before it does it. Whatever the child says is
//! hostile input for the parent (promise 8): bounded in size and time, parsed strictly, never trusted for decisions about
//! other users.

pub mod broker;
pub mod child;
mod complaints;
mod confine;
pub mod files;
mod lingering;
mod lookout;
mod process;
mod protocol;
mod spawn;
mod stall;
mod tally;
pub(crate) mod tasks;

pub use lookout::Lookout;
#[cfg(any(test, feature = "simulation"))]
pub use protocol::TaskError;
#[cfg(test)]
pub use protocol::answer_line;
pub use protocol::{
    Answer, LiveCopyReport, MAX_MESSAGE, MintSpec, MintedLink, ProbeSpec, RehearseSpec, Seeded, Task, TaskErrorKind, read_answer,
    task_line,
};
pub use spawn::{Standby, WorkerError, begin, run};
pub use tally::Tally;
pub use tasks::redact::redact;

/// See `crate::fuzzing`.
#[cfg(feature = "fuzzing")]
pub fn fuzz_messages(bytes: &[u8]) {
    broker::fuzz_order(bytes);
    if let Ok(task) = protocol::read_task(bytes)
        && let Ok(line) = protocol::task_line(&task)
    {
        assert!(protocol::read_task(&line).is_ok(), "{task:?}");
    }
    if let Ok(answer) = protocol::read_answer(bytes)
        && let Ok(line) = protocol::answer_line(&answer)
    {
        assert!(protocol::read_answer(&line).is_ok(), "{answer:?}");
    }
}
