//! Making a schedule that breaks a promise as small as it can be.

use crate::run::{Seen, run};
use crate::schedule::{Fault, Schedule, Stage};
use crate::t3::Flaw;

/// The smallest schedule found that breaks the same promise as `schedule`, which was `seen` to.
pub fn shrink(schedule: &Schedule, seen: &Seen) -> Schedule {
    let promise = seen.broken.first().map(|broken| broken.promise);
    let breaks = |schedule: &Schedule| run(schedule, false).broken.first().map(|broken| broken.promise) == promise;
    let mut small = schedule.clone();
    loop {
        let fewer = (0..small.faults.len()).map(|without| {
            let faults: Vec<Fault> = small.faults.iter().enumerate().filter(|(at, _)| *at != without).map(|(_, f)| *f).collect();
            Schedule { faults, ..small.clone() }
        });
        let stage = small.stage;
        let plainer = [
            Stage { users: 1, ..stage },
            Stage { flaw: Flaw::None, ..stage },
            Stage { twice: false, ..stage },
            Stage { proxy_down: false, ..stage },
            Stage { with_log: false, ..stage },
            Stage { servers_first: false, ..stage },
            Stage { keep: 2, ..stage },
        ];
        let plainer = plainer.into_iter().filter(|plain| *plain != stage).map(|stage| Schedule { stage, ..small.clone() });
        // The number of a user who is not there any more cannot be asked for.
        let possible = |schedule: &Schedule| schedule.stage.users == small.stage.users || small.faults.is_empty();
        match fewer.chain(plainer.filter(possible)).find(|smaller| breaks(smaller)) {
            Some(smaller) => small = smaller,
            None => return small,
        }
    }
}
