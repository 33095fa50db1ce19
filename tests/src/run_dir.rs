//! What one machine has on disk, `target/machine/run/NAME`, and the removal of what killed tests have left behind.
//!
//! The name is unique on the host and is also that of the machine and of its cgroup. The file `owner` names the process that
//! answers for the directory; when that process is gone, whoever boots next removes it.

use crate::cgroup::Cgroup;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The directory of one machine. Removed by [`RunDir::remove`].
#[derive(Debug)]
pub(crate) struct RunDir {
    /// Name of the machine.
    pub(crate) name: String,
    /// `target/machine/run/NAME`.
    pub(crate) path: PathBuf,
}

impl RunDir {
    /// A new one for this process.
    pub(crate) fn create(machine_dir: &Path) -> Self {
        let all = machine_dir.join("run");
        fs::create_dir_all(&all).expect("target/machine/run can be made");
        reap(&all);
        let name = format!("t3pin-test-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = all.join(&name);
        // An earlier process of the same number may have left one.
        remove(&name, &path).unwrap_or_else(|error| panic!("{} is left over and cannot be removed: {error}", path.display()));
        for part in ["upper", "work", "root"] {
            fs::create_dir_all(path.join(part)).expect("the machine's directories can be made");
        }
        let owner = identity(process::id()).expect("this process runs");
        fs::write(path.join("owner"), owner).expect("the owner can be written");
        Self { name, path }
    }

    /// Kills what runs in the machine, and removes everything of it.
    pub(crate) fn remove(&self) -> io::Result<()> {
        remove(&self.name, &self.path)
    }
}

fn remove(name: &str, path: &Path) -> io::Result<()> {
    Cgroup::named(name).destroy()?;
    // Made by systemd-nspawn for "machinectl bind"; it removes it itself only when it is not killed.
    missing_is_fine(fs::remove_dir_all(format!("/run/systemd/nspawn/propagate/{name}")))?;
    missing_is_fine(fs::remove_dir_all(path))
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Removes the machines whose owner is gone. What cannot be removed (another test may be at it too) is left for the next one.
fn reap(all: &Path) {
    let Ok(entries) = fs::read_dir(all) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        // Without an owner it is being made at this moment, or is being removed.
        let Ok(owner) = fs::read_to_string(path.join("owner")) else { continue };
        let alive = owner.split(' ').next().and_then(|pid| identity(pid.parse().ok()?)).is_some_and(|now| now == owner);
        if !alive && remove(&entry.file_name().to_string_lossy(), &path).is_ok() {
            eprintln!("removed {}, left by a test that was killed", path.display());
        }
    }
}

/// `PID STARTTIME`, which no two processes of one boot share (field 22 of `/proc/PID/stat`, proc(5)); `None` when it does not run.
fn identity(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the command in parentheses, may hold anything.
    let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?;
    Some(format!("{pid} {started}"))
}
