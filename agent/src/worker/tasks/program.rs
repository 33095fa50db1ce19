//! Running one short program of the user's (their t3's CLI): bounded in time and in what it may say.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::Instant;

/// Bytes that a program may print on each of its outputs.
pub const MAX_OUTPUT: usize = 64 << 10;

/// After the program has ended, how long a grandchild may still hold its outputs open.
const LINGER: Duration = Duration::from_millis(300);

/// Where the user's programs run: what they see of the world.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// `HOME`.
    pub home: std::path::PathBuf,
    /// `USER` and `LOGNAME`.
    pub user: String,
    /// `SHELL`.
    pub shell: String,
}

impl Surroundings {
    /// Those that the parent gave to this worker.
    pub fn of_worker() -> Self {
        let given = |name: &str| std::env::var(name).unwrap_or_default();
        Self { home: given("HOME").into(), user: given("USER"), shell: given("SHELL") }
    }

    /// A command that runs `program` here: clean environment, no input, telemetry off (T3-CONTRACT section 7).
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", &self.home)
            .env("USER", &self.user)
            .env("LOGNAME", &self.user)
            .env("SHELL", if self.shell.is_empty() { "/bin/sh" } else { &self.shell })
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()))
            .env("LANG", "C.UTF-8")
            .env("T3CODE_TELEMETRY_ENABLED", "false")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

/// From here on files are made with the usual modes (022), as a server or CLI that the user starts would make them, and
/// not with the worker's own narrow ones. For tasks that only run the user's programs.
pub fn usual_umask() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed; at most [`MAX_OUTPUT`] bytes.
    pub stdout: Vec<u8>,
    /// What it complained; at most [`MAX_OUTPUT`] bytes.
    pub stderr: Vec<u8>,
}

/// Why a program gave no usable output.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It could not be started.
    #[error("it could not be started: {0}")]
    Start(io::Error),
    /// It did not end in time and was killed.
    #[error("it did not end within {} s and was killed", .0.as_secs())]
    Deadline(Duration),
    /// It printed more than [`MAX_OUTPUT`] and was killed.
    #[error("it printed more than {} KiB and was killed", MAX_OUTPUT >> 10)]
    Chatty,
}

/// Runs `command` to its end. It stays in the worker's process group, which the parent kills when the worker is done, so
/// that nothing the program leaves behind in that group lives on.
pub async fn run(mut command: Command, deadline: Duration) -> Result<Ended, ProgramError> {
    let mut child = command.spawn().map_err(ProgramError::Start)?;
    let (Some(mut out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(ProgramError::Start(io::Error::other("no pipes")));
    };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (mut out_open, mut err_open) = (true, true);
    let mut ended = None;
    let mut until = Instant::now() + deadline;
    while out_open || err_open || ended.is_none() {
        tokio::select! {
            read = out.read_buf(&mut stdout), if out_open => out_open = read.is_ok_and(|n| n > 0),
            read = err.read_buf(&mut stderr), if err_open => err_open = read.is_ok_and(|n| n > 0),
            status = child.wait(), if ended.is_none() => {
                ended = Some(status.map_err(ProgramError::Start)?);
                until = until.min(Instant::now() + LINGER);
            }
            () = tokio::time::sleep_until(until) => match ended {
                Some(_) => break,
                None => return Err(end(&mut child, ProgramError::Deadline(deadline)).await),
            },
        }
        if stdout.len() > MAX_OUTPUT || stderr.len() > MAX_OUTPUT {
            return Err(end(&mut child, ProgramError::Chatty).await);
        }
    }
    match ended {
        Some(status) => Ok(Ended { status, stdout, stderr }),
        None => Err(ProgramError::Deadline(deadline)),
    }
}

async fn end(child: &mut tokio::process::Child, why: ProgramError) -> ProgramError {
    // Only fails when it has ended by itself.
    child.kill().await.ok();
    why
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn sh(script: &str, deadline: Duration) -> Result<Ended, ProgramError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let here = Surroundings { home: "/".into(), user: "u".to_owned(), shell: String::new() };
        runtime.block_on(async {
            let mut command = here.command(Path::new("/bin/sh"));
            command.args(["-c", script]);
            run(command, deadline).await
        })
    }

    #[test]
    fn output_and_status_come_back() {
        let ended = sh("echo out; echo err >&2; exit 3", Duration::from_secs(5)).unwrap();
        assert_eq!((ended.stdout.as_slice(), ended.stderr.as_slice()), (b"out\n".as_slice(), b"err\n".as_slice()));
        assert_eq!(ended.status.code(), Some(3));
    }

    #[test]
    fn a_program_that_never_stops_talking_is_ended() {
        assert!(matches!(sh("exec yes", Duration::from_secs(20)), Err(ProgramError::Chatty)));
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        assert!(matches!(sh("exec sleep 60", Duration::from_millis(100)), Err(ProgramError::Deadline(_))));
    }

    #[test]
    fn a_grandchild_that_keeps_the_pipe_does_not_hold_us_up() {
        let begun = std::time::Instant::now();
        let ended = sh("sleep 4 & echo done", Duration::from_secs(20)).unwrap();
        assert_eq!(ended.stdout, b"done\n");
        assert!(begun.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn the_environment_is_clean() {
        let ended = sh("env | sort | cut -d= -f1 | tr '\\n' ' '", Duration::from_secs(5)).unwrap();
        assert_eq!(String::from_utf8_lossy(&ended.stdout), "HOME LANG LOGNAME PATH PWD SHELL T3CODE_TELEMETRY_ENABLED USER ");
    }
}
