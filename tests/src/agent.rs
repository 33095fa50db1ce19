//! The agent on a machine: installing it, asking it, killing it, waiting for it.

use crate::Machine;
use crate::machine::repository;
use serde_json::Value;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

impl Machine {
    /// Installs the package under test with apt, as an operator does. It is the one that the environment variable `T3PIN_DEB` names,
    /// or the newest in `target/debian`.
    #[track_caller]
    pub fn install_deb(&self) {
        self.install_package(&deb());
    }

    /// Installs a package of the host's with apt, and needs no network for it.
    #[track_caller]
    pub fn install_package(&self, deb: &Path) {
        let deb = self.copy_in(deb);
        self.ok(&format!("DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends '{deb}' 2>&1"));
    }

    /// `t3pin status --json`; its exit code says how things are, too, and is not looked at.
    #[track_caller]
    pub fn status(&self) -> Value {
        let output = self.sh("t3pin status --json");
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("t3pin status --json is not JSON: {error}\n{output}"))
    }

    /// Waits, asking every 50 ms, until `done` says so. When it does not in time, the test fails with the agent's journal and status.
    #[track_caller]
    pub fn wait_until(&self, what: &str, timeout: Duration, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + timeout;
        while !done(self) {
            if Instant::now() > deadline {
                let journal = self.sh("journalctl -u t3pin -n 100 --no-pager").stdout;
                let status = self.sh("t3pin status --json");
                panic!("waited {timeout:?} in vain for: {what}\n{journal}\nt3pin status: {status}");
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// Kills the agent with SIGKILL, as a crash would.
    #[track_caller]
    pub fn kill_agent(&self) {
        self.ok("pid=$(systemctl show --property=MainPID --value t3pin.service); [ \"$pid\" -gt 1 ] && kill -KILL \"$pid\"");
    }

    /// The id of this run of a unit: changes with every start of it (`InvocationID`, systemd.exec(5)). Empty when it does not run.
    #[track_caller]
    pub fn invocation(&self, unit: &str) -> String {
        self.ok(&format!("systemctl show --property=InvocationID --value '{unit}'"))
    }
}

fn deb() -> PathBuf {
    if let Some(deb) = env::var_os("T3PIN_DEB") {
        return deb.into();
    }
    let packages = fs::read_dir(repository().join("target/debian")).into_iter().flatten().flatten();
    packages
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .max_by_key(|path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok())
        .expect("there is no package in target/debian: run packaging/build, or name one in T3PIN_DEB")
}
