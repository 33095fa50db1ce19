//! How often one user may ask: a bucket of tokens per uid that fills again with time.
//!
//! Who asks faster than that is answered later and not refused: a script in a loop goes on working, and costs the agent no more
//! than [`Limits::requests_per_second`](super::limits::Limits) of its answers. Root is never held up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::limits::Limits;

/// Remembers who has asked how often lately.
#[derive(Debug, Clone)]
pub struct Pace {
    limits: Limits,
    /// When the bucket of a uid will be full again.
    full_at: Arc<Mutex<HashMap<u32, Instant>>>,
}

impl Pace {
    /// Nobody has asked yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, full_at: Arc::default() }
    }

    /// Notes a request of `uid` at `now`, and says how long its answer has to wait.
    pub fn wait(&self, uid: u32, now: Instant) -> Duration {
        if uid == 0 {
            return Duration::ZERO;
        }
        let one = Duration::from_secs(1) / self.limits.requests_per_second.max(1);
        let burst = one * self.limits.burst;
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        // A full bucket is like none.
        full_at.retain(|_, at| *at > now);
        let at = full_at.entry(uid).or_insert(now);
        *at += one;
        at.saturating_duration_since(now).saturating_sub(burst)
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
    fn who_is_quiet_is_forgotten() {
        let (pace, now) = (pace(), Instant::now());
        for uid in 1..1000 {
            pace.wait(uid, now);
        }
        pace.wait(1, now + Duration::from_secs(1));
        assert_eq!(pace.full_at.lock().unwrap().len(), 1);
    }
}
