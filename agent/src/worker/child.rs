//! The child's side: give up privileges, read one task, do it, answer.

use std::io::{Read, Write};
use std::process::ExitCode;

use super::protocol::{Answer, MAX_MESSAGE, Task, TaskError, TaskErrorKind};
use super::tasks;

/// Entry point of `t3pin worker`. Refuses to run as root: a worker works for one user only.
pub fn main() -> ExitCode {
    let answer = match prepare().and_then(|()| read_task()) {
        Ok(task) => tasks::perform(task).unwrap_or_else(Answer::Failed),
        Err(error) => Answer::Failed(error),
    };
    let written = serde_json::to_vec(&answer).map(|bytes| std::io::stdout().lock().write_all(&bytes));
    match written {
        Ok(Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Gives up what no task needs.
fn prepare() -> Result<(), TaskError> {
    let other = |message: String| TaskError { kind: TaskErrorKind::Other, message };
    if rustix::process::geteuid().is_root() {
        return Err(other("a worker must not run as root: it works as the user whose data it touches".to_owned()));
    }
    rustix::thread::set_no_new_privs(true).map_err(|e| other(format!("no_new_privs: {e}")))?;
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|e| other(format!("parent death signal: {e}")))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    Ok(())
}

fn read_task() -> Result<Task, TaskError> {
    let other = |message: String| TaskError { kind: TaskErrorKind::Other, message };
    let mut message = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_MESSAGE as u64)
        .read_to_end(&mut message)
        .map_err(|e| other(format!("the task could not be read: {e}")))?;
    serde_json::from_slice(&message).map_err(|e| other(format!("the task is not one: {e}")))
}
