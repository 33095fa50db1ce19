//! The parent's side: start a child with a user's ids, ask, read the answer, end it.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::protocol::{Answer, MAX_MESSAGE, Task, TaskError};
use crate::domain::Account;

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
/// empty environment but for `HOME`, `PATH`, `USER` and `LANG`, and `/` as working directory. It is killed when
/// `deadline` passes or when the returned future is dropped. Must run as root, or as the account itself.
pub async fn run(account: &Account, task: &Task, deadline: Duration) -> Result<Answer, WorkerError> {
    let user = account.user.to_string();
    let failed = |source| WorkerError::Io { user: user.clone(), source };
    let mut command = tokio::process::Command::new("/proc/self/exe");
    command
        .arg("worker")
        .env_clear()
        .env("HOME", &account.home)
        .env("USER", account.user.as_str())
        .env("LOGNAME", account.user.as_str())
        .env("SHELL", &account.shell)
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    if rustix::process::geteuid().is_root() {
        command.uid(account.uid).gid(account.gid);
    }
    let mut child = command.spawn().map_err(failed)?;
    let conversation = async {
        let message = serde_json::to_vec(task).map_err(|e| failed(e.into()))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&message).await.map_err(failed)?;
        }
        let mut answer = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_MESSAGE as u64 + 1).read_to_end(&mut answer).await.map_err(failed)?;
        }
        if answer.len() > MAX_MESSAGE {
            return Err(WorkerError::Nonsense { user: user.clone(), what: "longer than allowed".to_owned() });
        }
        let status = child.wait().await.map_err(failed)?;
        serde_json::from_slice(&answer)
            .map_err(|error| WorkerError::Nonsense { user: user.clone(), what: format!("{status}: {error}") })
    };
    match tokio::time::timeout(deadline, conversation).await {
        Ok(Ok(Answer::Failed(error))) => Err(error.into()),
        Ok(result) => result,
        Err(_) => {
            // kill_on_drop sends SIGKILL; waiting here keeps no zombie and proves that nothing of it runs on.
            child.start_kill().ok();
            child.wait().await.ok();
            Err(WorkerError::Deadline { user, seconds: deadline.as_secs() })
        }
    }
}
