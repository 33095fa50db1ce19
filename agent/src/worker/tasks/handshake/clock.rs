//! A clock that is set in the middle of a handshake: a credential that was good for five minutes has expired, or is not valid yet, and a
//! session is over as soon as it has begun. That says nothing about a version.

use std::time::Duration;

use crate::domain::StepOutcome;
use crate::worker::tasks::trouble::inconclusive;

/// Further apart than this the two clocks do not drift in one handshake.
const APART: Duration = Duration::from_secs(20);

/// Turns a failure into "cannot tell" when the time of day (`wall`; `None`: it went back behind the beginning) has passed otherwise
/// than time (`passed`) has.
pub fn excuse(outcome: StepOutcome, wall: Option<Duration>, passed: Duration) -> StepOutcome {
    match outcome {
        StepOutcome::Failed { reason, contract_moved: false } if was_set(wall, passed) => {
            inconclusive(format!("{reason}; but the clock of this host was set meanwhile"))
        }
        other => other,
    }
}

fn was_set(wall: Option<Duration>, passed: Duration) -> bool {
    wall.is_none_or(|wall| wall.abs_diff(passed) > APART)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::tasks::trouble::failed;

    #[test]
    fn a_clock_that_was_set_condemns_nobody() {
        let after = |wall: Option<u64>| excuse(failed("HTTP 401"), wall.map(Duration::from_secs), Duration::from_secs(3));
        for set in [Some(600), Some(3_600_000), None] {
            assert!(matches!(after(set), StepOutcome::Inconclusive { .. }), "{set:?}");
        }
        for steady in [Some(3), Some(2), Some(10)] {
            assert_eq!(after(steady), failed("HTTP 401"), "{steady:?}");
        }
        let moved = StepOutcome::Failed { reason: "moved".to_owned(), contract_moved: true };
        assert_eq!(excuse(moved.clone(), None, Duration::ZERO), moved);
    }
}
