//! A unit's control group as the kernel shows it: what systemd says it is doing can be a moment behind.
//!
//! Kernel, "Control Group v2": `cgroup.freeze` is what is wanted, `frozen` in `cgroup.events` is what is.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

/// Where cgroup v2 is mounted: alone, or beside v1 (systemd's hybrid layout); else systemd's own v1 hierarchy.
const MOUNTS: [(&str, &str); 3] = [
    ("/sys/fs/cgroup", "cgroup.controllers"),
    ("/sys/fs/cgroup/unified", "cgroup.controllers"),
    ("/sys/fs/cgroup/systemd", "cgroup.procs"),
];

/// By this systemd itself decides whether it can freeze anything (its `cg_freezer_supported`).
const SYSTEMD_ASKS: &str = "init.scope/cgroup.freeze";

/// One control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlGroup {
    directory: PathBuf,
}

impl ControlGroup {
    /// The group that systemd calls `name` (`UnitState::control_group`). An error when that is no such name, or when control
    /// groups are not mounted.
    pub fn named(name: &str) -> io::Result<Self> {
        let mount = MOUNTS.iter().find(|(mount, file)| Path::new(mount).join(file).exists());
        let (mount, _) = mount.ok_or_else(|| io::Error::new(ErrorKind::NotFound, "control groups are not mounted"))?;
        Self::below(Path::new(mount), name)
    }

    fn below(mount: &Path, name: &str) -> io::Result<Self> {
        let relative = Path::new(name.trim_start_matches('/'));
        let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || relative.as_os_str().is_empty() {
            return Err(io::Error::new(ErrorKind::InvalidInput, format!("\"{name}\" is no control group")));
        }
        Ok(Self { directory: mount.join(relative) })
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Why the group cannot be frozen; `None` when it can. systemd freezes only where cgroup v2 is alone.
    pub fn unfreezable(&self) -> Option<&'static str> {
        if !Path::new(MOUNTS[0].0).join(MOUNTS[0].1).exists() {
            Some("this host has no cgroup v2 of its own (unified hierarchy)")
        } else if !self.directory.join("cgroup.freeze").exists() {
            Some("its control group has no freezer")
        } else if !Path::new(MOUNTS[0].0).join(SYSTEMD_ASKS).exists() {
            Some("systemd finds no freezer on this host")
        } else {
            None
        }
    }

    /// Whether every process in it stands still. A group that is gone does not.
    pub fn is_frozen(&self) -> bool {
        fs::read_to_string(self.directory.join("cgroup.events")).is_ok_and(|text| text.lines().any(|line| line == "frozen 1"))
    }

    /// Whether it is to stand still, or does. A group that is gone does not.
    pub fn is_held(&self) -> bool {
        let wanted = fs::read_to_string(self.directory.join("cgroup.freeze")).is_ok_and(|text| text.trim() != "0");
        wanted || self.is_frozen()
    }

    /// Lets it move without asking systemd, which goes on believing what it believed. A group that is gone is fine.
    pub fn let_move(&self) -> io::Result<()> {
        match fs::write(self.directory.join("cgroup.freeze"), "0") {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Whether the process `pid` is in the control group that systemd calls `group`, or below it (cgroups(7): version 2 has the line
/// `0::PATH`). Nobody is in the group without a name.
pub fn is_member(pid: u32, group: &str) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/cgroup")) else { return false };
    let own = text.lines().find_map(|line| line.strip_prefix("0::"));
    let below = own.and_then(|own| own.strip_prefix(group));
    !group.is_empty() && below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leaves_the_tree_is_refused() {
        for name in ["/../../etc", "", "/", "a/../b"] {
            assert!(ControlGroup::below(Path::new("/x"), name).is_err(), "{name}");
        }
        let group = ControlGroup::below(Path::new("/x"), "/system.slice/a.service").unwrap();
        assert_eq!(group.directory(), Path::new("/x/system.slice/a.service"));
    }

    #[test]
    fn a_group_that_is_gone_neither_stands_nor_has_to_be_let_go() {
        let group = ControlGroup::below(Path::new("/nowhere"), "a.service").unwrap();
        assert!(!group.is_frozen() && !group.is_held());
        group.let_move().unwrap();
        assert!(group.unfreezable().is_some());
    }

    #[test]
    fn what_is_wanted_counts_as_much_as_what_is() {
        let dir = tempfile::tempdir().unwrap();
        let group = ControlGroup::below(dir.path(), "a").unwrap();
        fs::create_dir(group.directory()).unwrap();
        for (wanted, is, held) in
            [("0\n", "populated 1\nfrozen 0\n", false), ("1\n", "populated 1\nfrozen 0\n", true), ("0\n", "frozen 1\n", true)]
        {
            fs::write(group.directory().join("cgroup.freeze"), wanted).unwrap();
            fs::write(group.directory().join("cgroup.events"), is).unwrap();
            assert_eq!(group.is_held(), held, "{wanted:?} {is:?}");
        }
        group.let_move().unwrap();
        assert_eq!(fs::read_to_string(group.directory().join("cgroup.freeze")).unwrap(), "0");
    }
}
