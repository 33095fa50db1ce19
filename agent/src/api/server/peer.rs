//! Who calls: from a uid the kernel vouches for to what it may do.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::{Group, Uid, User, getgrouplist};
use tokio::net::unix::UCred;

use super::super::types::Caller;

/// Members of this group see and change everything, as root does (DESIGN section 8).
const GROUP: &str = "t3pin";

/// For how long an answer of the group database holds: somebody who is taken out of the group loses the right within this.
const MEMORY: Duration = Duration::from_secs(5);

/// How long the group database (which may be a directory server) may take before the caller is treated as an ordinary user.
const PATIENCE: Duration = Duration::from_secs(3);

/// Tells privileged callers from others.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    known: Arc<Mutex<HashMap<u32, (Instant, bool)>>>,
}

impl Peers {
    /// The caller behind `credentials`, which are those of the connection. Root never waits for the group database.
    pub async fn identify(&self, credentials: UCred) -> Caller {
        let uid = credentials.uid();
        let privileged = uid == 0 || self.is_member(uid).await;
        Caller { uid, pid: credentials.pid().unwrap_or(0), privileged }
    }

    async fn is_member(&self, uid: u32) -> bool {
        if let Some(member) = self.remembered(uid) {
            return member;
        }
        let looking = tokio::task::spawn_blocking(move || is_in(uid, GROUP));
        let member = match tokio::time::timeout(PATIENCE, looking).await {
            Ok(Ok(Ok(member))) => member,
            Ok(Ok(Err(error))) => {
                tracing::warn!(uid, "cannot look up the groups of uid {uid}, who therefore counts as an ordinary user: {error}");
                false
            }
            Ok(Err(_)) | Err(_) => {
                tracing::warn!(uid, "the group database does not answer; uid {uid} counts as an ordinary user until it does");
                false
            }
        };
        self.remember(uid, member);
        member
    }

    fn remembered(&self, uid: u32) -> Option<bool> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&uid).filter(|(at, _)| at.elapsed() < MEMORY).map(|(_, member)| *member)
    }

    fn remember(&self, uid: u32, member: bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (at, _)| at.elapsed() < MEMORY);
        known.insert(uid, (Instant::now(), member));
    }
}

/// Whether the user database has `uid` in `group`, as primary or supplementary group. A group that this host does not have
/// has no members. Blocks (getpwuid_r(3), getgrouplist(3)).
fn is_in(uid: u32, group: &str) -> nix::Result<bool> {
    let Some(group) = Group::from_name(group)? else { return Ok(false) };
    let Some(user) = User::from_uid(Uid::from_raw(uid))? else { return Ok(false) };
    let Ok(name) = CString::new(user.name) else { return Ok(false) };
    Ok(getgrouplist(&name, user.gid)?.contains(&group.gid))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn members_are_told_from_others() {
        assert_eq!(is_in(0, "root"), Ok(true), "a primary group counts");
        assert_eq!(is_in(3_999_999_999, "root"), Ok(false), "a uid that nobody has");
        assert_eq!(is_in(0, "no-such-group"), Ok(false), "a group that is not there");
    }

    #[test]
    fn memory_of_members_does_not_grow_without_end_nor_outlive_its_time() {
        let peers = Peers::default();
        peers.remember(1000, true);
        assert_eq!(peers.remembered(1000), Some(true));
        let Some(long_ago) = Instant::now().checked_sub(MEMORY) else { return };
        for uid in 0..500 {
            peers.known.lock().unwrap().insert(uid, (long_ago, true));
        }
        assert_eq!(peers.remembered(499), None);
        peers.remember(1001, false);
        assert_eq!(peers.known.lock().unwrap().len(), 2);
    }
}
