//! Room on the disk while a candidate runs: it lives on the user's file system, beside the data of others. A candidate that fills it is stopped
//! before anybody else is without.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::StepOutcome;
use crate::worker::tasks::trouble::{failed, inconclusive};

/// How often it is looked how much is left: one system call. What can be written to a fast disk in between is a fraction of what stays free.
const GLANCE: Duration = Duration::from_millis(10);

/// So much stays free for everybody else, or half of what was free at first where that is less. A disk of some GB in a second is not
/// full between two looks.
const STAYS_FREE: u64 = 1 << 30;

/// So many inodes stay free, or half of what was free at first where that is less.
const INODES_STAY_FREE: u64 = 50_000;

/// What no release has any reason to write beside a copy: its migrations may write all of the data anew, more than once, and its logs, traces
/// and caches take some MB (T3-CONTRACT section 2).
const BEYOND_REASON: u64 = 512 << 20;

/// So many times the copy may be written anew within reason.
const TIMES: u64 = 4;

/// So many files are looked at to tell how much a candidate has written; what is beyond them is not counted.
const MOST_FILES: usize = 100_000;

/// What was there when the candidate was started.
#[derive(Debug)]
pub struct Room {
    base_dir: PathBuf,
    copy: u64,
    first: Free,
}

/// What is free on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Free {
    bytes: u64,
    /// As many as can be on a file system that does not count them.
    inodes: u64,
}

impl Room {
    /// Before the candidate is started on the copy at `base_dir`.
    pub fn before(base_dir: &Path) -> Self {
        // What cannot be asked now cannot be told to have changed: then nothing is ever stopped.
        let first = free(base_dir).unwrap_or(Free { bytes: 0, inodes: 0 });
        Self { base_dir: base_dir.to_owned(), copy: written(base_dir), first }
    }

    /// Ends when the candidate must not take any more room, and says what that means. Never, when it does not.
    pub async fn runs_out(&self) -> StepOutcome {
        let within_reason = self.within_reason();
        let mut look_from = within_reason;
        loop {
            tokio::time::sleep(GLANCE).await;
            let Some(now) = free(&self.base_dir) else { continue };
            let taken = self.first.bytes.saturating_sub(now.bytes);
            if !self.is_short(now) && taken <= look_from {
                continue;
            }
            let base_dir = self.base_dir.clone();
            let Ok(written) = tokio::task::spawn_blocking(move || written(&base_dir)).await else { continue };
            let grown = written.saturating_sub(self.copy);
            if let Some(outcome) = self.verdict(now, grown) {
                return outcome;
            }
            // Others write, too.
            look_from = taken.saturating_add(within_reason - grown.min(within_reason)).saturating_add(1);
        }
    }

    /// What it means that so much is free `now` and the copy has `grown` by so many bytes; `None`: nothing. Only what the candidate itself has
    /// written condemns it, and only beyond any reason: that a disk has little room is no fault of a version's.
    fn verdict(&self, now: Free, grown: u64) -> Option<StepOutcome> {
        let mega = |bytes: u64| format!("{} MB", bytes / 1_000_000);
        if grown > self.within_reason() {
            let (grown, copy) = (mega(grown), mega(self.copy));
            return Some(failed(format!(
                "it has written {grown} beside a copy of {copy}, and was stopped before it could fill the disk"
            )));
        }
        self.is_short(now).then(|| {
            inconclusive(format!(
                "the file system of {} is nearly full: {} and {} inodes are free, {} and {} were at first, and {} of them have gone into the copy. \
                 The rehearsal was stopped, so that others have room",
                self.base_dir.display(),
                mega(now.bytes),
                now.inodes,
                mega(self.first.bytes),
                self.first.inodes,
                mega(grown)
            ))
        })
    }

    fn within_reason(&self) -> u64 {
        self.copy.saturating_mul(TIMES).saturating_add(BEYOND_REASON)
    }

    fn is_short(&self, now: Free) -> bool {
        now.bytes < (self.first.bytes / 2).min(STAYS_FREE) || now.inodes < (self.first.inodes / 2).min(INODES_STAY_FREE)
    }
}

/// What is free where `path` is.
fn free(path: &Path) -> Option<Free> {
    let found = rustix::fs::statvfs(path).ok()?;
    let inodes = if found.f_files == 0 { u64::MAX } else { found.f_favail };
    Some(Free { bytes: found.f_bavail.saturating_mul(found.f_frsize), inodes })
}

/// What all that lies below `path` takes on the disk, as far as it can be looked at.
fn written(path: &Path) -> u64 {
    let (mut bytes, mut files, mut left) = (0_u64, 0, vec![path.to_owned()]);
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            files += 1;
            if files > MOST_FILES {
                return bytes;
            }
            // Of the entry itself: no link is followed.
            let Ok(meta) = entry.metadata() else { continue };
            bytes = bytes.saturating_add(meta.blocks().saturating_mul(512));
            if meta.is_dir() {
                left.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const GB: u64 = 1 << 30;

    fn room(copy: u64, bytes: u64) -> Room {
        Room { base_dir: "/home/alice".into(), copy, first: Free { bytes, inodes: u64::MAX } }
    }

    fn left(bytes: u64) -> Free {
        Free { bytes, inodes: u64::MAX }
    }

    #[test]
    fn only_what_a_candidate_has_written_beyond_any_reason_condemns_it() {
        let large = room(GB, 100 * GB);
        assert_eq!(large.verdict(left(96 * GB), 4 * GB), None, "a migration that writes all anew");
        let Some(StepOutcome::Failed { reason, .. }) = large.verdict(left(95 * GB), 5 * GB) else { panic!() };
        assert!(reason.contains("5368 MB beside a copy of 1073 MB"), "{reason}");
        let Some(StepOutcome::Inconclusive { reason }) = large.verdict(left(GB - 1), GB) else { panic!() };
        assert!(reason.contains("1073 MB and"), "somebody else has filled it: {reason}");
        let small = room(1 << 20, 200 << 20);
        assert_eq!(small.verdict(left(100 << 20), 100 << 20), None);
        assert!(matches!(small.verdict(left(99 << 20), 101 << 20), Some(StepOutcome::Inconclusive { .. })), "a small disk");
    }

    #[test]
    fn inodes_run_out_too_and_a_disk_that_tells_nothing_stops_nobody() {
        let few = Room { first: Free { bytes: GB, inodes: 1000 }, ..room(0, GB) };
        assert_eq!(few.verdict(Free { bytes: GB, inodes: 500 }, 0), None);
        assert!(matches!(few.verdict(Free { bytes: GB, inodes: 499 }, 0), Some(StepOutcome::Inconclusive { .. })));
        let blind = Room { first: Free { bytes: 0, inodes: 0 }, ..room(0, 0) };
        assert_eq!(blind.verdict(Free { bytes: 0, inodes: 0 }, 0), None);
    }

    #[test]
    fn what_lies_below_is_counted_and_no_link_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        std::fs::write(dir.path().join("logs/trace"), vec![b'x'; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("usr")).unwrap();
        let found = written(dir.path());
        assert!((1 << 20..2 << 20).contains(&found), "{found}");
    }
}
