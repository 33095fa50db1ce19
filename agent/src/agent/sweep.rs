//! Watching those who wait, between two looks: every `poll` a few system calls for each, and no process is started.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, StatxFlags};

use super::sights::{Found, Watch};
use super::{Agent, now_ms};
use crate::domain::UserName;
use crate::{activity, state};

/// Where the unified hierarchy of control groups is mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// A sweep takes milliseconds. One that takes longer hangs at a home whose file server does not answer.
const LATE: Duration = Duration::from_secs(10);

/// Watches until the process ends; rests while nobody waits.
pub async fn sweep(agent: Arc<Agent>) {
    loop {
        let mut watched = agent.sights.watched();
        if watched.is_empty() {
            agent.sights.begun().await;
            continue;
        }
        tokio::time::sleep(agent.settings().poll).await;
        watched.retain(|(user, _)| !state::hangs(user));
        let (users, at) = (watched.iter().map(|(user, _)| user.clone()).collect::<Vec<_>>(), Arc::new(AtomicUsize::new(0)));
        let reached = Arc::clone(&at);
        let mut sweeping = tokio::task::spawn_blocking(move || {
            let looked = watched.into_iter().enumerate().map(|(place, (user, watch))| {
                reached.store(place, Ordering::Relaxed);
                let found = look(&watch);
                (user, watch, found)
            });
            looked.collect::<Vec<(UserName, Watch, Found)>>()
        });
        let Ok(swept) = tokio::time::timeout(LATE, &mut sweeping).await else {
            if let Some(user) = users.get(at.load(Ordering::Relaxed)) {
                tracing::warn!(T3PIN_USER = %user, "{user}'s home does not answer: whether {user} is idle cannot be watched until it does");
                state::leave(user, async move { drop(sweeping.await) });
            }
            continue;
        };
        let now = now_ms();
        for (user, watch, found) in swept.unwrap_or_default() {
            agent.sights.compare(&user, &watch, &found, now);
        }
    }
}

/// One instance.
fn look(watch: &Watch) -> Found {
    let job = watch.terminals.then(|| activity::terminal_jobs(&watch.control_group).map_or(true, |jobs| !jobs.is_empty()));
    Found { stamp: state::stamp(&watch.place).ok(), group: group(&watch.control_group), job }
}

/// The inode of a control group's directory; `None` where it cannot be told.
pub fn group(control_group: &str) -> Option<u64> {
    if control_group.is_empty() {
        return None;
    }
    let path = format!("{CGROUPS}{control_group}");
    rustix::fs::statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::INO).ok().map(|found| found.stx_ino)
}
