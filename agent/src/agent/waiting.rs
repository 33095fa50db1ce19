//! The ledger of waits: since when an instance has been waiting, who said what about it, when that takes too long.

use super::{Agent, now_ms};
use crate::api::types::WaitStatus;
use crate::domain::{Deferral, Said, UnixMs, UserName, Wait, Word};
use crate::engine::rollout::{Decision, HostView, decide};
use crate::engine::waits::{Hurry, Rules, hurry, is_overdue, user_limit};
use crate::engine::{Bump, Phase};
use crate::journal::JournalError;

impl Agent {
    /// The operator's rules for waiting, as the settings have them now.
    pub fn rules(&self) -> Rules {
        let settings = self.settings();
        let ms = |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Rules {
            quiet_ms: ms(settings.quiet),
            user_limit_ms: ms(settings.drain.user_limit),
            escalate_after_ms: ms(settings.drain.escalate_after),
            force_after_ms: settings.drain.force_after.map(ms),
            rehearsal_keeps_ms: ms(settings.drain.rehearse_again_after),
        }
    }

    /// What hurries a user's bump right now. A journal that cannot be read hurries nothing.
    pub fn hurry(&self, user: &UserName) -> Hurry {
        self.journal.wait(user).map_or(Hurry::None, |wait| hurry(&wait, now_ms(), &self.rules()))
    }

    /// Brings the ledger up to what was decided: who begins to wait, who has waited for too long, who waits no more.
    pub fn note_waits(&self, view: &HostView) -> Result<(), JournalError> {
        for instance in &view.instances {
            let user = &instance.user;
            if instance.bound.as_ref() == Some(&instance.wanted) {
                self.journal.change_wait(user, |wait| wait_is_over(wait, view.now_ms))?;
                continue;
            }
            let waits = matches!(decide(view, instance), Decision::Defer(_));
            let wait = self.journal.change_wait(user, |wait| {
                if waits {
                    wait.since_ms.get_or_insert(view.now_ms);
                }
            })?;
            if waits && is_overdue(&wait, view.now_ms, &view.rules) {
                self.journal.change_wait(user, |wait| wait.escalated_ms = Some(view.now_ms))?;
                let days = (view.now_ms - wait.since_ms.unwrap_or(view.now_ms)) / 86_400_000;
                let why = instance.open.as_ref().and_then(|open| open.deferral.as_ref()).map_or("", |deferral| &deferral.reason);
                tracing::warn!(
                    T3PIN_USER = %user, T3PIN_VERSION = %instance.wanted,
                    "{user} has been waiting for {} for {days} day(s) and still does: {why}. Talk to {user}; `t3pin now {user}` asks for \
                     no quiet, `--force` interrupts work, drain.force_after would do that by itself",
                    instance.wanted
                );
            }
        }
        Ok(())
    }

    /// Why a bump is put off, since when its user has been waiting at all, and when they were last looked at.
    pub fn deferral_of(&self, bump: &Bump) -> Option<Deferral> {
        let mut deferral = bump.deferral.clone()?;
        let since = self.journal.wait(bump.instance.user()).ok().and_then(|wait| wait.since_ms);
        deferral.since_ms = deferral.since_ms.min(since.unwrap_or(UnixMs::MAX));
        let looked = self.sights.times(bump.instance.user()).map(|(at, _)| at);
        deferral.last_look_ms = deferral.last_look_ms.max(looked.unwrap_or(UnixMs::MIN));
        Some(deferral)
    }

    /// What is known of the end of a wait.
    pub fn wait_of(&self, bump: &Bump) -> WaitStatus {
        let (now, user) = (now_ms(), bump.instance.user());
        let wait = self.journal.wait(user).unwrap_or_default();
        WaitStatus {
            earliest_ms: self.sights.times(user).and_then(|(_, due)| due).filter(|due| *due > now),
            escalated_ms: wait.escalated_ms,
            user_limit_ms: user_limit(&wait, now, &self.rules()),
        }
    }

    /// What was asked for has been done, or has been tried: it is not asked for any more.
    pub fn spend_now(&self, bump: &Bump) {
        if matches!(bump.phase, Phase::Planned | Phase::Ready) {
            return;
        }
        let user = bump.instance.user();
        if let Err(error) = self.journal.change_wait(user, forget_now) {
            tracing::warn!(T3PIN_USER = %user, "{error}");
        }
    }
}

/// Takes "now" off the ledger; what was said "later" stays.
pub fn forget_now(wait: &mut Wait) {
    for said in [&mut wait.user, &mut wait.operator] {
        if matches!(said, Some(Said { word: Word::Now { .. }, .. })) {
            *said = None;
        }
    }
}

/// The instance runs what it is to run. What was said about a time to come holds for the next bump, too.
fn wait_is_over(wait: &mut Wait, now_ms: i64) {
    wait.since_ms = None;
    wait.escalated_ms = None;
    forget_now(wait);
    for said in [&mut wait.user, &mut wait.operator] {
        if said.as_ref().is_some_and(|said| matches!(said.word, Word::Later { until_ms } if until_ms <= now_ms)) {
            *said = None;
        }
    }
}
