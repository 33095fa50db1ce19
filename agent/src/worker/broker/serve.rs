//! `t3pin workers`: the broker itself. One thread, which every worker dies with (prctl(2), PR_SET_PDEATHSIG).

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::{MOST, read_order};
use crate::worker::complaints::Complaints;
use crate::worker::confine;
use crate::worker::spawn::{Group, command};

/// With nobody to work for it ends; the socket starts it again.
const IDLE: Duration = Duration::from_secs(60);
/// An order follows the connection at once.
const ORDER: Duration = Duration::from_secs(5);

/// Runs on the socket that systemd hands over, until it has been idle for a while.
pub fn main() -> ExitCode {
    let served = listener().and_then(|listener| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { serve(UnixListener::from_std(listener)?, IDLE).await })
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("t3pin workers cannot go on: {error}");
            ExitCode::FAILURE
        }
    }
}

fn listener() -> io::Result<std::os::unix::net::UnixListener> {
    let listener = listenfd::ListenFd::from_env().take_unix_listener(0)?;
    let listener = listener.ok_or_else(|| io::Error::other("this is started by t3pin-workers.socket, and not by hand"))?;
    listener.set_nonblocking(true)?;
    // No worker inherits it.
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::CLOEXEC)?;
    Ok(listener)
}

async fn serve(listener: UnixListener, idle: Duration) -> io::Result<()> {
    if let Some(missing) = confine::missing_here() {
        eprintln!("<4>workers run with less of a cage than they could have: {missing}");
    }
    let mut workers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                workers.spawn(accompany(accepted?.0));
            }
            Some(_) = workers.join_next() => {}
            () = tokio::time::sleep(idle), if workers.is_empty() => return Ok(()),
        }
    }
}

/// One worker from its order to its end.
async fn accompany(mut agent: UnixStream) {
    let end = match work(&mut agent).await {
        Ok(end) | Err(end) => end,
    };
    // Nobody may be there to hear it.
    agent.write_all(end.as_bytes()).await.ok();
}

async fn work(agent: &mut UnixStream) -> Result<String, String> {
    let own = rustix::process::geteuid().as_raw();
    if agent.peer_cred().map_err(|error| error.to_string())?.uid() != own {
        return Err("only the agent may have workers started".to_owned());
    }
    let received = tokio::time::timeout(ORDER, receive(agent)).await;
    let (order, stdin, stdout) =
        received.map_err(|_| "no order came".to_owned())?.map_err(|error| format!("the order could not be read: {error}"))?;
    let account = read_order(&order)?;
    let mut command = command(&account);
    command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("the worker could not be started: {error}"))?;
    // Its pipes are its own from here on.
    drop(command);
    let mut group = Group::of(&child);
    let complaints = Complaints::of(&account.user, child.stderr.take());
    if let Some(pid) = child.id() {
        // Who does not hear it has gone, and is seen to have gone below.
        agent.write_all(format!("{pid}\n").as_bytes()).await.ok();
    }
    let mut nothing = [0; 1];
    tokio::select! {
        _ = child.wait() => {}
        // Its end, or something that nobody says here.
        _ = agent.read(&mut nothing) => {}
    }
    let name = group.name();
    group.kill();
    let end = child.wait().await;
    Group::is_gone(name).await;
    complaints.end().await;
    end.map(|status| status.to_string()).map_err(|error| error.to_string())
}

/// One message with two descriptors.
async fn receive(agent: &UnixStream) -> io::Result<(Vec<u8>, OwnedFd, OwnedFd)> {
    agent
        .async_io(Interest::READABLE, || {
            let mut order = vec![0; MOST];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut beside = RecvAncillaryBuffer::new(&mut space);
            let received = recvmsg(
                agent.as_fd(),
                &mut [IoSliceMut::new(&mut order)],
                &mut beside,
                RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
            )?;
            order.truncate(received.bytes);
            let mut fds = beside.drain().flat_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
                _ => Vec::new(),
            });
            match (fds.next(), fds.next()) {
                (Some(stdin), Some(stdout)) => Ok((order, stdin, stdout)),
                _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the worker's pipes are not beside it")),
            }
        })
        .await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::io::{PipeReader, PipeWriter, Read, Write};
    use std::path::PathBuf;

    use super::super::client::{Brokered, order};
    use super::*;
    use crate::domain::Account;

    fn account(uid: u32) -> Account {
        Account { user: "alice".parse().unwrap(), uid, gid: uid, home: "/".into(), shell: "/bin/sh".into() }
    }

    /// A broker that listens, and what runs it.
    fn broker() -> (tempfile::TempDir, PathBuf, tokio::runtime::Runtime) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("workers.sock");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(async { UnixListener::bind(&path).unwrap() });
        runtime.spawn(serve(listener, Duration::from_secs(60)));
        (dir, path, runtime)
    }

    fn ask(path: &std::path::Path, account: &Account) -> io::Result<(Brokered, PipeWriter, PipeReader)> {
        let (stdin, said) = io::pipe()?;
        let (heard, stdout) = io::pipe()?;
        Ok((order(path, account, stdin.into(), stdout.into())?, said, heard))
    }

    #[test]
    fn root_has_no_worker_and_is_told_why() {
        let (_dir, path, runtime) = broker();
        runtime.block_on(async {
            let (mut brokered, _said, mut heard) = ask(&path, &account(0)).unwrap();
            assert!(brokered.ended().await.unwrap().contains("as root"));
            let mut answer = Vec::new();
            heard.read_to_end(&mut answer).unwrap();
            assert!(answer.is_empty(), "nothing was started");
        });
    }

    #[test]
    fn a_broker_without_work_ends() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = UnixListener::bind(dir.path().join("s")).unwrap();
            serve(listener, Duration::from_millis(10)).await.unwrap();
        });
    }

    #[test]
    fn a_broker_that_is_not_there_is_said_to_be_so() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let error = ask(std::path::Path::new("/nowhere/s"), &account(1000)).map(drop).unwrap_err();
            assert!(error.to_string().contains("systemctl status t3pin-workers"), "{error}");
        });
    }

    #[test]
    fn an_order_without_pipes_starts_nothing() {
        let (_dir, path, _runtime) = broker();
        let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
        stream.write_all(b"{}").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert!(said.contains("pipes are not beside it"), "{said}");
    }
}
