//! The parent's side: start a child with a user's ids, ask, read the answer, end it.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::process::{Child, Command};

use super::lingering;
use super::process::Process;
use super::protocol::{Answer, MAX_MESSAGE, Task, TaskError, read_answer, task_line};
use super::stall::stalled;
use crate::domain::{Account, UserName};

/// What was killed is gone within this, mostly.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Why no usable answer came from a worker.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The child could not be started or talked to.
    #[error("the worker for {user} could not be run: {source}")]
    Io {
        /// For whom.
        user: String,
        /// Why.
        source: io::Error,
    },
    /// The child did not answer in time and was ended.
    #[error("the worker for {user} did not answer within {seconds} s and was ended")]
    Deadline {
        /// For whom.
        user: String,
        /// The deadline.
        seconds: u64,
    },
    /// The child does not get on, and was ended.
    #[error("the worker for {user} was ended: {why}")]
    Stalled {
        /// For whom.
        user: String,
        /// What is wrong with it.
        why: String,
    },
    /// Earlier children were ended and are still there: nothing can end what waits for a file system.
    #[error(
        "a worker for {user} that was ended is still there: it waits for a file system that does not answer (a mount below the home? \
         a file server?), or a debugger of {user}'s holds it; until that answers, is unmounted (umount -f -l) or is ended, nothing can be done \
         with {user}'s data"
    )]
    Lingers {
        /// For whom.
        user: String,
    },
    /// A lookout did not answer in the short time it was given.
    #[error("the worker for {user} did not answer within {ms} ms")]
    Late {
        /// For whom.
        user: String,
        /// The time.
        ms: u128,
    },
    /// The child answered something that is no answer.
    #[error("the worker for {user} gave no usable answer ({what})")]
    Nonsense {
        /// For whom.
        user: String,
        /// What was wrong with it.
        what: String,
    },
    /// The child says that the task failed.
    #[error(transparent)]
    Task(#[from] TaskError),
}

/// Runs `task` as `account` in a child process and returns its answer.
///
/// The child has the account's uid and gid and no supplementary groups (std drops them when a uid is set as root), an
/// empty environment but for `HOME`, `PATH`, `USER`, `LOGNAME`, `SHELL` and `LANG`, and `/` as working directory. It leads a
/// process group of its own, and the whole group is killed when it has answered, when `deadline` passes and when the
/// returned future is dropped: a user's t3 that hangs does not outlive the question. Must run as root, or as the account
/// itself, and on a thread that outlives the child (the child dies with the thread that started it, prctl(2)).
pub async fn run(account: &Account, task: &Task, deadline: Duration) -> Result<Answer, WorkerError> {
    #[cfg(feature = "simulation")]
    if crate::simulated::is_on() {
        return crate::simulated::with(|world| world.work(account, task));
    }
    let worker = start(account)?;
    converse(account, worker, task, deadline).await
}

/// Starts a worker, unless one of this user's cannot be ended.
pub(super) fn start(account: &Account) -> Result<Process, WorkerError> {
    lingering::refuse(&account.user)?;
    Process::start(account).map_err(|source| WorkerError::Io { user: account.user.to_string(), source })
}

/// The worker, as the account.
pub(super) fn command(account: &Account) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg("worker")
        .env_clear()
        .env("HOME", &account.home)
        .env("USER", account.user.as_str())
        .env("LOGNAME", account.user.as_str())
        .env("SHELL", &account.shell)
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .current_dir("/");
    if rustix::process::geteuid().is_root() {
        command.uid(account.uid).gid(account.gid);
    }
    command
}

