//! Jobs in terminals: processes of a unit's control group that hold the foreground of their terminal.
//!
//! t3 keeps no table of its terminals (T3-CONTRACT section 4), and a child process alone is not work: a shell that waits at its
//! prompt is idle. A shell that has given the foreground away to another process group is not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::PathBuf;

use rustix::io::Errno;

use super::proc_stat::{self, ProcStat};
use crate::domain::BusyReason;
use crate::systemd::ControlGroup;

/// Processes and groups looked at; a unit's own `TasksMax=` is far below.
const MOST: usize = 16_384;

/// Jobs named in an answer.
const MOST_JOBS: usize = 16;

/// Jobs in the terminals of `control_group` and below. Processes that vanish meanwhile are not there; an error means
/// that it cannot be told.
pub fn jobs(control_group: &str) -> io::Result<Vec<BusyReason>> {
    let group = ControlGroup::named(control_group)?;
    let stats: Vec<_> = members(group.directory().to_owned())?.into_iter().filter_map(stat).collect();
    Ok(foreground_jobs(&stats))
}

/// Process ids in a group and all groups below.
fn members(top: PathBuf) -> io::Result<BTreeSet<i32>> {
    let mut found = BTreeSet::new();
    let mut groups = vec![top];
    let mut seen = 0;
    while let Some(group) = groups.pop() {
        seen += 1;
        match fs::read_to_string(group.join("cgroup.procs")) {
            Ok(pids) => found.extend(pids.lines().filter_map(|pid| pid.parse::<i32>().ok())),
            // Gone meanwhile; or a threaded group, whose processes its parent lists (cgroups(7)).
            Err(error) if error.kind() == ErrorKind::NotFound || is(&error, &[Errno::NODEV, Errno::OPNOTSUPP]) => {}
            Err(error) => return Err(error),
        }
        match fs::read_dir(&group) {
            Ok(entries) => {
                let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
                groups.extend(directories.take(MOST).map(|entry| entry.path()));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if seen + groups.len() > MOST || found.len() > MOST {
            return Err(io::Error::other("more processes than can be looked at"));
        }
    }
    Ok(found)
}

fn is(error: &io::Error, errnos: &[Errno]) -> bool {
    error.raw_os_error().is_some_and(|raw| errnos.iter().any(|errno| errno.raw_os_error() == raw))
}

fn stat(pid: i32) -> Option<ProcStat> {
    let mut line = Vec::new();
    fs::File::open(format!("/proc/{pid}/stat")).ok()?.take(4096).read_to_end(&mut line).ok()?;
    proc_stat::parse(&line)
}

/// One job per session whose terminal's foreground is not the session leader's own group.
fn foreground_jobs(stats: &[ProcStat]) -> Vec<BusyReason> {
    let mut jobs = BTreeMap::new();
    for process in stats.iter().filter(|process| process.tty != 0 && process.foreground > 0) {
        let leader = stats.iter().find(|other| other.pid == process.session);
        if process.foreground == leader.map_or(process.session, |leader| leader.pgrp) {
            continue;
        }
        let in_front = |other: &&ProcStat| other.pgrp == process.foreground && other.session == process.session;
        // The group's own leader names the job best; without it any member does.
        let job = stats.iter().filter(in_front).min_by_key(|other| (other.pid != other.pgrp, other.pid));
        let Some(job) = job else { continue };
        jobs.entry(process.session).or_insert_with(|| BusyReason::TerminalJob { command: job.comm.clone() });
    }
    jobs.into_values().take(MOST_JOBS).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn process(pid: i32, comm: &str, pgrp: i32, session: i32, tty: i32, foreground: i32) -> ProcStat {
        ProcStat { pid, comm: comm.to_owned(), pgrp, session, tty, foreground }
    }

    #[test]
    fn a_server_and_shells_at_their_prompt_are_no_jobs() {
        let stats = [
            process(10, "node", 10, 10, 0, -1),
            process(11, "claude", 10, 10, 0, -1),
            process(20, "bash", 20, 20, 34816, 20),
            process(21, "sleep", 21, 20, 34816, 20),
        ];
        assert_eq!(foreground_jobs(&stats), []);
    }

    #[test]
    fn a_job_in_front_of_its_shell_is_named_once_by_its_leader() {
        let stats = [
            process(20, "bash", 20, 20, 34816, 31),
            process(30, "cc1", 31, 20, 34816, 31),
            process(31, "make", 31, 20, 34816, 31),
            process(40, "zsh", 40, 40, 34817, 40),
        ];
        assert_eq!(foreground_jobs(&stats), [BusyReason::TerminalJob { command: "make".to_owned() }]);
    }

    #[test]
    fn a_path_that_leaves_the_tree_is_refused_and_a_group_that_is_gone_is_empty() {
        assert!(jobs("/../../etc").is_err());
        if ControlGroup::named("a").is_ok() {
            assert_eq!(jobs("/there/is/no/such.service").unwrap(), []);
        }
    }
}
