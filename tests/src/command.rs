//! Running commands in a machine: as root, in all its namespaces, with the environment of a fresh login.

use crate::Machine;
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

/// Seconds after which a command is killed: it hangs, and the test is to say where.
const DEADLINE: &str = "300";

/// What a command said. Text that is not UTF-8 is replaced.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; 124 when it had to be ended after five minutes.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

impl Machine {
    /// Runs a bash script, in `/`, and returns what came of it.
    pub fn sh(&self, script: &str) -> Output {
        self.sh_with_input(script, "")
    }

    /// As [`Machine::sh`], with `input` on standard input.
    pub fn sh_with_input(&self, script: &str, input: &str) -> Output {
        let mut child = self
            .nsenter(&["timeout", "--kill-after=5", DEADLINE], script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("/bin/sh can be started");
        let mut stdin = child.stdin.take().expect("is piped");
        let output = thread::scope(|scope| {
            // In a thread of its own, since a command may say much before it reads. One that reads nothing is fine too.
            scope.spawn(move || stdin.write_all(input.as_bytes()).ok());
            child.wait_with_output().expect("its output can be read")
        });
        Output {
            code: code(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a bash script that must succeed, and returns what it printed, without the white space around it.
    #[track_caller]
    pub fn ok(&self, script: &str) -> String {
        let output = self.sh(script);
        assert!(output.code == 0, "{script}: {output}");
        output.stdout.trim().to_owned()
    }

    /// Writes a file, and makes the directories above it.
    #[track_caller]
    pub fn write(&self, path: &str, text: &str) {
        let output = self.sh_with_input(&format!("mkdir -p \"$(dirname '{path}')\" && cat >'{path}'"), text);
        assert!(output.code == 0, "{path} could not be written: {output}");
    }

    /// Copies a file of the host to `/root`, and returns its path there.
    #[track_caller]
    pub fn copy_in(&self, file: &Path) -> String {
        let name = file.file_name().expect("a file has a name").to_string_lossy();
        let inside = format!("/proc/{}/root/root/{name}", self.leader());
        fs::copy(file, inside).unwrap_or_else(|error| panic!("{} cannot be copied into the machine: {error}", file.display()));
        format!("/root/{name}")
    }

    /// Runs a bash script with the caller's terminal, and returns its exit code. For people.
    pub fn interactive(&self, script: &str) -> i32 {
        self.nsenter(&["env"], script).status().map_or(127, code)
    }

    fn nsenter(&self, wrapper: &[&str], script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"echo $$ >"$0/cgroup.procs"; exec "$@""#]).arg(self.command_cgroup()).args(wrapper);
        command.args(["nsenter", "--all", "--root", "--wd", "--target", &self.leader().to_string(), "--"]);
        command.args(["/usr/bin/env", "-i", "HOME=/root", "USER=root", "LOGNAME=root", "LANG=C.UTF-8", "TERM=dumb"]);
        command.args(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "bash", "-c", script]);
        command
    }
}

fn code(status: ExitStatus) -> i32 {
    // Ended by a signal: as a shell would say it.
    status.code().unwrap_or(137)
}
