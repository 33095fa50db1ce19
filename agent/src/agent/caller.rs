//! Where a call comes from: whoever asks from a terminal of a T3 Code server sits inside the instance that is to be bumped.

use crate::api::types::Caller;
use crate::domain::UserName;

/// The instance in whose control group the caller's process is (cgroups(7), `/proc/PID/cgroup`). It decides about the order of
/// bumps and nothing else, so that a process id that has been given to another process since does no harm.
pub fn instance_of(caller: Caller) -> Option<UserName> {
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", caller.pid)).ok()?;
    text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(unit_in)
}

/// The instance of the first `t3-serve@USER.service` on a path of control groups.
fn unit_in(path: &str) -> Option<UserName> {
    path.split('/').find_map(UserName::from_unit)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn the_instance_is_found_above_whatever_it_started_and_only_by_its_whole_name() {
        let found = |path: &str| unit_in(path).map(|user| user.to_string());
        let unit = r"/system.slice/system-t3\x2dserve.slice/t3-serve@alice.service";
        assert_eq!(found(unit).as_deref(), Some("alice"));
        assert_eq!(found(&format!("{unit}/sub/group")).as_deref(), Some("alice"));
        assert_eq!(found("/user.slice/user-1000.slice/session-3.scope"), None);
        assert_eq!(found("/system.slice/not-t3-serve@alice.service"), None);
    }

    #[test]
    fn this_test_is_inside_of_nobody() {
        assert_eq!(instance_of(Caller { uid: 0, pid: 1, privileged: true }), None);
        assert_eq!(instance_of(Caller { uid: 0, pid: 0, privileged: true }), None);
    }
}
