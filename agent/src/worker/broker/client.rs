//! The agent's side: an order, the worker's two pipes, and the connection that is its life.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as Connection;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::{MOST, Order};
use crate::domain::Account;

/// A worker that the broker has, or will say why not.
#[derive(Debug)]
pub struct Brokered {
    connection: UnixStream,
    /// What the broker has said: a line with the process id, and how it ended.
    said: Vec<u8>,
}

/// Has a worker started as `account`, with these for its standard input and output.
pub fn order(socket: &Path, account: &Account, stdin: OwnedFd, stdout: OwnedFd) -> io::Result<Brokered> {
    let explain = |error: io::Error| {
        let why =
            format!("t3pin-workers.service cannot be asked ({}): {error}; see: systemctl status t3pin-workers", socket.display());
        io::Error::new(error.kind(), why)
    };
    let connection = Connection::connect(socket).map_err(explain)?;
    let order = serde_json::to_vec(&Order::of(account))?;
    let fds = [stdin.as_fd(), stdout.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !beside.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("no room for the descriptors"));
    }
    // One call, one message: it is far smaller than the socket's buffer.
    let sent = sendmsg(&connection, &[IoSlice::new(&order)], &mut beside, SendFlags::NOSIGNAL)?;
    if sent != order.len() {
        return Err(explain(io::ErrorKind::WriteZero.into()));
    }
    connection.set_nonblocking(true)?;
    Ok(Brokered { connection: UnixStream::from_std(connection)?, said: Vec::new() })
}

impl Brokered {
    /// Ends it and all that it started.
    pub fn kill(&mut self) {
        // The broker reads the end, and says once it is done. It may have closed already.
        rustix::net::shutdown(&self.connection, rustix::net::Shutdown::Write).ok();
    }

    /// The worker's process id; `None` when it was not started.
    pub async fn pid(&mut self) -> io::Result<Option<u32>> {
        while !self.said.contains(&b'\n') && self.said.len() < MOST {
            if self.connection.read_buf(&mut self.said).await? == 0 {
                break;
            }
        }
        let line = String::from_utf8_lossy(&self.said);
        Ok(line.lines().next().and_then(|line| line.parse().ok()))
    }

    /// Waits until it has ended, and says how.
    pub async fn ended(&mut self) -> io::Result<String> {
        let left = MOST.saturating_sub(self.said.len());
        (&mut self.connection).take(left as u64).read_to_end(&mut self.said).await?;
        Ok(String::from_utf8_lossy(&self.said).lines().last().unwrap_or_default().to_owned())
    }
}
