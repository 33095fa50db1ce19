//! Looking after what waits and what soaks.

use std::time::Duration;

use super::effects::intruder_at;
use super::survey::SurveyError;
use super::{Agent, now_ms};
use crate::conduct;
use crate::config::Pin;
use crate::domain::{BumpId, Descriptor, UserName, Verdict};
use crate::engine::rollout::{Next, comes_back, next};
use crate::engine::{Bump, Event, Phase, SoakLook, judge};
use crate::health;
use crate::host::Listeners;
use crate::systemd::UnitState;

/// That many automatic restarts since we started the unit are a crash loop; one may be an accident (memory).
const CRASH_LOOP: u32 = 2;

/// A journal or a store that cannot be read now cannot be read a moment later either.
const AFTER_ERROR: Duration = Duration::from_secs(5);

impl Agent {
    /// One round: what was left under way and a look at every soaking instance, if `soaks`, then whatever of the waiting bumps may be done now. Returns
    /// whether anything has changed.
    pub async fn watch(&self, soaks: bool) -> bool {
        let (mut changed, mut settled) = (false, false);
        if soaks {
            changed |= self.take_up().await;
            let open = match self.journal.open_bumps() {
                Ok(open) => open,
                Err(error) => {
                    tracing::error!("{error}");
                    tokio::time::sleep(AFTER_ERROR).await;
                    return true;
                }
            };
            for bump in open.iter().filter(|bump| bump.phase == Phase::Soaking) {
                let look = self.look_at(bump).await;
                let after = self.drive(bump.clone(), Event::Looked(look), &|_| ()).await;
                changed |= after.phase != bump.phase;
                settled |= after.is_closed();
            }
            if settled {
                self.retire_unneeded().await;
            }
        }
        let frozen = self.journal.freeze().is_ok_and(|freeze| freeze.is_some());
        if frozen || !self.journal.unfinished().unwrap_or(true) {
            return changed;
        }
        match self.drain(changed).await {
            Ok(drained) => changed | drained,
            Err(error) => {
                tracing::error!("waiting bumps could not be looked at: {error}");
                self.rest();
                tokio::time::sleep(AFTER_ERROR).await;
                true
            }
        }
    }

    /// What was left under way is taken up, and leaves its evidence when it ends badly. Returns whether there was any.
    async fn take_up(&self) -> bool {
        let left = self.journal.open_bumps().unwrap_or_default().into_iter().filter(Bump::is_under_way);
        let left: Vec<BumpId> = left.map(|bump| bump.id).collect();
        Box::pin(conduct::take_up(self)).await;
        let any = !left.is_empty();
        for bump in left {
            if let Ok(Some(bump)) = self.journal.bump(bump) {
                self.leave_evidence(&bump).await;
            }
        }
        any
    }

