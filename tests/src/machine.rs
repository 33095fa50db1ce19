//! Booting, rebooting and removing a machine.
//!
//! An overlay file system, mounted in a mount namespace that only the container's manager has, lies over the layers of
//! `tests/machine/build`; `systemd-nspawn` boots it. So there is no mount to be left behind: it goes with the last process.

use crate::cgroup::Cgroup;
use crate::run_dir::RunDir;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a boot may take on a host that has much else to do.
const BOOT_DEADLINE: Duration = Duration::from_secs(90);

/// How the manager ends with `--keep-unit` when the container reboots, for its caller to start it again.
const REBOOT: i32 = 133;

/// Has settled, and its registry answers.
const BOOTED: &str = "case $(systemctl is-system-running) in running | degraded) ;; *) exit 1 ;; esac
    curl --silent --fail --max-time 2 --output /dev/null http://127.0.0.1:4873/-/ping";

/// Joins the machine's cgroup, mounts its file system where only it sees it, and becomes the container's manager.
const START: &str = r#"
    set -e
    echo $$ >"$CGROUP/cgroup.procs"
    cd "$RUN"
    mount -t overlay "$NAME" -o "lowerdir=$LOWER,upperdir=upper,workdir=work" root
    # nspawn's own filter of system calls knows no pidfd_getfd(2) and no landlock(7); a host has no such filter.
    exec systemd-nspawn --system-call-filter="pidfd_getfd landlock_create_ruleset landlock_add_rule landlock_restrict_self" --quiet --register=no --keep-unit --settings=no $NETWORK --link-journal=no \
        --timezone=off --console=read-only --boot --directory=root --machine="$NAME"
"#;

/// What a machine sees of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// Nothing but itself.
    Own,
    /// What the host sees.
    Host,
}

impl Network {
    /// How systemd-nspawn is told. On the host's network the machine needs CAP_NET_ADMIN all the same, or else its units with a network
    /// of their own have a loopback that is down.
    fn options(self) -> &'static str {
        match self {
            Self::Own => "--private-network --resolv-conf=off",
            Self::Host => "--capability=CAP_NET_ADMIN --resolv-conf=copy-host",
        }
    }
}

/// A running machine; gone when dropped, also when the test panics.
#[derive(Debug)]
pub struct Machine {
    run: RunDir,
    cgroup: Cgroup,
    manager: Option<Child>,
    /// Its PID 1, as the host numbers it; changes with a reboot.
    leader: u32,
    network: Network,
}

impl Machine {
    /// Boots a fresh machine: settled, the registry answering, nothing of t3pin installed.
    pub fn boot() -> Self {
        Self::boot_with(Network::Own)
    }

    pub(crate) fn boot_with(network: Network) -> Self {
        let machine_dir = repository().join("target/machine");
        if !machine_dir.join("layers").exists() {
            let status = Command::new(repository().join("tests/machine/build")).status();
            assert!(status.is_ok_and(|status| status.success()), "tests/machine/build failed");
        }
        let run = RunDir::create(&machine_dir);
        let cgroup = Cgroup::named(&run.name);
        let mut machine = Self { run, cgroup, manager: None, leader: 0, network };
        machine.start();
        machine
    }

    /// Its name on the host.
    pub fn name(&self) -> &str {
        &self.run.name
    }

    /// Reboots in order, as `systemctl reboot` does, and returns when it has booted again.
    #[track_caller]
    pub fn reboot(&mut self) {
        self.sh("systemctl reboot");
        let code = self.await_end(BOOT_DEADLINE);
        assert_eq!(code, Some(REBOOT), "{} did not reboot:\n{}", self.run.name, self.console());
        self.stop();
        self.start();
    }

    /// Cuts the power: everything is killed at the same instant; then boots again from what lies on disk.
    pub fn power_cut(&mut self) {
        self.stop();
        self.start();
    }

    /// The host's process id of its PID 1.
    pub(crate) fn leader(&self) -> u32 {
        self.leader
    }

    /// What it has on the host's disk.
    pub(crate) fn run_dir(&self) -> &Path {
        &self.run.path
    }

