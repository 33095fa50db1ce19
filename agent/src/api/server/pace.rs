//! How often one user may ask: a bucket of tokens per uid that fills again with time.
//!
//! Who asks faster than that is answered later and not refused: a script in a loop goes on working, and costs the agent no more
//! than [`Limits::requests_per_second`](super::limits::Limits) of its answers; a hundred such scripts of a hundred users are answered one after
//! the other, [`Limits::all_per_second`](super::limits::Limits). Root is never held up, and neither is who has been quiet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::limits::Limits;

/// Remembers who has asked how often lately.
#[derive(Debug, Clone)]
pub struct Pace {
    limits: Limits,
    lately: Arc<Mutex<Lately>>,
}

#[derive(Debug, Default)]
struct Lately {
    /// When the bucket of a uid will be full again.
    full_at: HashMap<u32, Instant>,
    /// When the last of those who have to wait is answered: the next one is a while after that. All at the same moment would be
    /// in everybody's way.
    last: Option<Instant>,
}

impl Pace {
    /// Nobody has asked yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, lately: Arc::default() }
    }

    /// Notes a request of `uid` at `now`, and says how long its answer has to wait.
    pub fn wait(&self, uid: u32, now: Instant) -> Duration {
        if uid == 0 {
            return Duration::ZERO;
        }
        let one = Duration::from_secs(1) / self.limits.requests_per_second.max(1);
        let burst = one * self.limits.burst;
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        let Lately { full_at, last } = &mut *lately;
        // A full bucket is like none.
        full_at.retain(|_, at| *at > now);
        let at = full_at.entry(uid).or_insert(now);
        *at += one;
        let own = at.saturating_duration_since(now).saturating_sub(burst);
        if own.is_zero() {
            return own;
        }
        let turn = last.map_or(now, |last| last.max(now)) + Duration::from_secs(1) / self.limits.all_per_second.max(1);
        *last = Some(turn);
        let wait = own.max(turn.saturating_duration_since(now));
        // Who waits for others saves up nothing meanwhile.
        *at += wait - own;
        wait
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace::new(Limits { requests_per_second: 10, burst: 5, ..Limits::default() })
    }

    #[test]
    fn a_burst_is_free_and_what_follows_is_spread_over_time() {
        let (pace, now) = (pace(), Instant::now());
        for _ in 0..5 {
            assert_eq!(pace.wait(1000, now), Duration::ZERO);
        }
        assert_eq!([pace.wait(1000, now), pace.wait(1000, now)], [Duration::from_millis(100), Duration::from_millis(200)]);
        assert_eq!(pace.wait(1000, now + Duration::from_secs(5)), Duration::ZERO);
    }

    #[test]
    fn one_users_haste_is_nobody_elses_and_root_never_waits() {
        let (pace, now) = (pace(), Instant::now());
        for _ in 0..1000 {
            pace.wait(1000, now);
            assert_eq!(pace.wait(0, now), Duration::ZERO);
        }
        assert_eq!(pace.wait(1001, now), Duration::ZERO);
    }

    #[test]
    fn all_who_ask_without_a_pause_share_what_there_is_and_nobody_else_notices() {
        let pace = Pace::new(Limits { requests_per_second: 10, burst: 10, all_per_second: 50, ..Limits::default() });
        let begun = Instant::now();
        // Each asks again as soon as they are answered, for ten seconds.
        let (mut answered, mut asked) = (0, 0);
        let mut next: Vec<(Duration, u32)> = (0..100).map(|n| (Duration::ZERO, 1000 + n)).collect();
        while let Some((at, uid)) = next.iter().min().copied().filter(|(at, _)| *at < Duration::from_secs(10)) {
            next.retain(|(_, other)| *other != uid);
            next.push((at + pace.wait(uid, begun + at), uid));
            answered += 1;
            if at.as_secs() >= asked {
                asked += 1;
                assert_eq!(pace.wait(1, begun + at), Duration::ZERO, "somebody who asks every second");
            }
        }
        let (bursts, shared) = (100 * 10, 10 * 50);
        assert!((bursts + shared - 100..=bursts + shared + 100).contains(&answered), "{answered}");
        // And not all at the same moment.
        let mut moments: Vec<Duration> = next.iter().map(|(at, _)| *at).collect();
        moments.sort_unstable();
        assert!(moments.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(20)), "{moments:?}");
    }

    #[test]
    fn who_is_quiet_is_forgotten() {
        let (pace, now) = (pace(), Instant::now());
        for uid in 1..1000 {
            pace.wait(uid, now);
        }
        pace.wait(1, now + Duration::from_secs(1));
        assert_eq!(pace.lately.lock().unwrap().full_at.len(), 1);
    }
}