/// Asks `worker` one question.
async fn converse(account: &Account, mut worker: Process, task: &Task, deadline: Duration) -> Result<Answer, WorkerError> {
    let user = account.user.to_string();
    let failed = |source| WorkerError::Io { user: user.clone(), source };
    let message = task_line(task).map_err(failed)?;
    let (pids, pid) = tokio::sync::oneshot::channel();
    let conversation = async {
        pids.send(worker.pid().await.map_err(failed)?).ok();
        if let Some(mut said) = worker.said.take() {
            match said.write_all(&message).await {
                // It has answered or died without reading; what it said tells more than the broken pipe.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                other => other.map_err(failed)?,
            }
        }
        let mut answer = Vec::new();
        if let Some(heard) = worker.heard.take() {
            heard.take(MAX_MESSAGE as u64 + 1).read_to_end(&mut answer).await.map_err(failed)?;
        }
        if answer.len() > MAX_MESSAGE {
            return Err(WorkerError::Nonsense { user: user.clone(), what: "longer than allowed".to_owned() });
        }
        // The end of its output is the worker's own end: its status is settled, and what it started has had its time.
        worker.kill();
        let end = worker.ended().await.map_err(failed)?;
        read_answer(&answer).map_err(|what| WorkerError::Nonsense { user: user.clone(), what: format!("{end}: {what}") })
    };
    let stalled = async { stalled(pid.await.ok().flatten(), task.idle()).await };
    let result = tokio::time::timeout(deadline, watched(&user, conversation, stalled)).await;
    let ended = lingering::end(&account.user, worker).await;
    match result {
        Ok(Ok(Answer::Failed(error))) => Err(error.into()),
        Ok(Err(WorkerError::Stalled { .. })) | Err(_) if !ended => Err(lingering::lingers(&account.user)),
        Ok(result) => result,
        Err(_) => Err(WorkerError::Deadline { user, seconds: deadline.as_secs() }),
    }
}

/// What is answered, unless the worker stalls before.
async fn watched(
    user: &str,
    conversation: impl Future<Output = Result<Answer, WorkerError>>,
    stalled: impl Future<Output = String>,
) -> Result<Answer, WorkerError> {
    tokio::select! {
        answer = conversation => answer,
        why = stalled => Err(WorkerError::Stalled { user: user.to_owned(), why }),
    }
}

/// A worker that waits for its next task while the server is stopped. It ends when this is dropped, and with the agent.
#[derive(Debug)]
pub struct Standby {
    user: UserName,
    worker: Process,
    pid: Option<u32>,
    heard: BufReader<Receiver>,
    said: Sender,
}

/// Starts `task` as `account`, as [`run`] does, and returns its first answer with the worker that goes on.
pub async fn begin(account: &Account, task: &Task, deadline: Duration) -> Result<(Answer, Standby), WorkerError> {
    let failed = |source| WorkerError::Io { user: account.user.to_string(), source };
    let mut worker = start(account)?;
    let (Some(said), Some(heard)) = (worker.said.take(), worker.heard.take()) else {
        return Err(failed(io::ErrorKind::BrokenPipe.into()));
    };
    let pid = tokio::time::timeout(deadline, worker.pid()).await;
    let pid = pid.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed)?;
    let mut standby = Standby { user: account.user.clone(), worker, pid, heard: BufReader::new(heard), said };
    match standby.ask(task, deadline).await {
        Ok(answer) => Ok((answer, standby)),
        Err(error) => {
            standby.end().await;
            Err(error)
        }
    }
}

impl Standby {
    /// Its process id, for as long as it is not waited for.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Gives it the next task and waits for one answer.
    pub async fn ask(&mut self, task: &Task, deadline: Duration) -> Result<Answer, WorkerError> {
        let user = self.user.to_string();
        let failed = |source| WorkerError::Io { user: user.clone(), source };
        let message = task_line(task).map_err(failed)?;
        let conversation = async {
            match self.said.write_all(&message).await {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                other => other.map_err(failed)?,
            }
            let mut answer = Vec::new();
            (&mut self.heard).take(MAX_MESSAGE as u64 + 1).read_until(b'\n', &mut answer).await.map_err(failed)?;
            match read_answer(&answer) {
                Ok(Answer::Failed(error)) => Err(error.into()),
                Ok(answer) => Ok(answer),
                Err(what) => Err(WorkerError::Nonsense { user: user.clone(), what }),
            }
        };
        let stalled = stalled(self.pid, task.idle());
        match tokio::time::timeout(deadline, watched(&user, conversation, stalled)).await {
            Ok(result) => result,
            Err(_) => Err(WorkerError::Deadline { user: user.clone(), seconds: deadline.as_secs() }),
        }
    }

