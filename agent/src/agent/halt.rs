//! A rollout that the host has stopped (a full disk, a registry or a proxy that is away), or that could not tell, is tried again by itself: ever
//! more rarely, a few times, then at the next order. Such a failure condemns no version; one that is quarantined is not tried.

use std::sync::{Mutex, PoisonError};

use super::{Agent, now_ms};
use crate::domain::UnixMs;
use crate::engine::halted::halted_ms;
use crate::engine::patience::next_rollout_ms;
use crate::engine::rollout::HostView;
use crate::journal::{JournalError, RolloutTries};

/// When what has stopped is tried again, as it was last found out.
#[derive(Debug, Default)]
pub struct Halt(Mutex<Option<UnixMs>>);

impl Halt {
    /// When the next try is due.
    pub fn due_ms(&self) -> Option<UnixMs> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something has stopped and is to be tried again.
    pub fn is_noted(&self) -> bool {
        self.due_ms().is_some()
    }

    fn set(&self, due_ms: Option<UnixMs>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = due_ms;
    }
}

impl Agent {
    /// From when on failures count: the last order to enforce, or the last try that nobody asked for. One from the future is from before the
    /// clock was set back.
    pub fn tried_from_ms(&self) -> Result<UnixMs, JournalError> {
        let tried = self.journal.rollout_tries()?.at_ms;
        Ok(self.journal.enforced_ms()?.max(if tried > now_ms() { 0 } else { tried }))
    }

    /// Notes whether something has stopped that another try may mend; says whether one is to come.
    pub fn note_halt(&self, view: &HostView) -> Result<bool, JournalError> {
        let Some(halted) = halted_ms(view) else {
            self.halt.set(None);
            return Ok(false);
        };
        let tries = self.journal.rollout_tries()?;
        let first = i64::try_from(self.settings().drain.retry_after.as_millis()).unwrap_or(i64::MAX);
        // A time of failure that a clock has moved away from keeps nobody waiting for longer than the wait itself.
        let due = next_rollout_ms(tries.count, first).map(|wait| halted.min(view.now_ms).saturating_add(wait));
        if due.is_some() && self.halt.due_ms() != due {
            tracing::info!("a rollout that has stopped is tried again by itself at {} (try {})", clock(due), tries.count + 1);
        }
        self.halt.set(due);
        Ok(due.is_some())
    }

    /// When the next try is due, counts it and lets what has failed be tried again; says whether it did.
    pub fn try_halted_again(&self) -> Result<bool, JournalError> {
        let now = now_ms();
        if self.halt.due_ms().is_none_or(|due| due > now) {
            return Ok(false);
        }
        let tries = self.journal.rollout_tries()?;
        self.journal.set_rollout_tries(RolloutTries { count: tries.count.saturating_add(1), at_ms: now })?;
        self.board.clear_uninstallable();
        self.halt.set(None);
        tracing::info!("a rollout that had stopped is tried again (try {})", tries.count + 1);
        Ok(true)
    }
}

fn clock(at_ms: Option<UnixMs>) -> String {
    at_ms.and_then(|at| jiff::Timestamp::from_millisecond(at).ok()).map_or_else(String::new, |at| format!("{at:.0}"))
}
