//! Another process of the user's that has the database open, played by a test that is ignored elsewhere. It is told what to do by lines,
//! and answers with lines that begin with `said `.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use super::stage::UID;

pub struct Process {
    child: Child,
    heard: BufReader<ChildStdout>,
}

impl Process {
    /// Starts the test `plays` on `database` (in `T3PIN_TEST_DATABASE`), and waits for its first answer.
    pub fn start(plays: &str, database: &Path) -> Self {
        // By descriptor, as the user may not be allowed to walk to where it was built.
        let binary = fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let mut child = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
            .args(["--exact", "--ignored", "--nocapture", plays])
            .env("T3PIN_TEST_DATABASE", database)
            .current_dir("/")
            .uid(UID)
            .gid(UID)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let heard = BufReader::new(child.stdout.take().unwrap());
        let mut process = Self { child, heard };
        process.hear();
        process
    }

    /// Its next answer.
    pub fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.heard.read_line(&mut line).unwrap() > 0, "it has ended");
            if let Some((_, said)) = line.trim_end().split_once("said ") {
                return said.to_owned();
            }
        }
    }

    pub fn tell(&mut self, what: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{what}").unwrap();
    }

    /// Tells it something and waits for its answer.
    pub fn ask(&mut self, what: &str) -> String {
        self.tell(what);
        self.hear()
    }

    /// It closes its database and ends.
    pub fn close(mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