    /// Ends it, and waits until it has ended: whatever it had open is closed then, unless it cannot be ended.
    pub async fn end(self) {
        lingering::end(&self.user, self.worker).await;
    }
}

/// The child's process group. Killed when dropped; the group's name stays taken for as long as the child is not waited for.
#[derive(Debug)]
pub(super) struct Group(Option<Pid>);

impl Group {
    pub(super) fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    /// Resolves when nothing is left of a group that was ended, with what it is called from before that: a program that waits for a
    /// file system outlives its worker. To be asked once the child was waited for.
    pub(super) async fn is_gone(name: Option<Pid>) {
        while name.is_some_and(|name| test_kill_process_group(name) != Err(Errno::SRCH)) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// What it is called; `None` once it was ended.
    pub(super) fn name(&self) -> Option<Pid> {
        self.0
    }

    /// Ends everything in it; gone already is fine.
    pub(super) fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use super::*;

    fn account() -> Account {
        Account {
            user: "alice".parse().unwrap(),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            home: "/".into(),
            shell: "/bin/sh".into(),
        }
    }

    /// A worker whose side is played by a shell script.
    fn ask(script: &str, deadline: Duration) -> Result<Answer, WorkerError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let task = Task::Look { userdata: "/".into() };
        runtime.block_on(async { converse(&account(), Process::own(&account().user, command).unwrap(), &task, deadline).await })
    }

    /// A killed process may be seen for a moment longer, on a busy machine for many.
    fn is_gone(pid_file: &Path) -> bool {
        let pid = std::fs::read_to_string(pid_file).unwrap();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z ") {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    #[test]
    fn an_answer_comes_back_and_the_task_was_read() {
        let script = r#"grep -q '"task":"look"' && echo '{"protocol":1,"message":{"answer":"done"}}'"#;
        assert!(matches!(ask(script, Duration::from_secs(5)), Ok(Answer::Done)));
    }

    #[test]
    fn an_answer_given_without_reading_the_task_counts() {
        let script = r#"exec <&-; echo '{"protocol":1,"message":{"answer":"failed","content":{"kind":"locked","message":"m"}}}'"#;
        assert!(matches!(ask(script, Duration::from_secs(5)), Err(WorkerError::Task(error)) if error.message == "m"));
    }

    #[test]
    fn nonsense_and_floods_are_no_answer() {
        for script in ["echo '{}'", "exit 3", "kill -9 $$", "exec yes"] {
            let error = ask(script, Duration::from_secs(20)).unwrap_err();
            assert!(matches!(error, WorkerError::Nonsense { .. }), "{script}: {error}");
        }
    }

    #[test]
    fn what_a_worker_started_dies_with_its_answer_and_with_its_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let start = format!("sleep 63 >/dev/null & echo $! > {}", pid.display());
        assert!(
            ask(&format!("{start}; echo '{{\"protocol\":1,\"message\":{{\"answer\":\"done\"}}}}'"), Duration::from_secs(5))
                .is_ok()
        );
        assert!(is_gone(&pid));
        let begun = Instant::now();
        let late = ask(&format!("{start}; wait"), Duration::from_millis(200));
        assert!(matches!(late, Err(WorkerError::Deadline { .. })) && begun.elapsed() < Duration::from_secs(5));
        assert!(is_gone(&pid));
    }

    #[test]
    fn what_a_worker_started_dies_when_nobody_waits_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", &format!("sleep 64 & echo $! > {}; wait", pid.display())]);
            let (account, task) = (account(), Task::Look { userdata: "/".into() });
            let waiting = converse(&account, Process::own(&account.user, command).unwrap(), &task, Duration::from_secs(60));
            tokio::time::timeout(Duration::from_millis(300), waiting).await.unwrap_err();
        });
        assert!(is_gone(&pid));
    }
}
