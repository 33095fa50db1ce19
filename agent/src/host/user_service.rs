//! Whether a user's own systemd runs T3's own background service: seen from outside, by the control groups of the user's
//! processes, since that manager's bus is the user's.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

/// The unit (T3-CONTRACT, "More facts").
const UNIT: &str = "t3code.service";
/// Bytes of a file in `/proc` that are read.
const MOST: u64 = 16 << 10;

/// A process of the unit in the manager of the user `uid`, if any. Costs a read in `/proc` for each process of the user's.
pub fn running(uid: u32) -> io::Result<Option<u32>> {
    for process in fs::read_dir("/proc")? {
        let process = process?;
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that ends while we look runs nothing any more.
        if process.metadata().is_ok_and(|process| process.uid() == uid) && group(pid).is_some_and(|group| is_in_unit(&group, uid))
        {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

fn group(pid: u32) -> Option<String> {
    let mut text = String::new();
    fs::File::open(format!("/proc/{pid}/cgroup")).ok()?.take(MOST).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Whether `/proc/PID/cgroup` (cgroups(7)) names the unit below the user's manager (`user@UID.service`).
fn is_in_unit(groups: &str, uid: u32) -> bool {
    let manager = format!("user@{uid}.service");
    groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).any(|path| {
        let mut parts = path.split('/');
        parts.any(|part| part == manager) && parts.any(|part| part == UNIT)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn only_the_unit_of_the_users_own_manager_counts() {
        let below = |path: &str| is_in_unit(&format!("1:name=systemd:/\n0::{path}\n"), 1000);
        assert!(below("/user.slice/user-1000.slice/user@1000.service/app.slice/t3code.service"));
        assert!(below("/user.slice/user-1000.slice/user@1000.service/t3code.service/terminal"));
        assert!(!below("/user.slice/user-1000.slice/user@1000.service/app.slice/other.service"));
        assert!(!below("/user.slice/user-1001.slice/user@1001.service/app.slice/t3code.service"));
        assert!(!below("/system.slice/t3code.service"));
        assert!(!below("/t3code.service/user@1000.service"));
        assert!(is_in_unit("1:name=systemd:/user.slice/user-7.slice/user@7.service/t3code.service\n0::/\n", 7));
    }

    #[test]
    fn nobody_here_runs_it() {
        assert_eq!(running(u32::MAX - 7).unwrap(), None);
    }
}
