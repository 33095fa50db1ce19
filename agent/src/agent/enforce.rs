//! Enforcing the pin: doing what the engine says is next until it says to rest.

use std::collections::BTreeSet;

use super::drive::Progress;
use super::runs::Run;
use super::summary;
use super::survey::SurveyError;
use super::{Agent, now_ms};
use crate::api::types::RunOutcome;
use crate::config::Pin;
use crate::domain::{Activity, BumpId, DeferralOwner, UserName, Version};
use crate::engine::rollout::{HostView, InstanceView, Next, busy, comes_back, next};
use crate::engine::{Bump, Event, Phase};
use crate::host::instances;
use crate::journal::{JournalError, RolloutTries};
use crate::versions::InstallSettings;

impl Agent {
    /// Carries out an order to enforce the pin file as it is now; `calls` is the instance from inside of which it was given.
    pub async fn enforce(&self, calls: Option<&UserName>, run: &Run) {
        let (outcome, message) = match self.enforceable() {
            Ok(pin) => self.enforce_pin(&pin, calls, run).await,
            Err(refusal) => (RunOutcome::Refused, refusal),
        };
        match outcome {
            RunOutcome::Done | RunOutcome::Deferred => tracing::info!("enforced: {message}"),
            _ => tracing::warn!("enforced, not all is well: {message}"),
        }
        run.end(outcome, message);
    }

    /// The pin to enforce, unless something forbids it.
    fn enforceable(&self) -> Result<Pin, String> {
        self.reload_settings().map_err(|error| format!("{error}. Nothing was changed"))?;
        let now = self.pins.look(&self.journal);
        if let Some(error) = now.error {
            let kept = now
                .good
                .map_or("Nothing was changed".to_owned(), |pin| format!("Nothing was changed; {} stays pinned", pin.version));
            return Err(format!("{error}. {kept}"));
        }
        match self.journal.freeze() {
            Ok(None) => {}
            Ok(Some(freeze)) => {
                let reason = freeze.reason.map_or(String::new(), |reason| format!(" ({reason})"));
                return Err(format!("version changes are frozen{reason}; `t3pin thaw` lifts it. Nothing was changed"));
            }
            Err(error) => return Err(error.to_string()),
        }
        now.good.ok_or_else(|| "nothing is pinned".to_owned())
    }

    async fn enforce_pin(&self, pin: &Pin, calls: Option<&UserName>, run: &Run) -> (RunOutcome, String) {
        self.board.clear_uninstallable();
        // Who orders it wants to know how things are, not how they were.
        self.sights.forget_all();
        let begun = now_ms();
        let view = match self.foresee(pin).await {
            Ok(view) => view,
            Err(error) => return (RunOutcome::Refused, format!("{error}. Nothing was changed")),
        };
        let remembered = self
            .journal
            .set_enforced_ms(begun)
            .and_then(|()| self.journal.set_rollout_tries(RolloutTries::default()))
            .and_then(|()| self.journal.set_enforced_pin(&serde_json::to_string(pin)?))
            // From now on it is the agent's, also one that is started after this one has died.
            .and_then(|()| self.journal.set_unfinished(true));
        if let Err(error) = remembered {
            return (RunOutcome::Refused, format!("{error}. Nothing was changed"));
        }
        match self.hold_back_without_room(view).await {
            Ok(None) => {}
            Ok(Some(why)) => {
                return (
                    RunOutcome::Refused,
                    format!("{why}. Nothing was changed; it is tried again by itself, ever more rarely"),
                );
            }
            Err(error) => return (RunOutcome::Refused, format!("{error}. Nothing was changed")),
        }
        if let Err(error) = self.advance(pin, None, &|line| run.say(line), calls).await {
            return (RunOutcome::Refused, error.to_string());
        }
        match self.survey(pin, None).await {
            Ok(mut view) => {
                view.mark_caller(calls);
                let closed = self.journal.closed_bumps(None, 1000).unwrap_or_default();
                summary::of(&view, &closed, begun)
            }
            Err(error) => (RunOutcome::Refused, error.to_string()),
        }
    }

