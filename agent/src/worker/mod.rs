//! The same binary as an unprivileged child: everything that touches a user's files or runs a user's t3.
//!
//! The parent ([`run`]) starts `t3pin worker` with the user's ids, writes one [`Task`] to its standard input and reads
//! one [`Answer`] from its standard output, both bounded JSON. The child ([`child::main`]) gives up what it does not need
//! (no new privileges, resource limits, dies with its parent) before it reads the task. Whatever the child says is
//! hostile input for the parent (promise 8): bounded in size and time, parsed strictly, never trusted for decisions about
//! other users.

pub mod child;
pub mod files;
mod lookout;
mod protocol;
mod spawn;
pub(crate) mod tasks;

pub use lookout::Lookout;
#[cfg(any(test, feature = "simulation"))]
pub use protocol::TaskError;
pub use protocol::{Answer, LiveCopyReport, MAX_MESSAGE, MintSpec, ProbeSpec, RehearseSpec, Seeded, Task, TaskErrorKind};
pub use spawn::{Standby, WorkerError, begin, run};
pub use tasks::redact::redact;