    /// The cgroup its commands run in: the container's own, so that they are killed with it and look at home in it.
    pub(crate) fn command_cgroup(&self) -> PathBuf {
        self.cgroup.join("payload/commands")
    }

    fn start(&mut self) {
        self.cgroup.create();
        let machine_dir = self.run.path.ancestors().nth(2).expect("lies below target/machine");
        // Held until the layers are in use, so that a build at the same time does not remove them.
        let build = File::create(machine_dir.join("build.lock")).expect("the lock of the build can be opened");
        build.lock_shared().expect("the lock of the build can be taken");
        let layers = fs::read_to_string(machine_dir.join("layers")).expect("tests/machine/build has been run");
        let console = File::options().create(true).append(true).open(self.run.path.join("console")).expect("a log can be made");
        let manager = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "/bin/sh", "-c", START])
            .env("CGROUP", self.cgroup.join(""))
            .env("RUN", &self.run.path)
            .env("NAME", &self.run.name)
            .env("NETWORK", self.network.options())
            .env("LOWER", layers.lines().collect::<Vec<_>>().join(":"))
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .stdin(Stdio::null())
            .stdout(console.try_clone().expect("the log can be shared"))
            .stderr(console)
            .spawn()
            .expect("unshare can be started");
        self.manager = Some(manager);
        self.await_boot();
    }

    fn await_boot(&mut self) {
        let deadline = Instant::now() + BOOT_DEADLINE;
        loop {
            let manager = self.manager.as_mut().expect("has been started");
            if let Some(leader) = leader_of(manager.id()) {
                self.leader = leader;
                let commands = self.command_cgroup();
                if (commands.exists() || fs::create_dir(&commands).is_ok()) && self.sh(BOOTED).code == 0 {
                    return;
                }
            } else if let Ok(Some(status)) = manager.try_wait() {
                panic!("{} ended with {status} while booting:\n{}", self.run.name, self.console());
            }
            if Instant::now() > deadline {
                let jobs = self.sh("systemctl is-system-running; systemctl list-jobs; systemctl --failed");
                panic!("{} has not booted in {BOOT_DEADLINE:?}:\n{}\n{jobs}", self.run.name, self.console());
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// Kills everything at the same instant, and takes away what is not on disk.
    fn stop(&mut self) {
        // The container first: its manager then reaps its PID 1 and cleans up behind itself.
        let payload = self.cgroup.join("payload/cgroup.kill");
        if payload.exists() && fs::write(payload, "1").is_ok() {
            self.await_end(Duration::from_secs(5));
        }
        if let Err(error) = self.cgroup.kill() {
            eprintln!("{}: {error}", self.run.name);
        }
        if let Some(mut manager) = self.manager.take() {
            // It may not have reached the cgroup yet.
            manager.kill().ok();
            manager.wait().ok();
        }
        if let Err(error) = self.cgroup.destroy() {
            eprintln!("{}: its cgroup is left: {error}", self.run.name);
        }
    }

    /// The exit code of the container's manager, when it ends in time.
    fn await_end(&mut self, timeout: Duration) -> Option<i32> {
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            if let Some(status) = self.manager.as_mut().and_then(|manager| manager.try_wait().ok().flatten()) {
                return status.code();
            }
            sleep(Duration::from_millis(5));
        }
        None
    }

    fn console(&self) -> String {
        fs::read_to_string(self.run.path.join("console")).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
        if let Err(error) = self.run.remove() {
            eprintln!("{} is left behind: {error}", self.run.path.display());
        }
    }
}

/// The container's PID 1 once it is systemd: a child of the manager that has a number of its own inside (`NSpid`, proc(5)).
fn leader_of(manager: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{manager}/task/{manager}/children")).ok()?;
    children.split_whitespace().filter_map(|child| child.parse().ok()).find(|child: &u32| {
        let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
        let is = |key: &str, wanted: fn(&str) -> bool| status.lines().any(|line| line.strip_prefix(key).is_some_and(wanted));
        is("Name:", |name| name.trim() == "systemd") && is("NSpid:", |pids| pids.split_whitespace().skip(1).last() == Some("1"))
    })
}

/// The top of the source tree.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository")
}
