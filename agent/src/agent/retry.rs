//! Bumps that are stuck are tried again by themselves: at every start, and then ever more rarely, a few times. As careful with
//! activity as a person who asks for it without force.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Agent;
use crate::domain::BumpId;
use crate::engine::patience::{TRIES, next_try_ms};
use crate::engine::{Bump, Event, Phase};

/// What was tried unasked since this agent has started. Not in the journal: a start is a reason to try again, and a clock that is
/// set must not keep anybody waiting.
#[derive(Debug, Default)]
pub struct Retries(Mutex<BTreeMap<BumpId, Try>>);

#[derive(Debug, Clone, Copy)]
struct Try {
    /// How many were in vain.
    done: u32,
    /// When the next one is due; `None`: never.
    due: Option<Instant>,
}

impl Retries {
    /// Takes note of what is stuck `now`, and forgets what is not any more. When the next try is due.
    fn keep(&self, stuck: &[BumpId], now: Instant) -> Option<Instant> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|id, _| stuck.contains(id));
        for id in stuck {
            all.entry(*id).or_insert(Try { done: 0, due: after(0, now) });
        }
        all.values().filter_map(|tried| tried.due).min()
    }

    fn is_due(&self, id: BumpId, now: Instant) -> bool {
        self.seen(id).is_some_and(|tried| tried.due.is_some_and(|due| due <= now))
    }

    /// One more was in vain.
    fn count(&self, id: BumpId, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let done = all.get(&id).map_or(0, |tried| tried.done).saturating_add(1);
        all.insert(id, Try { done, due: after(done, now) });
    }

    fn seen(&self, id: BumpId) -> Option<Try> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }

    /// What is still to come, for people.
    pub fn prospect(&self, id: BumpId) -> String {
        self.prospect_at(id, Instant::now())
    }

    fn prospect_at(&self, id: BumpId, now: Instant) -> String {
        match self.seen(id) {
            Some(Try { done, due: Some(due) }) => {
                let minutes = due.saturating_duration_since(now).as_secs().div_ceil(60);
                format!("tried again by itself in {minutes} min (try {} of {TRIES})", done + 1)
            }
            Some(Try { done, due: None }) => {
                format!("tried {done} times by itself, and not any more before t3pin.service is restarted")
            }
            None => "tried again by itself in a moment".to_owned(),
        }
    }
}

fn after(tries: u32, now: Instant) -> Option<Instant> {
    next_try_ms(tries).map(|ms| now + Duration::from_millis(ms))
}

impl Agent {
    /// What is stuck.
    pub fn stuck(&self) -> Vec<Bump> {
        let open = self.journal.open_bumps().unwrap_or_default();
        open.into_iter().filter(|bump| bump.phase == Phase::Stuck).collect()
    }

    /// When something that is stuck is to be tried again.
    pub fn next_retry(&self) -> Option<Instant> {
        self.retries.keep(&self.stuck().iter().map(|bump| bump.id).collect::<Vec<_>>(), Instant::now())
    }

    /// Tries again what is due.
    pub async fn retry_due(&self) {
        let now = Instant::now();
        let due = self.stuck().into_iter().filter(|bump| self.retries.is_due(bump.id, now)).collect();
        self.retry(due).await;
    }

    /// Tries `stuck` again.
    pub async fn retry(&self, stuck: Vec<Bump>) {
        for bump in stuck {
            let (user, id) = (bump.instance.user().clone(), bump.id);
            tracing::info!(T3PIN_USER = %user, T3PIN_BUMP = %id, "{user} is stuck: the way back to {} is tried again", bump.from);
            let after = match self.bring_back(&bump).await {
                Ok(()) => self.drive(bump, Event::TriedAgain, &|_| ()).await,
                Err(why) => {
                    tracing::warn!(T3PIN_USER = %user, T3PIN_BUMP = %id, "the data of {} cannot be brought back: {why}", bump.from);
                    bump
                }
            };
            if after.phase == Phase::Stuck {
                self.retries.count(id, Instant::now());
                tracing::warn!(T3PIN_USER = %user, T3PIN_BUMP = %id, "{user} is still stuck; {}", self.retries.prospect(id));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_try_in_vain_makes_the_next_wait_longer_until_none_is_left() {
        let retries = Retries::default();
        let id = BumpId(7);
        let (mut now, mut last) = (Instant::now(), Duration::ZERO);
        for n in 1..=TRIES {
            let wait = retries.keep(&[id], now).map(|due| due - now).unwrap_or_default();
            assert!(wait > last, "{wait:?} after {last:?}");
            assert!(!retries.is_due(id, now), "not before it is due");
            assert!(retries.prospect_at(id, now).contains(&format!("try {n} of {TRIES}")), "{}", retries.prospect(id));
            (now, last) = (now + wait, wait);
            assert!(retries.is_due(id, now));
            retries.count(id, now);
        }
        assert_eq!(retries.keep(&[id], now), None);
        assert!(!retries.is_due(id, now) && retries.prospect(id).contains("not any more"));
        assert_eq!(retries.keep(&[], now), None);
        assert!(retries.keep(&[id], now).is_some(), "stuck once more is another matter");
    }
}
