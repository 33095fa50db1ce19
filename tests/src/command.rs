//! Running commands in a machine: as root, in all its namespaces, with the environment of a fresh login.

use crate::Machine;
use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Makes the names of the files with output unique.
static NEXT: AtomicU32 = AtomicU32::new(0);

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
        // Files and not pipes: what a script leaves running in the background would hold a pipe open.
        let (stdout, stderr) = (self.nameless_file(), self.nameless_file());
        let mut child = self
            .nsenter(&["timeout", "--kill-after=5", DEADLINE], script)
            .stdin(Stdio::piped())
            .stdout(stdout.try_clone().expect("a file can be shared"))
            .stderr(stderr.try_clone().expect("a file can be shared"))
            .spawn()
            .expect("/bin/sh can be started");
        let mut stdin = child.stdin.take().expect("is piped");
        // A command that reads nothing is fine too.
        stdin.write_all(input.as_bytes()).ok();
        drop(stdin);
        let status = child.wait().expect("it can be waited for");
        Output { code: code(status), stdout: contents(stdout), stderr: contents(stderr) }
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

    fn nameless_file(&self) -> File {
        let path = self.run_dir().join(format!("output-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let file = File::options().read(true).write(true).create_new(true).open(&path).expect("the run directory can be written");
        fs::remove_file(path).expect("it was just made");
        file
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

/// All that was written to it, through whatever handle.
fn contents(mut file: File) -> String {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).expect("is a file");
    file.read_to_end(&mut bytes).expect("can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn code(status: ExitStatus) -> i32 {
    // Ended by a signal: as a shell would say it.
    status.code().unwrap_or(137)
}
