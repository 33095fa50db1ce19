//! The rehearsal's sandbox: built, asked, listened to.

use std::io::{self, PipeReader, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use crate::domain::{Account, BumpId, RehearsalReport};
use crate::systemd::{Sandbox, SandboxEnd, Systemd, SystemdError};
use crate::worker::{Answer, LiveCopyReport, MAX_MESSAGE, ProbeSpec, RehearseSpec, Task, TaskErrorKind, read_answer, task_line};

/// Memory for candidate and prober: real servers idle at 0.23 to 0.28 GB, and migrate with more (T3-CONTRACT section 9).
const MEMORY_MAX: u64 = 2 << 30;

/// Processes and threads: node takes about a dozen, its short children at start a few more.
const TASKS_MAX: u64 = 512;

/// What a rehearsal may take besides the candidate's start: one mint, the handshake, stopping, checking the copy.
const BESIDES_START: Duration = Duration::from_secs(3 * 60);

/// After the sandbox has ended, how long its answer may stay in the pipe.
const DRAIN: Duration = Duration::from_secs(2);

/// Why a rehearsal gave no report.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// systemd refused the sandbox.
    #[error("the rehearsal sandbox could not be run: {0}")]
    Systemd(#[from] SystemdError),
    /// Something in the sandbox was killed for memory. Whether the host had none or the candidate wants more than the sandbox may have
    /// cannot be told.
    #[error("the rehearsal was killed for memory: the host has too little, or the candidate wants more than {} GiB", MEMORY_MAX >> 30)]
    OutOfMemory,
    /// The copy could not be looked at for want of room.
    #[error("the rehearsal had no room: {0}")]
    NoRoom(String),
    /// The sandbox ended without a usable report (killed by a limit, deadline).
    #[error("the rehearsal ended without a report ({0})")]
    NoReport(String),
}

/// Runs the candidate named by `spec.cli` on the copy whose home directory is `copy_home`, in a sandbox: own network
/// namespace, the copy bound over the user's home, read-only system, limits, deadline.
pub async fn rehearse(
    systemd: &Systemd,
    account: &Account,
    bump: BumpId,
    copy_home: &Path,
    copied: &LiveCopyReport,
    spec: ProbeSpec,
) -> Result<RehearsalReport, RehearsalError> {
    let deadline = Duration::from_millis(spec.start_ceiling_ms.max(spec.start_deadline_ms)) + BESIDES_START;
    let task = task(account, spec)?;
    let (to_sandbox, from_sandbox, stdin, stdout) = pipes().map_err(|error| no_report(format!("no pipes: {error}")))?;
    let sandbox = sandbox(account, bump, copy_home, deadline, (stdin, stdout))?;
    write_task(to_sandbox, &task).map_err(|error| no_report(format!("the task could not be handed over: {error}")))?;
    let mut from_sandbox = Receiver::from_owned_fd(from_sandbox).map_err(|error| no_report(error.to_string()))?;
    let (end, said) = converse(Box::pin(systemd.run_sandbox(sandbox)), &mut from_sandbox).await?;
    let mut report = report(&said, &end)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let since_copy = i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(copied.taken_ms);
    report.total_ms = report.total_ms.max(u64::try_from(since_copy).unwrap_or_default());
    Ok(report)
}

/// What the worker in the sandbox is asked, as bytes.
fn task(account: &Account, spec: ProbeSpec) -> Result<Vec<u8>, RehearsalError> {
    let port = spec.address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let port = port.ok_or_else(|| no_report(format!("\"{}\" has no port", spec.address)))?;
    let task = Task::Rehearse(RehearseSpec { probe: spec, port, home: account.home.clone() });
    task_line(&task).map_err(|error| no_report(error.to_string()))
}

fn sandbox(
    account: &Account,
    bump: BumpId,
    copy_home: &Path,
    deadline: Duration,
    (stdin, stdout): (OwnedFd, OwnedFd),
) -> Result<Sandbox, RehearsalError> {
    let text = |path: &Path| {
        let text = path.to_str().ok_or_else(|| no_report(format!("{} is no text, systemd wants that", path.display())));
        text.map(str::to_owned)
    };
    let home = text(&account.home)?;
    let user = account.user.to_string();
    Ok(Sandbox {
        name: format!("{}{bump}.service", super::UNIT_PREFIX),
        description: format!("t3pin: rehearsal for {user} on a copy of the data"),
        exec: vec![text(&own_program().map_err(|error| no_report(error.to_string()))?)?, "worker".to_owned()],
        user,
        environment: vec![("HOME".to_owned(), home.clone()), ("LANG".to_owned(), "C.UTF-8".to_owned())],
        working_directory: "/".to_owned(),
        private_network: true,
        read_write: vec![home.clone()],
        bind: vec![(text(copy_home)?, home)],
        credentials: Vec::new(),
        memory_max: MEMORY_MAX,
        tasks_max: TASKS_MAX,
        deadline,
        stdin: Some(stdin),
        stdout: Some(stdout),
        stderr: None,
    })
}

/// The file of this program. After an upgrade of the package the running one has no name any more, and the kernel says so
/// (proc(5), /proc/pid/exe); the new one in its place speaks the same protocol or gives no report.
fn own_program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    Ok(match path.to_str().and_then(|path| path.strip_suffix(" (deleted)")) {
        Some(replaced) => PathBuf::from(replaced),
        None => path,
    })
}

