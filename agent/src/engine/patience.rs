//! When a bump that is stuck, or a rollout that the host has stopped, is tried again unasked: what was in the way (a full disk, a unit that would not stop, a node that was
//! being upgraded) often goes away by itself, and what does not is not helped by trying for ever. Pure.

/// So many tries unasked; then a person has to act.
pub const TRIES: u32 = 6;
/// Before the first, in ms; twice as long before each further one.
const FIRST_MS: u64 = 60_000;

/// How long to wait for the next try after `tries` that were in vain, in ms; `None`: not any more.
pub fn next_try_ms(tries: u32) -> Option<u64> {
    (tries < TRIES).then(|| FIRST_MS << tries)
}

/// How long to wait after the last failure until a rollout that a fault of the host's has stopped, or that could not tell, is tried
/// again, in ms, after `tries` unasked ones since the last order; `None`: not before the next order (the nightly one, usually).
pub fn next_rollout_ms(tries: u32, first_ms: i64) -> Option<i64> {
    (tries < TRIES).then(|| first_ms.saturating_mul(1 << tries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stuck_is_tried_ever_more_rarely_and_not_for_ever() {
        let waits: Vec<u64> = (0..).map_while(next_try_ms).collect();
        assert_eq!(waits.len(), TRIES as usize);
        assert!(waits.windows(2).all(|pair| pair[1] == 2 * pair[0]), "{waits:?}");
        assert!(waits.iter().sum::<u64>() < 2 * 3_600_000, "within two hours a person is called: {waits:?}");
        assert_eq!(next_try_ms(u32::MAX), None);
    }

    #[test]
    fn a_stopped_rollout_is_tried_again_for_half_a_day_at_most() {
        let waits: Vec<i64> = (0..).map_while(|tries| next_rollout_ms(tries, 600_000)).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320].map(|minutes| minutes * 60_000));
        assert_eq!((next_rollout_ms(u32::MAX, 1), next_rollout_ms(5, i64::MAX)), (None, Some(i64::MAX)));
    }
}
