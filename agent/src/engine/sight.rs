//! When an instance that waits has to be looked at again. Pure.
//!
//! A look costs a process and a read of the user's database; whether its files have moved since costs a few system calls. So
//! an instance is looked at again when it could have become eligible, and never before:
//!
//! - at work, with nothing moved since: the work cannot have ended, for its end is written down. No look.
//! - at work, and something moved: at the earliest the work ended then, and `quiet` counts from there. A look at its end.
//! - idle, but not for long enough: whatever happens, not before `quiet` is over. A look then.
//! - not to be told: again soon, and less often the longer it lasts; and when something moved.

use crate::domain::{Activity, BusyReason, UnixMs};

/// So long after a move a look is worth it: several writes belong together.
const SETTLE_MS: i64 = 500;
/// What cannot be told is looked at again after this, twice that, and so on...
const AGAIN_MS: i64 = 4_000;
/// ...up to this.
const MOST_AGAIN_MS: i64 = 60_000;

/// What was seen at the last look, and what has moved since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// When.
    pub at_ms: UnixMs,
    /// What was seen.
    pub activity: Activity,
    /// When it was first noticed that something has moved since.
    pub moved_ms: Option<UnixMs>,
    /// When it was last known to be at work in a way that leaves no trace in the data: a job in a terminal.
    pub busy_until_ms: Option<UnixMs>,
    /// How many looks in a row could not tell, or found a state whose end moves nothing that is watched.
    pub tries: u32,
}

/// When to look again if `quiet_ms` is asked for; `None`: when something moves.
pub fn next_look(sight: &Sight, quiet_ms: i64) -> Option<UnixMs> {
    let settled = |from: UnixMs| from.saturating_add(SETTLE_MS);
    match &sight.activity {
        Activity::Idle { last_activity_ms } => {
            let quiet_over = (*last_activity_ms).max(sight.busy_until_ms).map(|last| last.saturating_add(quiet_ms));
            // As in `rollout::lately`: a trace from far in the future holds nobody up.
            let latest = sight.at_ms.saturating_add(quiet_ms.saturating_mul(2));
            match quiet_over.filter(|over| *over > sight.at_ms && *over <= latest) {
                Some(over) => Some(over),
                // It was eligible when it was looked at. Something else than its activity held it back.
                None => Some(sight.at_ms.saturating_add(MOST_AGAIN_MS)),
            }
        }
        Activity::Busy { reasons } if reasons.iter().all(is_watched) => {
            sight.moved_ms.map(|moved| settled(moved).max(moved.saturating_add(quiet_ms)))
        }
        Activity::Busy { .. } | Activity::Unknown { .. } => {
            let again = sight.at_ms.saturating_add(AGAIN_MS.saturating_mul(1 << sight.tries.min(8)).min(MOST_AGAIN_MS));
            Some(sight.moved_ms.map_or(again, |moved| again.min(settled(moved).max(sight.at_ms.saturating_add(AGAIN_MS)))))
        }
    }
}

/// Whether it matters that something moves: the end of work is what is waited for.
pub fn watches(sight: &Sight) -> bool {
    !matches!(sight.activity, Activity::Idle { .. }) && (sight.moved_ms.is_none() || watches_terminals(sight))
}

/// Whether the jobs in its terminals have to be watched: nothing in the data tells of their end.
pub fn watches_terminals(sight: &Sight) -> bool {
    let Activity::Busy { reasons } = &sight.activity else { return false };
    reasons.iter().any(|reason| matches!(reason, BusyReason::TerminalJob { .. }))
}

/// Whether the end of this moves something that is watched.
fn is_watched(reason: &BusyReason) -> bool {
    !matches!(reason, BusyReason::DatabaseOpen { .. })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sight(activity: Activity, moved_ms: Option<UnixMs>) -> Sight {
        Sight { at_ms: 1_000_000, activity, moved_ms, busy_until_ms: None, tries: 0 }
    }

    fn at_work() -> Activity {
        Activity::Busy { reasons: vec![BusyReason::PendingInput { count: 1 }] }
    }

    #[test]
    fn at_work_without_a_move_no_look_is_due_however_long_it_lasts() {
        assert_eq!(next_look(&sight(at_work(), None), 900_000), None);
        assert_eq!(next_look(&sight(at_work(), Some(2_000_000)), 900_000), Some(2_900_000));
        assert_eq!(next_look(&sight(at_work(), Some(2_000_000)), 0), Some(2_000_500));
    }

    #[test]
    fn a_trace_from_far_in_the_future_puts_no_look_off_for_long() {
        let idle = |last| sight(Activity::Idle { last_activity_ms: Some(last) }, None);
        assert_eq!(next_look(&idle(1_100_000), 900_000), Some(2_000_000));
        assert_eq!(next_look(&idle(365 * 86_400_000), 900_000), Some(1_060_000));
    }

    #[test]
    fn what_cannot_be_told_is_tried_less_and_less_often() {
        let unknown = Activity::Unknown { why: "locked".to_owned() };
        let after = |tries| next_look(&Sight { tries, ..sight(unknown.clone(), None) }, 900_000).unwrap() - 1_000_000;
        assert_eq!([0, 1, 2, 3, 4, 60].map(after), [4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        let held = Activity::Busy { reasons: vec![BusyReason::DatabaseOpen { holders: "sqlite3".to_owned() }] };
        assert_eq!(next_look(&sight(held, None), 900_000), Some(1_004_000));
    }

    proptest! {
        /// The rule that everything else stands on: work that ends is noticed as a move, at once or a little later; the look
        /// that is due then, or the one that this look leads to, is not later than the end of quiet, and a moment.
        #[test]
        fn no_instance_becomes_eligible_unseen(
            first_move in 1i64..10_000_000, more in 0i64..10_000_000, quiet in 0i64..2_000_000, seen_late in 0i64..2_000,
        ) {
            let looked = 1_000_000;
            let (moved, ended) = (looked + first_move, looked + first_move + more);
            let eligible = ended + quiet;
            let first = next_look(&sight(at_work(), Some(moved + seen_late)), quiet).unwrap();
            let late = |at: i64| at - eligible;
            if first >= ended {
                let second = Sight { at_ms: first, activity: Activity::Idle { last_activity_ms: Some(ended) }, moved_ms: None, busy_until_ms: None, tries: 0 };
                let due = if first >= eligible { first } else { next_look(&second, quiet).unwrap() };
                prop_assert!(late(due) <= seen_late + SETTLE_MS, "{} ms late", late(due));
            } else {
                prop_assert!(first <= eligible, "still at work then, and looked at again after the next move");
            }
        }

        /// However much is written, an instance is looked at twice in `quiet` at most: that is what makes many cheap.
        #[test]
        fn constant_work_costs_two_looks_in_quiet(quiet in 10_000i64..2_000_000, gap in 1i64..5_000, idle in any::<bool>()) {
            let (mut now, mut looks) = (0i64, 0);
            while now < 20 * quiet {
                let activity = if idle { Activity::Idle { last_activity_ms: Some(now) } } else { at_work() };
                let seen = Sight { at_ms: now, activity, moved_ms: Some(now + gap), busy_until_ms: None, tries: 0 };
                let next = next_look(&seen, quiet).unwrap();
                prop_assert!(next > now);
                now = next;
                looks += 1;
            }
            prop_assert!(looks <= 40, "{looks}");
        }
    }
}
