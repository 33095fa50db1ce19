//! When a bump that is stuck is tried again unasked: what was in the way (a full disk, a unit that would not stop, a node that was
//! being upgraded) often goes away by itself, and what does not is not helped by trying for ever. Pure.

/// So many tries unasked; then a person has to act.
pub const TRIES: u32 = 6;
/// Before the first, in ms; twice as long before each further one.
const FIRST_MS: u64 = 60_000;

/// How long to wait for the next try after `tries` that were in vain, in ms; `None`: not any more.
pub fn next_try_ms(tries: u32) -> Option<u64> {
    (tries < TRIES).then(|| FIRST_MS << tries)
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
}
