//! A running worker as its parent sees it: two pipes and a life to end.

use std::io;
use std::path::Path;
use std::process::Stdio;

use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::process::{Child, Command};

use super::broker::{self, client};
use super::complaints::Complaints;
use super::spawn::{Group, command};
use crate::domain::{Account, UserName};

/// A worker. Dropping it ends it, with all that it started.
#[derive(Debug)]
pub struct Process {
    life: Life,
    /// Its standard input, until it is closed.
    pub said: Option<Sender>,
    /// Its standard output, until somebody else has it.
    pub heard: Option<Receiver>,
}

#[derive(Debug)]
enum Life {
    /// A child of ours; its group is ended first.
    Own { group: Group, child: Child, _complaints: Complaints },
    /// A child of the broker's.
    Brokered(client::Brokered),
}

impl Process {
    /// Starts one as `account`: through the broker where the unit says that there is one, else as a child of this process.
    pub fn start(account: &Account) -> io::Result<Self> {
        match std::env::var_os(broker::SOCKET) {
            None => Self::own(&account.user, command(account)),
            Some(socket) => {
                let (stdin, said) = io::pipe()?;
                let (heard, stdout) = io::pipe()?;
                let life = Life::Brokered(client::order(Path::new(&socket), account, stdin.into(), stdout.into())?);
                Self::with(life, said, heard)
            }
        }
    }

    /// A child of this process.
    pub(super) fn own(user: &UserName, mut command: Command) -> io::Result<Self> {
        let (stdin, said) = io::pipe()?;
        let (heard, stdout) = io::pipe()?;
        command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn()?;
        // With our copies of its ends closed, its end is seen.
        drop(command);
        let complaints = Complaints::of(user, child.stderr.take());
        Self::with(Life::Own { group: Group::of(&child), child, _complaints: complaints }, said, heard)
    }

    fn with(life: Life, said: io::PipeWriter, heard: io::PipeReader) -> io::Result<Self> {
        let said = Some(Sender::from_owned_fd(said.into())?);
        let heard = Some(Receiver::from_owned_fd(heard.into())?);
        Ok(Self { life, said, heard })
    }

    /// Ends it, and all that it started. Gone already is fine.
    pub fn kill(&mut self) {
        match &mut self.life {
            Life::Own { group, .. } => group.kill(),
            Life::Brokered(brokered) => brokered.kill(),
        }
    }

    /// Its process id; `None` when it was not started, or has been waited for.
    pub async fn pid(&mut self) -> io::Result<Option<u32>> {
        match &mut self.life {
            Life::Own { child, .. } => Ok(child.id()),
            Life::Brokered(brokered) => brokered.pid().await,
        }
    }

    /// Waits until it has ended: whatever it had open is closed then. Says how it ended.
    pub async fn ended(&mut self) -> io::Result<String> {
        match &mut self.life {
            Life::Own { child, .. } => child.wait().await.map(|status| status.to_string()),
            Life::Brokered(brokered) => brokered.ended().await,
        }
    }
}
