//! The child's side: give up privileges, read one task, do it, answer.

use std::io::{BufRead, Read, Write};
use std::process::ExitCode;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit};

use super::protocol::{self, Answer, MAX_MESSAGE, Task, TaskError, TaskErrorKind};
use super::{confine, tasks};

/// Entry point of `t3pin worker`. Refuses to run as root: a worker works for one user only.
pub fn main() -> ExitCode {
    let answer = match prepare().and_then(|()| read_task()).and_then(confined) {
        Ok(Task::SeedLive { userdata, dest }) => match tasks::stand_by(&userdata, &dest, |seeded| say(&seeded), read_task) {
            Some(answer) => answer,
            None => return ExitCode::SUCCESS,
        },
        Ok(Task::Lookout { userdata }) => {
            return tasks::lookout(userdata, &mut std::io::stdin().lock(), &mut std::io::stdout().lock());
        }
        Ok(task) => tasks::perform(task).unwrap_or_else(Answer::Failed),
        Err(error) => Answer::Failed(error),
    };
    if say(&answer) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One answer, one line. Says whether it got through.
fn say(answer: &Answer) -> bool {
    let Ok(line) = protocol::answer_line(answer) else { return false };
    let mut out = std::io::stdout().lock();
    out.write_all(&line).and_then(|()| out.flush()).is_ok()
}

/// CPU seconds that a worker, and each program it starts, may use: far above any copy, probe or migration.
const CPU_SECONDS: u64 = 2 * 60 * 60;

/// Open files that a worker and its programs may have; node wants some hundreds.
const OPEN_FILES: u64 = 65_536;

/// Gives up what no task needs. Limits are inherited by the programs a worker starts.
fn prepare() -> Result<(), TaskError> {
    let other = |message: String| TaskError { kind: TaskErrorKind::Other, message };
    if rustix::process::geteuid().is_root() {
        return Err(other("a worker must not run as root: it works as the user whose data it touches".to_owned()));
    }
    rustix::thread::set_no_new_privs(true).map_err(|e| other(format!("no_new_privs: {e}")))?;
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|e| other(format!("parent death signal: {e}")))?;
    // Its user may end it and stop it, but not look into it or take its descriptors (ptrace(2), proc(5)).
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| other(format!("not dumpable: {e}")))?;
    // Core files would hold credentials.
    for (resource, most) in [(Resource::Core, 0), (Resource::Nofile, OPEN_FILES), (Resource::Cpu, CPU_SECONDS)] {
        lower(resource, most).map_err(|e| other(format!("resource limits: {e}")))?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    Ok(())
}

/// Lowers both limits of `resource` to `most`, where they are higher (setrlimit(2); `None` is no limit).
pub(super) fn lower(resource: Resource, most: u64) -> rustix::io::Result<()> {
    let now = getrlimit(resource);
    let least = |limit: Option<u64>| Some(limit.map_or(most, |limit| limit.min(most)));
    setrlimit(resource, Rlimit { current: least(now.current), maximum: least(now.maximum) })
}

/// The next task: a line, or what comes until the end.
fn read_task() -> Result<Task, TaskError> {
    let other = |message: String| TaskError { kind: TaskErrorKind::Other, message };
    let mut message = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_MESSAGE as u64)
        .read_until(b'\n', &mut message)
        .map_err(|e| other(format!("the task could not be read: {e}")))?;
    protocol::read_task(&message).map_err(|e| other(format!("the task is not one: {e}")))
}

/// Gives up what `task` does not need.
fn confined(task: Task) -> Result<Task, TaskError> {
    let other = |message: String| TaskError { kind: TaskErrorKind::Other, message };
    confine::to(&task).map_err(|e| other(format!("the worker could not be confined: {e}")))?;
    Ok(task)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_never_works_as_root() {
        let refused = prepare().unwrap_err();
        assert!(rustix::process::geteuid().is_root() && refused.message.contains("must not run as root"), "{refused}");
    }

    #[test]
    fn limits_are_lowered_and_never_raised() {
        let before = getrlimit(Resource::Core);
        lower(Resource::Core, u64::MAX).unwrap();
        assert_eq!(getrlimit(Resource::Core).current, before.current.or(Some(u64::MAX)));
        lower(Resource::Core, 0).unwrap();
        lower(Resource::Core, 1000).unwrap();
        assert_eq!((getrlimit(Resource::Core).current, getrlimit(Resource::Core).maximum), (Some(0), Some(0)));
    }
}