    /// Does what is next until nothing more can be done now. `enforced` as in [`Agent::survey`], `calls` as in
    /// [`Agent::enforce`].
    pub async fn advance(
        &self,
        pin: &Pin,
        enforced: Option<&Pin>,
        say: Progress<'_>,
        calls: Option<&UserName>,
    ) -> Result<(), SurveyError> {
        loop {
            let mut view = self.survey(pin, enforced).await?;
            view.mark_caller(calls);
            self.note_waits(&view)?;
            match next(&view) {
                // What waits while the host is frozen waits for the thaw, and is not forgotten.
                Next::Rest if view.frozen.is_some() => return Ok(()),
                Next::Rest => {
                    let waits = |i: &&InstanceView| comes_back(&view, i);
                    let waiting: BTreeSet<_> = view.instances.iter().filter(waits).map(|i| &i.user).collect();
                    self.sights.keep_only(|user| waiting.contains(user));
                    let halted = self.note_halt(&view)?;
                    return Ok(self.journal.set_unfinished(!waiting.is_empty() || halted)?);
                }
                Next::Install(version) => self.install(&version, pin, say).await,
                Next::Plan { user, from, to, reason } => match instances::of(&self.env, &user) {
                    Ok(instance) => drop(self.plan_bump(instance, &from, &to, reason)?),
                    // The survey has just read the same files; whatever changed since is seen at the next round.
                    Err(error) => tracing::warn!(T3PIN_USER = %user, "{error}"),
                },
                Next::GoAhead(id) => {
                    if let Some(bump) = self.journal.bump(id)? {
                        tell_forced(&view, &bump, say);
                        let bump = self.drive(bump, Event::GoAhead, say).await;
                        match bump.deferral.as_ref().filter(|_| bump.phase == Phase::Ready) {
                            // Not at once again: the next look may say once more what turned out to be wrong.
                            Some(deferral) => self.sights.doubt(bump.instance.user(), &deferral.reason, now_ms()),
                            None => self.sights.forget(bump.instance.user()),
                        }
                        self.spend_now(&bump);
                    }
                }
                Next::PutOff(id, reason, owner) => self.put_off(id, reason, owner, say).await?,
                Next::CallOff(id, reason) => {
                    if let Some(bump) = self.journal.bump(id)? {
                        self.drive(bump, Event::CalledOff { reason }, say).await;
                    }
                }
            }
        }
    }

    /// Notes that a bump waits, and says so.
    pub async fn put_off(&self, id: BumpId, reason: String, owner: DeferralOwner, say: Progress<'_>) -> Result<(), JournalError> {
        let Some(bump) = self.journal.bump(id)? else { return Ok(()) };
        tracing::info!(
            T3PIN_USER = %bump.instance.user(), T3PIN_BUMP = %bump.id, T3PIN_VERSION = %bump.to,
            "{} is put off: {reason}", bump.instance.user()
        );
        say(format!("{}: put off: {reason}", bump.instance.user()));
        self.drive(bump, Event::PutOff { reason, owner }, &|_| ()).await;
        Ok(())
    }

    /// Installs a version; a failure is noted, so that nobody is bumped to it until the next order.
    pub async fn install(&self, version: &Version, pin: &Pin, say: &(dyn Fn(String) + Send + Sync)) {
        self.board.set_doing("installing", format!("installing t3 {version}"));
        say(format!("installing t3 {version}"));
        let integrity = pin.integrity.as_deref().filter(|_| *version == pin.version);
        let settings = self.install_settings();
        let progress = |line: &str| say(format!("t3 {version}: {line}"));
        match self.store.install(&self.systemd, version, integrity, &settings, &progress).await {
            Ok(installed) => {
                tracing::info!(T3PIN_VERSION = %version, "t3 {version} is installed ({} MB)", installed.bytes / 1_000_000);
                say(format!("t3 {version} is installed"));
            }
            Err(error) => {
                tracing::error!(T3PIN_VERSION = %version, "{error}");
                say(error.to_string());
                self.board.set_uninstallable(version, error.to_string());
            }
        }
    }

    fn install_settings(&self) -> InstallSettings {
        let settings = self.settings();
        InstallSettings {
            registry: settings.registry.clone(),
            node: settings.node.clone(),
            npm: settings.npm.clone(),
            node_headers: settings.node_headers.clone(),
            allow_scripts: settings.allow_scripts.clone(),
            user: "t3pin-npm".to_owned(),
            deadline: settings.install_deadline,
        }
    }
}

/// Work in flight is only passed over when an entitled person said so; what is lost is said before it is.
fn tell_forced(view: &HostView, bump: &Bump, say: Progress<'_>) {
    let user = bump.instance.user();
    let activity = view.instances.iter().find(|instance| instance.user == *user).and_then(|instance| instance.activity.as_ref());
    let working = activity.filter(|activity| !matches!(activity, Activity::Idle { .. }));
    if let (Phase::Ready, Some(work)) = (bump.phase, working.and_then(|activity| busy(activity, view.now_ms, 0))) {
        tracing::warn!(
            T3PIN_USER = %user, T3PIN_BUMP = %bump.id, T3PIN_VERSION = %bump.to, "{user} is bumped by force; interrupted: {work}"
        );
        say(format!("{user}: by force; interrupted: {work}"));
    }
}