/// Our end of the task's pipe, our end of the answer's, and the sandbox's two.
fn pipes() -> io::Result<(io::PipeWriter, OwnedFd, OwnedFd, OwnedFd)> {
    let (stdin, to_sandbox): (PipeReader, _) = io::pipe()?;
    let (from_sandbox, stdout) = io::pipe()?;
    Ok((to_sandbox, from_sandbox.into(), stdin.into(), stdout.into()))
}

/// A task is far smaller than a pipe (64 KiB, pipe(7)); one that is not must not block the agent.
fn write_task(mut to_sandbox: io::PipeWriter, task: &[u8]) -> io::Result<()> {
    if task.len() > 32 << 10 {
        return Err(io::Error::other("it is too long"));
    }
    to_sandbox.write_all(task)
}

/// Waits for the sandbox's end and listens meanwhile. One that talks more than a worker may is dropped, which stops it.
async fn converse(
    sandbox: impl Future<Output = Result<SandboxEnd, SystemdError>>,
    from_sandbox: &mut Receiver,
) -> Result<(SandboxEnd, Vec<u8>), RehearsalError> {
    let mut sandbox = std::pin::pin!(sandbox);
    let mut said = Vec::new();
    let mut end = None;
    let mut open = true;
    while end.is_none() || open {
        tokio::select! {
            read = from_sandbox.read_buf(&mut said), if open => open = read.is_ok_and(|n| n > 0),
            ended = &mut sandbox, if end.is_none() => end = Some(ended?),
            // systemd may hold the pipe a little longer than the sandbox lives.
            () = tokio::time::sleep(DRAIN), if end.is_some() => open = false,
        }
        if said.len() > MAX_MESSAGE {
            return Err(no_report("it said more than it may".to_owned()));
        }
        if end.is_some() && serde_json::from_slice::<serde::de::IgnoredAny>(&said).is_ok() {
            break;
        }
    }
    end.map(|end| (end, said)).ok_or_else(|| no_report("it never ended".to_owned()))
}

fn report(said: &[u8], end: &SandboxEnd) -> Result<RehearsalReport, RehearsalError> {
    match read_answer(said) {
        Ok(Answer::Rehearsal(report)) => Ok(*report),
        Ok(Answer::Failed(error)) if error.kind == TaskErrorKind::NoSpace => Err(RehearsalError::NoRoom(error.to_string())),
        Ok(Answer::Failed(error)) => Err(no_report(error.to_string())),
        Ok(_) => Err(no_report("it answered something else than was asked".to_owned())),
        Err(_) if end.result == "oom-kill" => Err(RehearsalError::OutOfMemory),
        Err(what) if !said.is_empty() => Err(no_report(format!("it ended as \"{}\", status {}: {what}", end.result, end.status))),
        Err(_) => Err(no_report(format!("it ended as \"{}\", status {}", end.result, end.status))),
    }
}