    /// Goes on with deferred bumps whose users have become idle. Only what was enforced by order, never what was only edited.
    /// Looks at those whose look is due, and, when that may change anything (or `all`), at everything. Returns whether it did.
    async fn drain(&self, all: bool) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        let Some((pin, enforced)) = self.enforced()? else {
            self.journal.set_unfinished(false)?;
            return Ok(false);
        };
        let again = self.try_halted_again()?;
        if again && let Some(why) = self.hold_back_without_room(self.survey(&pin, Some(&enforced)).await?).await? {
            tracing::warn!("{why}. Nothing was changed");
            return Ok(false);
        }
        let all = again || all;
        if !all && (!self.sights.is_empty() || self.halt.is_noted()) {
            let mut eligible = false;
            for user in self.sights.due(now_ms()) {
                if !self.still_waits(&pin, &enforced, &user).await? {
                    eligible = true;
                    break;
                }
            }
            if !eligible {
                return Ok(false);
            }
        }
        self.advance(&pin, Some(&enforced), &|_| (), None).await?;
        Ok(true)
    }

    /// Looks at one instance. When all there is to do about it is to note why it waits, that is done.
    async fn still_waits(&self, pin: &Pin, enforced: &Pin, user: &UserName) -> Result<bool, SurveyError> {
        let view = self.survey_of(pin, Some(enforced), user).await?;
        self.note_waits(&view)?;
        match next(&view) {
            Next::PutOff(id, reason, owner) => {
                self.put_off(id, reason, owner, &|_| ()).await?;
                Ok(true)
            }
            Next::Rest => Ok(view.instances.iter().any(|instance| comes_back(&view, instance))),
            _ => Ok(false),
        }
    }

    /// A cheap look while the soak lasts, the whole handshake at its end.
    async fn look_at(&self, bump: &Bump) -> SoakLook {
        let unit = match self.systemd.unit(&bump.instance.unit).await {
            Ok(unit) => unit,
            Err(error) => return SoakLook::Unclear { reason: error.to_string() },
        };
        // One that takes no notice of the stop is killed by systemd at its deadline, which is its `Result=` then.
        let ended =
            matches!(unit.active_state.as_str(), "inactive" | "failed") && matches!(unit.result.as_str(), "success" | "timeout");
        if ended || unit.active_state == "deactivating" {
            let unit = &bump.instance.unit;
            let reason = format!("somebody has stopped the server; the soak goes on once it is started (systemctl start {unit})");
            return SoakLook::Unclear { reason };
        }
        if unit.active_state != "active" {
            let reason = format!("the unit is {} ({}, {} restarts)", unit.active_state, unit.result, unit.n_restarts);
            return self.bad(bump, reason, true).await;
        }
        if unit.n_restarts >= CRASH_LOOP {
            let reason =
                format!("the server keeps crashing ({} restarts since the bump, last result {})", unit.n_restarts, unit.result);
            return self.bad(bump, reason, true).await;
        }
        let answer = health::describe(&bump.instance.place.account, &bump.instance.probe_address()).await;
        let expected = |descriptor: &Descriptor| descriptor.server_version.as_ref() == Some(&bump.to);
        if !matches!(&answer, Ok(Some(descriptor)) if expected(descriptor))
            && let Ok(listeners) = Listeners::read()
            && let Some(other) = intruder_at(&bump.instance, listeners, &unit.control_group).await
        {
            return SoakLook::Unclear { reason: format!("port {} belongs to {other}", bump.instance.port) };
        }
        match answer {
            Ok(Some(descriptor)) if expected(&descriptor) => {
                self.board.saw_running(bump.instance.user(), &unit.invocation_id, descriptor.server_version);
            }
            Ok(Some(descriptor)) => {
                let other = descriptor.server_version.map_or("something else".to_owned(), |version| version.to_string());
                return self.bad(bump, format!("{other} answers in place of {}", bump.to), false).await;
            }
            // As after a reboot in the soak: a server that is starting answers nobody (T3-CONTRACT), and that condemns no version.
            Ok(None) if self.still_starts(bump, &unit) => {
                return SoakLook::Unclear { reason: "the server was started again and does not answer yet".to_owned() };
            }
            Ok(None) => return self.bad(bump, "the unit runs, but nobody answers on its port".to_owned(), true).await,
            Err(error) => return SoakLook::Unclear { reason: error.to_string() },
        }
        if bump.soak_until_ms.is_some_and(|until| now_ms() < until) {
            return SoakLook::Good;
        }
        match self.probe(bump, &bump.to, std::time::Duration::from_secs(10)).await {
            Err(fault) => SoakLook::Unclear { reason: fault.reason },
            Ok((report, _)) => match judge::verdict(bump.baseline.as_ref(), &report) {
                Verdict::Healthy => SoakLook::Good,
                Verdict::Inconclusive { reason } => SoakLook::Unclear { reason },
                Verdict::Unhealthy { reason } => self.bad(bump, reason, false).await,
            },
        }
    }

    fn still_starts(&self, bump: &Bump, unit: &UnitState) -> bool {
        let silent = self.board.silent_for(bump.instance.user(), &unit.invocation_id, std::time::Instant::now());
        silent.is_some_and(|silent| silent < self.settings().start_deadline)
    }

    async fn bad(&self, bump: &Bump, reason: String, unusable: bool) -> SoakLook {
        let now = self.marks(bump).await;
        let new_work = bump.marks.as_ref().zip(now.as_ref()).map(|(then, now)| then.gained(now));
        SoakLook::Bad { reason, unusable, new_work }
    }
}
