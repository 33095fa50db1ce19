//! How long the host has kept a server from running: other work had the processors, memory was short, the disk was slow. Such time is
//! nobody's fault: it does not count towards a deadline, and who could hardly run at all condemns no version.
//!
//! Read from the pressure files of the server's control group (kernel, Documentation/accounting/psi.rst): "full" is the time in which
//! every process of the group that had something to do had to wait. What the group's own processes take from each other is
//! not in it. Where the kernel has no such files, nothing was kept from running.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::StepOutcome;
use crate::worker::tasks::trouble::inconclusive;

/// Where control groups of version 2 are mounted: alone, or beside version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// A server that could run for less than this share of the time was not judged by what it does.
const LEAST_SHARE: f64 = 0.5;

/// The control group of a server.
#[derive(Debug)]
pub struct Strain {
    group: Option<PathBuf>,
}

impl Strain {
    /// Of the control group whose directory this is.
    pub fn of(group: Option<&Path>) -> Self {
        Self { group: group.map(Path::to_owned) }
    }

    /// How long it was kept from running since it is there, whatever by.
    pub fn kept_waiting(&self) -> Duration {
        self.total(&["cpu", "memory", "io"])
    }

    /// The same without waiting for the disk, which may be its own doing.
    pub fn starved(&self) -> Duration {
        self.total(&["cpu", "memory"])
    }

    fn total(&self, resources: &[&str]) -> Duration {
        let Some(group) = &self.group else { return Duration::ZERO };
        let read = |resource: &&str| full(&std::fs::read_to_string(group.join(format!("{resource}.pressure"))).ok()?);
        Duration::from_micros(resources.iter().filter_map(read).fold(0, u64::saturating_add))
    }
}

/// Turns a failure into "cannot tell" when the server could hardly run: `starved` of the time that has `passed` was kept from it.
pub fn excuse(outcome: StepOutcome, starved: Duration, passed: Duration) -> StepOutcome {
    let ran = 1.0 - starved.as_secs_f64() / passed.as_secs_f64().max(0.001);
    match outcome {
        StepOutcome::Failed { reason, contract_moved: false } if ran < LEAST_SHARE => inconclusive(format!(
            "{reason}; but this host was overloaded: the server could run for only {:.0} % of the {:.1} s",
            ran.max(0.0) * 100.0,
            passed.as_secs_f64()
        )),
        other => other,
    }
}

/// `full avg10=0.00 avg60=0.00 avg300=0.00 total=6453275`, in microseconds.
fn full(pressure: &str) -> Option<u64> {
    let line = pressure.lines().find_map(|line| line.strip_prefix("full "))?;
    line.split_ascii_whitespace().find_map(|field| field.strip_prefix("total="))?.parse().ok()
}

/// The directory of the group that this process is in (cgroups(7)), where the kernel keeps account of its pressure.
pub fn own_group() -> Option<PathBuf> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    MOUNTS.iter().map(|mount| Path::new(mount).join(path)).find(|group| group.join("cpu.pressure").exists())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::worker::tasks::trouble::failed;

    #[test]
    fn what_the_host_kept_from_a_group_is_summed_up_and_nothing_is_known_where_there_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let strain = Strain::of(Some(dir.path()));
        assert_eq!(strain.kept_waiting(), Duration::ZERO);
        let write = |name: &str, total: u64| {
            let text = format!(
                "some avg10=9.00 avg60=9.00 avg300=9.00 total=77\nfull avg10=9.00 avg60=0.00 avg300=0.00 total={total}\n"
            );
            std::fs::write(dir.path().join(name), text).unwrap();
        };
        write("cpu.pressure", 1_500_000);
        write("memory.pressure", 400_000);
        write("io.pressure", 100_000);
        assert_eq!((strain.kept_waiting(), strain.starved()), (Duration::from_secs(2), Duration::from_micros(1_900_000)));
    }

    #[test]
    fn a_server_that_could_hardly_run_condemns_nobody_and_one_that_could_does() {
        let after = |starved_ms| excuse(failed("no answer"), Duration::from_millis(starved_ms), Duration::from_secs(10));
        assert!(matches!(after(5_100), StepOutcome::Inconclusive { .. }));
        assert!(matches!(after(60_000), StepOutcome::Inconclusive { .. }));
        assert_eq!(after(4_900), failed("no answer"));
        let moved = StepOutcome::Failed { reason: "moved".to_owned(), contract_moved: true };
        assert_eq!(excuse(moved.clone(), Duration::from_secs(9), Duration::from_secs(10)), moved);
    }

    proptest! {
        #[test]
        fn no_pressure_file_makes_it_panic(text in any::<String>(), total in any::<u64>()) {
            let _ = full(&text);
            prop_assert_eq!(full(&format!("full avg10=0.00 total={total}\n")), Some(total));
        }
    }
}