fn no_report(why: String) -> RehearsalError {
    RehearsalError::NoReport(why)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::domain::{Paired, ProbeReport};
    use crate::worker::TaskError;

    fn ok() -> SandboxEnd {
        SandboxEnd { result: "success".to_owned(), status: 0 }
    }

    fn account() -> Account {
        let (home, shell) = ("/home/alice".into(), "/bin/sh".into());
        Account { user: "alice".parse().unwrap(), uid: 1000, gid: 1000, home, shell }
    }

    fn answer() -> Vec<u8> {
        let report = RehearsalReport {
            probe: ProbeReport::default(),
            level_before: None,
            level_after: None,
            start_ms: 0,
            total_ms: 1,
            sessions_lost: 0,
            lost: Paired::default(),
            work_lost: 0,
            intact: true,
            output_tail: Vec::new(),
        };
        crate::worker::answer_line(&Answer::Rehearsal(Box::new(report))).unwrap()
    }

    fn talk(says: Vec<u8>, keeps_open: bool, end: SandboxEnd) -> Result<RehearsalReport, RehearsalError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_, from_sandbox, _, stdout) = pipes().unwrap();
            let writer = std::thread::spawn(move || {
                let mut stdout = std::fs::File::from(stdout);
                let written = stdout.write_all(&says);
                (keeps_open && written.is_ok()).then_some(stdout)
            });
            let mut receiver = Receiver::from_owned_fd(from_sandbox).unwrap();
            let sandbox = async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok(end)
            };
            let (end, said) = converse(sandbox, &mut receiver).await?;
            drop(receiver);
            drop(writer.join());
            report(&said, &end)
        })
    }

    #[test]
    fn the_sandbox_has_the_copy_for_a_home_and_no_network() {
        let (_, _, stdin, stdout) = pipes().unwrap();
        let copy = Path::new("/home/.t3pin/alice/copy");
        let built = sandbox(&account(), BumpId(7), copy, Duration::from_secs(1), (stdin, stdout)).unwrap();
        assert_eq!(built.name, "t3pin-rehearse-b000007.service");
        assert_eq!(built.bind, [("/home/.t3pin/alice/copy".to_owned(), "/home/alice".to_owned())]);
        assert_eq!(
            (built.user.as_str(), built.private_network, built.read_write.as_slice()),
            ("alice", true, &["/home/alice".to_owned()][..])
        );
        assert_eq!(built.exec[1], "worker");
    }

    #[test]
    fn a_report_is_taken_even_when_systemd_still_holds_the_pipe() {
        let begun = Instant::now();
        assert!(talk(answer(), true, ok()).is_ok());
        assert!(begun.elapsed() < DRAIN);
    }

    #[test]
    fn a_sandbox_that_was_killed_gives_no_report() {
        let killed = |result: &str| talk(Vec::new(), false, SandboxEnd { result: result.to_owned(), status: 9 }).unwrap_err();
        assert!(matches!(killed("oom-kill"), RehearsalError::OutOfMemory), "whose fault that is cannot be told");
        assert!(matches!(killed("timeout"), RehearsalError::NoReport(_)));
    }

    #[test]
    fn a_copy_that_could_not_be_looked_at_for_want_of_room_condemns_nobody() {
        let failed = |kind| {
            let error = TaskError { kind, message: "reading the copy".to_owned() };
            talk(crate::worker::answer_line(&Answer::Failed(error)).unwrap(), false, ok()).unwrap_err()
        };
        assert!(matches!(failed(TaskErrorKind::NoSpace), RehearsalError::NoRoom(_)));
        assert!(matches!(failed(TaskErrorKind::Other), RehearsalError::NoReport(_)));
    }

    #[test]
    fn a_sandbox_that_talks_without_end_is_dropped() {
        assert!(talk(vec![b' '; MAX_MESSAGE + (1 << 17)], false, ok()).is_err());
    }
}
