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
    /// Of the same name in the hierarchies of cgroup v1, if the host has any: the container's manager makes one for `name=systemd`.
    mirrors: Vec<PathBuf>,
}

impl Cgroup {
    /// The cgroup `name` at the top of the unified hierarchy, whether it exists or not.
    pub(crate) fn named(name: &str) -> Self {
        let mirrors = hierarchies("cgroup").into_iter().map(|top| top.join(name)).collect();
        let top =
            hierarchies("cgroup2").into_iter().next().expect("this host has no cgroup v2 mounted: no machine can be started");
        Self { path: top.join(name), mirrors }
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
            match self.mirrors.iter().chain([&self.path]).try_for_each(|path| remove_tree(path)) {
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

/// Where the host has mounted cgroups of this kind; v2 is at `/sys/fs/cgroup`, or at `unified` below it when v1 is there too.
fn hierarchies(kind: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc/self/mounts can be read");
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.filter(|fields| fields.get(2) == Some(&kind)).map(|fields| PathBuf::from(fields[1])).collect()
}
