//! A cgroup of its own for each machine, so that machines do not disturb each other and that all of one can be killed at once.
//!
//! `systemd-nspawn --keep-unit` lays the container's cgroups (`payload`) into the one it was started in.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The directory of a cgroup in the unified hierarchy. Not tied to its life: who made it calls [`Cgroup::destroy`].
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// The cgroup `name` at the top of the unified hierarchy, whether it exists or not.
    pub(crate) fn named(name: &str) -> Self {
        Self { path: unified_hierarchy().join(name) }
    }

    /// Makes it.
    pub(crate) fn create(&self) {
        fs::create_dir(&self.path).unwrap_or_else(|error| panic!("cannot make the cgroup {}: {error}", self.path.display()));
    }

    /// A file or a cgroup below it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Kills everything in it (`cgroup.kill`, cgroups(7)) and waits until it is gone. Nothing to do when there is no such cgroup.
    pub(crate) fn kill(&self) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.path.exists() && self.is_populated()? {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("something in {} outlives SIGKILL", self.path.display())));
            }
            fs::write(self.join("cgroup.kill"), "1")?;
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Kills everything in it and removes it with all cgroups below it.
    pub(crate) fn destroy(&self) -> io::Result<()> {
        self.kill()?;
        // A process that was just reaped may keep its cgroup busy for a moment.
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match remove_tree(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                    sleep(Duration::from_millis(5));
                }
                done => return done,
            }
        }
    }

    fn is_populated(&self) -> io::Result<bool> {
        Ok(fs::read_to_string(self.join("cgroup.events"))?.lines().any(|line| line == "populated 1"))
    }
}

/// Cgroups are removed from the leaves up; the files in them go with them.
fn remove_tree(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// Where the host has mounted cgroup v2: `/sys/fs/cgroup`, or `unified` below it beside v1.
fn unified_hierarchy() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc/self/mounts can be read");
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&"cgroup2"))
        .map(|fields| PathBuf::from(fields[1]))
        .expect("this host has no cgroup v2 mounted: the machine cannot be started")
}
