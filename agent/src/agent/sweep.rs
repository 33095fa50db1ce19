//! Watching those who wait, between two looks: every `poll` a few system calls for each, and no process is started.

use std::sync::Arc;
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
        let watched = agent.sights.watched();
        if watched.is_empty() {
            agent.sights.begun().await;
            continue;
        }
        tokio::time::sleep(agent.settings().poll).await;
        let mut sweeping = tokio::task::spawn_blocking(move || {
            watched
                .into_iter()
                .map(|(user, watch)| {
                    let found = look(&watch);
                    (user, watch, found)
                })
                .collect::<Vec<(UserName, Watch, Found)>>()
        });
        let swept = match tokio::time::timeout(LATE, &mut sweeping).await {
            Ok(swept) => swept,
            Err(_) => {
                tracing::warn!("a home does not answer: whether deferred users are idle cannot be watched until it does");
                sweeping.await
            }
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
