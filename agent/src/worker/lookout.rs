//! A worker that stays: the user's database is open already when a look must be quick.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe::{Receiver, Sender};

use super::process::Process;
use super::protocol::{Answer, MAX_MESSAGE, Task, read_answer, task_line};
use super::spawn::{self, WorkerError};
use crate::domain::{Account, Activity, Place};

/// A worker posted at one user's data. Dropping it ends it. As with [`super::run`], it dies with the thread that posted it.
#[derive(Debug)]
pub struct Lookout {
    user: String,
    /// Ended first.
    _worker: Process,
    stdin: Sender,
    stdout: BufReader<Receiver>,
}

impl Lookout {
    /// Posts one at `place`. What it has to say comes with [`Lookout::look`].
    pub async fn post(place: &Place) -> Result<Self, WorkerError> {
        let (account, task) = (&place.account, Task::Lookout { userdata: place.userdata() });
        let failed = |source| WorkerError::Io { user: account.user.to_string(), source };
        let message = task_line(&task).map_err(failed)?;
        let mut lookout = Self::start(account)?;
        lookout.stdin.write_all(&message).await.map_err(failed)?;
        Ok(lookout)
    }

    fn start(account: &Account) -> Result<Self, WorkerError> {
        let user = account.user.to_string();
        let mut worker = spawn::start(account)?;
        let (Some(stdin), Some(stdout)) = (worker.said.take(), worker.heard.take()) else {
            return Err(WorkerError::Io { user, source: io::Error::other("no pipes") });
        };
        Ok(Self { user, _worker: worker, stdin, stdout: BufReader::new(stdout) })
    }

    /// One look, which may take `time`. After an error there is no other: what comes late would be taken for the next answer.
    pub async fn look(&mut self, time: Duration) -> Result<Activity, WorkerError> {
        let user = self.user.clone();
        let failed = |source| WorkerError::Io { user: user.clone(), source };
        let conversation = async {
            self.stdin.write_all(format!("{}\n", time.as_millis()).as_bytes()).await.map_err(failed)?;
            let mut line = Vec::new();
            (&mut self.stdout).take(MAX_MESSAGE as u64).read_until(b'\n', &mut line).await.map_err(failed)?;
            match read_answer(&line) {
                Ok(Answer::Activity(activity)) => Ok(activity),
                Ok(Answer::Failed(error)) => Err(error.into()),
                Ok(_) => Err(WorkerError::Nonsense { user: user.clone(), what: "another answer than was asked for".to_owned() }),
                Err(what) => Err(WorkerError::Nonsense { user: user.clone(), what }),
            }
        };
        match tokio::time::timeout(time, conversation).await {
            Ok(answer) => answer,
            Err(_) => Err(WorkerError::Late { user, ms: time.as_millis() }),
        }
    }
}
