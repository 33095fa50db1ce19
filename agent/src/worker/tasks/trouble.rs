//! Whose fault is it? Tells trouble of the host (no disk, no memory, no descriptors) from faults of a version, so that a
//! full disk never condemns one (promise 5).

use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::domain::StepOutcome;

/// Less than this many free bytes on the user's file system count as full: t3 can hardly open its database then.
const FULL_BELOW: u64 = 1 << 20;

/// From this share of the time on, in per cent, a host in which all wait for memory explains a server that does not answer.
const STALLED_FROM: f64 = 50.0;

/// What programs say when the host is at its end; compared in lower case.
const SIGNS: [&str; 11] = [
    "enospc",
    "no space left on device",
    "database or disk is full",
    "edquot",
    "disk quota exceeded",
    "enomem",
    "cannot allocate memory",
    "emfile",
    "enfile",
    "too many open files",
    "resource temporarily unavailable",
];

/// The server or its CLI did something wrong.
pub fn failed(reason: impl Into<String>) -> StepOutcome {
    StepOutcome::Failed { reason: reason.into(), contract_moved: false }
}

/// The environment kept us from knowing.
pub fn inconclusive(reason: impl Into<String>) -> StepOutcome {
    StepOutcome::Inconclusive { reason: reason.into() }
}

/// Whether an error of ours is the host's state and nobody's fault.
pub fn is_environment(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw_os_error).is_some_and(|errno| {
        matches!(
            errno,
            Errno::NOSPC
                | Errno::DQUOT
                | Errno::NOMEM
                | Errno::MFILE
                | Errno::NFILE
                | Errno::AGAIN
                | Errno::TXTBSY
                | Errno::NOBUFS
                | Errno::NETUNREACH
                | Errno::NETDOWN
                | Errno::ADDRNOTAVAIL
        )
    })
}

/// The sign of a host at its end that a program's output shows, if any.
pub fn sign_in(output: &str) -> Option<&'static str> {
    let output = output.to_ascii_lowercase();
    SIGNS.into_iter().find(|sign| output.contains(sign))
}

/// What is wrong with the host right now, as far as it would explain a failing server on the data at `base_dir`.
pub fn of_host(base_dir: &Path) -> Option<String> {
    let room = rustix::fs::statvfs(base_dir).ok()?;
    if room.f_bavail.saturating_mul(room.f_frsize) < FULL_BELOW {
        return Some(format!("the file system of {} is full", base_dir.display()));
    }
    if room.f_files > 0 && room.f_favail == 0 {
        return Some(format!("the file system of {} has no inodes left", base_dir.display()));
    }
    std::fs::read_to_string("/proc/pressure/memory").ok().and_then(|pressure| stalled(&pressure))
}

/// Turns a failure into "cannot tell" when the host itself explains it.
pub fn excuse(outcome: StepOutcome, base_dir: &Path) -> StepOutcome {
    match outcome {
        StepOutcome::Failed { reason, contract_moved: false } => match of_host(base_dir) {
            Some(trouble) => inconclusive(format!("{reason}; but {trouble}")),
            None => failed(reason),
        },
        other => other,
    }
}

/// Whether the whole host waits for memory, by what `/proc/pressure/memory` says: the share of the last 10 s in which no task got on
/// (kernel: Documentation/accounting/psi.rst).
fn stalled(pressure: &str) -> Option<String> {
    let full = pressure.lines().find_map(|line| line.strip_prefix("full avg10="))?;
    let percent: f64 = full.split_whitespace().next()?.parse().ok()?;
    (percent >= STALLED_FROM).then(|| {
        format!("the host is out of memory: every task was stalled for {percent:.0} % of the last 10 s (/proc/pressure/memory)")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_the_hosts_trouble_and_a_missing_program_is_not() {
        assert!(is_environment(&io::Error::from_raw_os_error(28)));
        assert!(!is_environment(&io::Error::from_raw_os_error(2)));
        assert_eq!(sign_in("SqlError: Database or disk is full"), Some("database or disk is full"));
        assert_eq!(sign_in("TypeError: x is not iterable"), None);
    }

    #[test]
    fn a_moved_contract_is_never_excused() {
        let moved = StepOutcome::Failed { reason: "x".to_owned(), contract_moved: true };
        assert_eq!(excuse(moved.clone(), Path::new("/proc")), moved);
    }

    #[test]
    fn a_failure_on_a_file_system_without_room_is_inconclusive() {
        // procfs reports no free blocks at all.
        assert!(matches!(excuse(failed("x"), Path::new("/proc")), StepOutcome::Inconclusive { .. }));
    }

    #[test]
    fn a_host_whose_tasks_all_wait_for_memory_explains_a_failure_and_one_where_some_do_does_not() {
        let pressure = |some: &str, full: &str| {
            format!("some avg10={some} avg60=9.00 avg300=1.00 total=99\nfull avg10={full} avg60=8.00 avg300=1.00 total=88\n")
        };
        let told = stalled(&pressure("99.00", "63.27")).unwrap();
        assert!(told.contains("63 % of the last 10 s"), "{told}");
        assert_eq!(stalled(&pressure("99.00", "49.99")), None, "some wait, and others get on");
        for nonsense in ["", "full avg10=\n", "full avg10=a lot avg60=0\n", "some avg10=99.00\n"] {
            assert_eq!(stalled(nonsense), None, "{nonsense:?}");
        }
    }
}
