//! From inside which instance somebody calls: the terminal of a web UI is a child of that user's server, and whoever orders
//! a bump there would pull the floor from under their own feet.
//!
//! The control group decides, since nobody can leave it without root: neither a new session nor a daemon's double fork hides
//! where a process belongs. The path is read from the top: only slices may come before the unit's own name, so that a group
//! that a user makes in what systemd has delegated to them (`user@1000.service/...`) cannot pass for a unit of the system's.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{getsockopt, sockopt};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::domain::UserName;

/// Bytes of a file in `/proc` that are read; a control group's path is a few hundred at most.
const MOST: u64 = 16 << 10;

/// The user in whose `t3-serve@USER.service` the process at the other end of the unix socket `connection` runs; `None` when it
/// runs elsewhere, or cannot be told. Costs a few reads in `/proc`; never blocks.
///
/// Who calls is a process descriptor from the kernel (SO_PEERPIDFD, Linux 6.5; unix(7)): it never means another process. On
/// older kernels it is opened by the number that the connection was made under, which could in theory be somebody else's by
/// now. Whoever decides something by the answer must be content with "goes last": it is no credential.
pub fn unit_of_caller(connection: &impl AsFd) -> Option<UserName> {
    let caller = match getsockopt(connection, sockopt::PeerPidfd) {
        Ok(pidfd) => pidfd,
        Err(_) => {
            let pid = getsockopt(connection, sockopt::PeerCredentials).ok()?.pid();
            pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?
        }
    };
    unit_of_process(&caller)
}

/// As [`unit_of_caller`], for a process descriptor (pidfd_open(2)).
fn unit_of_process(process: &OwnedFd) -> Option<UserName> {
    let pid = pid_of(process)?;
    let groups = read(&format!("/proc/{pid}/cgroup"))?;
    // Still the same process, so what was read was its own: a number is not given to another before the descriptor says -1.
    (pid_of(process)? == pid).then(|| unit_in(&groups)).flatten()
}

/// The process id, as long as the process is there (`Pid:` in fdinfo, pidfd_open(2); -1 once it is gone).
fn pid_of(process: &OwnedFd) -> Option<i32> {
    use std::os::fd::AsRawFd;
    let info = read(&format!("/proc/self/fdinfo/{}", process.as_raw_fd()))?;
    let pid: i32 = info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    (pid > 0).then_some(pid)
}

fn read(path: &str) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(MOST).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The user whose unit `/proc/PID/cgroup` names (cgroups(7)): version 2, or systemd's own hierarchy of version 1.
fn unit_in(groups: &str) -> Option<UserName> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::").filter(|path| *path != "/"));
    let path = path.or_else(|| groups.lines().find_map(|line| line.split_once(":name=systemd:").map(|(_, path)| path)))?;
    let unit = path.split('/').filter(|part| !part.is_empty()).find(|part| !part.ends_with(".slice"))?;
    UserName::from_unit(unit)
}

/// See `crate::fuzzing`.
#[cfg(feature = "fuzzing")]
pub fn fuzz_groups(groups: &str) {
    unit_in(groups);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::os::unix::net::UnixStream;

    use proptest::prelude::*;

    use super::*;

    fn user(groups: &str) -> Option<String> {
        unit_in(groups).map(|user| user.to_string())
    }

    #[test]
    fn a_process_anywhere_below_a_unit_belongs_to_it() {
        for below in ["", "/terminal", "/a/b.scope"] {
            let unit = format!("0::/system.slice/system-t3\\x2dserve.slice/t3-serve@first.last.service{below}\n");
            assert_eq!(user(&unit).as_deref(), Some("first.last"));
            assert_eq!(
                user(&format!("4:memory:/x\n1:name=systemd:/a.slice/t3-serve@bob.service{below}\n0::/\n")).unwrap(),
                "bob"
            );
        }
        assert_eq!(user("0::/t3-serve@carol.service\n").as_deref(), Some("carol"));
    }

    #[test]
    fn a_group_that_only_looks_like_a_unit_is_none() {
        for path in [
            "/user.slice/user-1000.slice/user@1000.service/app.slice/t3-serve@bob.service",
            "/user.slice/user-1000.slice/session-1.scope/t3-serve@bob.service",
            "/system.slice/t3pin.service",
            "/system.slice/t3-serve@.service",
            "/system.slice/t3-serve@a b.service",
            "/",
            "",
        ] {
            assert_eq!(user(&format!("0::{path}\n")), None, "{path}");
        }
    }

    #[test]
    fn a_caller_outside_of_every_instance_is_in_none() {
        let (here, _there) = UnixStream::pair().unwrap();
        assert_eq!(unit_of_caller(&here), None);
    }

    #[test]
    fn a_caller_that_has_gone_is_in_no_unit() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let descriptor = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        assert_eq!(pid_of(&descriptor), Some(pid.as_raw_nonzero().get()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(pid_of(&descriptor), None);
        assert_eq!(unit_of_process(&descriptor), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = unit_in(&text);
        }
    }
}
