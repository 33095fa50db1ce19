//! Looking after what waits and what soaks.

use super::{Agent, now_ms};
use crate::conduct;
use crate::domain::Verdict;
use crate::engine::{Bump, Event, Phase, SoakLook, judge};
use crate::health;

/// That many automatic restarts since we started the unit are a crash loop; one may be an accident (memory).
const CRASH_LOOP: u32 = 2;

impl Agent {
    /// One round: what was left under way, a look at every soaking instance, then whatever of the waiting bumps may be done now.
    pub async fn watch(&self) {
        conduct::take_up(self).await;
        let open = match self.journal.open_bumps() {
            Ok(open) => open,
            Err(error) => return tracing::error!("{error}"),
        };
        for bump in open.iter().filter(|bump| bump.phase == Phase::Soaking) {
            let look = self.look_at(bump).await;
            self.drive(bump.clone(), Event::Looked(look), &|_| ()).await;
        }
        if self.journal.unfinished().unwrap_or(true)
            && let Err(error) = self.drain().await
        {
            tracing::error!("waiting bumps could not be looked at: {error}");
        }
    }

    /// Goes on with deferred bumps whose users have become idle. Only what was enforced by order, never what was only edited.
    async fn drain(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let Some((pin, enforced)) = self.enforced()? else { return Ok(self.journal.set_unfinished(false)?) };
        Ok(self.advance(&pin, Some(&enforced), &|_| (), None).await?)
    }

    /// A cheap look while the soak lasts, the whole handshake at its end.
    async fn look_at(&self, bump: &Bump) -> SoakLook {
        let unit = match self.systemd.unit(&bump.instance.unit).await {
            Ok(unit) => unit,
            Err(error) => return SoakLook::Unclear { reason: error.to_string() },
        };
        if unit.active_state == "inactive" && unit.result == "success" {
            return SoakLook::Unclear { reason: "somebody has stopped the server".to_owned() };
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
        match answer {
            Ok(Some(descriptor)) if descriptor.server_version.as_ref() == Some(&bump.to) => {}
            Ok(Some(descriptor)) => {
                let other = descriptor.server_version.map_or("something else".to_owned(), |version| version.to_string());
                return self.bad(bump, format!("{other} answers in place of {}", bump.to), false).await;
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

    async fn bad(&self, bump: &Bump, reason: String, unusable: bool) -> SoakLook {
        let now = self.marks(bump).await;
        let new_work = bump.marks.as_ref().zip(now.as_ref()).map(|(then, now)| then.gained(now));
        SoakLook::Bad { reason, unusable, new_work }
    }
}
