//! Bringing a snapshot back by order.
//!
//! It is the way back of a bump, and nothing else: a record of its own is written, "from" the version of the snapshot "to" the
//! one that runs, as if that bump had been done and settled with this snapshot, and that one is rolled back. So the same steps are
//! taken with the same care: activity, stop, what lies there into salvage, binding and data together, start, verify.

use super::effects::blocking;
use super::runs::Run;
use super::{Agent, now_ms};
use crate::api::archive_types::KeptRequest;
use crate::api::types::RunOutcome;
use crate::domain::{Activity, KeptId, Snapshot};
use crate::engine::rollout;
use crate::engine::{Bump, Event, Outcome, Phase};
use crate::host::instances;

/// A look at activity may take this long; then it is unknown, which means busy.
const LOOK: std::time::Duration = std::time::Duration::from_secs(5);

impl Agent {
    /// Carries out the order.
    pub async fn restore_snapshot(&self, request: &KeptRequest, run: &Run) {
        let (outcome, story) = match self.restorable(request, run).await {
            Ok(bump) => self.take_to(bump, request.force, run).await,
            Err((outcome, why)) => (outcome, format!("{}: {why}. Nothing was changed", request.user)),
        };
        match outcome {
            RunOutcome::Done => tracing::info!(T3PIN_USER = %request.user, "{story}"),
            _ => tracing::warn!(T3PIN_USER = %request.user, "{story}"),
        }
        run.end(outcome, story);
    }

    /// The record to roll back, once everything is there that it needs and the snapshot lies beside the user's data.
    async fn restorable(&self, request: &KeptRequest, run: &Run) -> Result<Bump, (RunOutcome, String)> {
        let refuse = |why: String| (RunOutcome::Refused, why);
        let user = &request.user;
        let KeptId::Snapshot(id) = request.id else {
            return Err(refuse("salvage is what a version wrote that was rolled back; export it, it is not restored".to_owned()));
        };
        let instance = instances::of(&self.env, user).map_err(|error| refuse(error.to_string()))?;
        if let Some(open) = self.journal.open_bump(user).map_err(|error| refuse(error.to_string()))? {
            match open.phase {
                Phase::Planned | Phase::Ready => {
                    let reason = format!("snapshot {id} is restored");
                    self.drive(open, Event::CalledOff { reason }, &|line| run.say(line)).await;
                }
                _ => {
                    let why =
                        format!("{} is not over yet; t3pin rollback {user} takes it back, or wait until it is settled", open.id);
                    return Err(refuse(why));
                }
            }
        }
        let bound = self.store.binding(user).map_err(|error| refuse(error.to_string()))?;
        let bound = bound.ok_or_else(|| refuse("is bound to no version; t3pin enroll comes first".to_owned()))?;
        let (vault, whose) = (self.vault.clone(), user.clone());
        let snapshot = blocking(move || vault.snapshot(&whose, id)).await.map_err(|fault| refuse(fault.reason))?;
        if !request.force {
            let state = self.systemd.unit(&instance.unit).await.map_err(|error| refuse(error.to_string()))?;
            let activity: Activity = self.activity(&instance.place, &state.control_group, LOOK).await;
            if state.active_state != "inactive"
                && let Some(reason) = rollout::busy(&activity, now_ms(), 0)
            {
                let why = format!("{reason}; `--force` does it all the same and loses the work in flight");
                return Err((RunOutcome::Deferred, why));
            }
        }
        self.have_installed(&snapshot, run).await.map_err(refuse)?;
        let new = self.journal.new_bump_id().map_err(|error| refuse(error.to_string()))?;
        run.say(format!("{user}: reading snapshot {id} back"));
        let (vault, place) = (self.vault.clone(), instance.place.clone());
        blocking(move || vault.unarchive(&place, id, new)).await.map_err(|fault| refuse(fault.reason))?;
        let reason = format!("snapshot {id} is restored by order");
        let mut bump = Bump::planned(new, instance, snapshot.version.clone(), bound, reason, 0, now_ms());
        bump.begun_ms = Some(now_ms());
        bump.phase = Phase::Closed(Outcome::Done);
        bump.snapshot = Some(Snapshot { entries: Vec::new(), ..snapshot });
        bump.archived = true;
        bump.ran = true;
        Ok(bump)
    }

    /// The version that the data belongs to, installed first when it is not there any more.
    async fn have_installed(&self, snapshot: &Snapshot, run: &Run) -> Result<(), String> {
        let version = &snapshot.version;
        let installed = || self.store.get(version).map(|found| found.is_some()).map_err(|error| error.to_string());
        if installed()? {
            return Ok(());
        }
        let Some(pin) = self.pins.look(&self.journal).good else {
            return Err(format!("t3 {version} is not installed any more, and nothing is pinned, so nothing is installed"));
        };
        self.install(version, &pin, &|line| run.say(line)).await;
        match installed()? {
            true => Ok(()),
            false => Err(format!("its version, t3 {version}, is not installed any more and could not be installed (see above)")),
        }
    }

    async fn take_to(&self, bump: Bump, force: bool, run: &Run) -> (RunOutcome, String) {
        let (user, from, to, place) =
            (bump.instance.user().clone(), bump.from.clone(), bump.to.clone(), bump.instance.place.clone());
        let id = bump.snapshot.as_ref().map_or(bump.id, |snapshot| snapshot.id);
        let event = Event::RollbackAsked { force, reason: format!("snapshot {id} was restored by order") };
        let mut bump = self.drive(bump, event, &|line| run.say(line)).await;
        if bump.phase == Phase::Closed(Outcome::Done) {
            // Found busy after all. It was no bump, and must not be taken for one that was done.
            bump.phase = Phase::Closed(Outcome::Cancelled);
            if let Err(error) = self.journal.record(&bump, None, now_ms()) {
                tracing::error!(T3PIN_USER = %user, T3PIN_BUMP = %bump.id, "{error}");
            }
            let (vault, unused) = (self.vault.clone(), bump.id);
            if let Err(fault) = blocking(move || vault.archive(&place, unused)).await {
                tracing::warn!(T3PIN_USER = %user, T3PIN_BUMP = %bump.id, "a copy of the snapshot is left: {}", fault.reason);
            }
        }
        let remark = bump.remark.clone().unwrap_or_default();
        match bump.phase {
            Phase::Closed(Outcome::RolledBack) => {
                let salvage = bump.salvage.as_ref().map_or(String::new(), |salvage| {
                    format!("; what lay there, of {to}, is kept as {}-salvage ({} bytes)", bump.id, salvage.bytes)
                });
                (RunOutcome::Done, format!("{user} runs {from} on the data of snapshot {id}{salvage}"))
            }
            Phase::Stuck => (RunOutcome::Stuck, format!("{user} is stuck: {remark}")),
            _ => (RunOutcome::Deferred, format!("{user}: {remark}; `--force` does it all the same and loses the work in flight")),
        }
    }
}
