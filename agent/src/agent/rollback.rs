//! Rollbacks that a person asked for.

use super::Agent;
use super::effects::blocking;
use super::runs::Run;
use crate::api::types::{RollbackRequest, RunOutcome};
use crate::domain::UserName;
use crate::engine::{Bump, Event, Outcome, Phase};
use crate::journal::JournalError;

impl Agent {
    /// Takes one user, or everybody, back to what they ran and had before their last bump.
    pub async fn rollback(&self, request: &RollbackRequest, run: &Run) {
        let users = match &request.user {
            Some(user) => vec![user.clone()],
            None => self.users().await,
        };
        let all = request.user.is_none();
        let mut worst = RunOutcome::Done;
        let mut stories = vec![];
        for user in users {
            let (outcome, story) = match self.rollback_of(&user) {
                Ok(Some(bump)) => self.take_back(bump, request.force, run).await,
                Ok(None) if all => continue,
                Ok(None) => {
                    (RunOutcome::Refused, format!("{user} has no bump that could be rolled back (see t3pin history {user})"))
                }
                Err(error) => (RunOutcome::Refused, error.to_string()),
            };
            run.say(story.clone());
            stories.push(story);
            if worst == RunOutcome::Done || outcome == RunOutcome::Stuck {
                worst = outcome;
            }
        }
        if stories.is_empty() {
            stories.push("nobody has a bump that could be rolled back".to_owned());
        }
        run.end(worst, super::summary::sentences(&stories));
    }

    /// The bump to take back: the open one if it has got anywhere, else the one that led to the present binding.
    fn rollback_of(&self, user: &UserName) -> Result<Option<Bump>, JournalError> {
        if let Some(open) = self.journal.open_bump(user)?
            && matches!(open.phase, Phase::Soaking | Phase::Stuck)
        {
            return Ok(Some(open));
        }
        let bound = self.store.binding(user).ok().flatten();
        let closed = self.journal.closed_bumps(Some(user), 1000)?;
        Ok(closed.into_iter().find(|bump| {
            let own = bump.snapshot.as_ref().is_some_and(|snapshot| snapshot.id == bump.id);
            bump.phase == Phase::Closed(Outcome::Done) && own && Some(&bump.to) == bound.as_ref()
        }))
    }

    async fn take_back(&self, bump: Bump, force: bool, run: &Run) -> (RunOutcome, String) {
        let user = bump.instance.user().clone();
        if let Err(error) = self.call_off_waiting(&user, run).await {
            return (RunOutcome::Refused, error.to_string());
        }
        if let Err(why) = self.bring_back(&bump).await {
            let (outcome, state) = match bump.phase {
                Phase::Stuck => (RunOutcome::Stuck, "is stuck".to_owned()),
                _ => (RunOutcome::Refused, format!("runs {} as before", bump.to)),
            };
            return (outcome, format!("{user} {state}: the data of {} cannot be brought back: {why}", bump.from));
        }
        let reason = format!("rolled back from {} to {} by order", bump.to, bump.from);
        let bump = self.drive(bump, Event::RollbackAsked { force, reason }, &|line| run.say(line)).await;
        if bump.phase == Phase::Closed(Outcome::Done) {
            self.put_away(&bump).await;
        }
        let remark = bump.remark.clone().unwrap_or_default();
        match bump.phase {
            Phase::Closed(Outcome::RolledBack) => {
                let salvage = bump.salvage.as_ref().map_or(String::new(), |salvage| {
                    format!("; what {} wrote is kept in {} ({} bytes)", bump.to, salvage.path.display(), salvage.bytes)
                });
                (RunOutcome::Done, format!("{user} runs {} on its own data again{salvage}", bump.from))
            }
            Phase::Stuck => (RunOutcome::Stuck, format!("{user} is stuck: {remark}")),
            _ => (RunOutcome::Deferred, format!("{user}: {remark}; `--force` does it all the same and loses the work in flight")),
        }
    }

    /// Out of the archive before the server is stopped: a snapshot that is gone or rotten, or a full disk, costs nobody anything.
    pub(super) async fn bring_back(&self, bump: &Bump) -> Result<(), String> {
        let (true, Some(snapshot)) = (bump.archived, &bump.snapshot) else { return Ok(()) };
        let (vault, place, from, id) = (self.vault.clone(), bump.instance.place.clone(), snapshot.id, bump.id);
        let found = blocking(move || vault.unarchive(&place, from, id)).await;
        if found.is_err() && bump.phase != Phase::Stuck {
            self.put_away(bump).await;
        }
        found.map_err(|fault| fault.reason)
    }

    /// What was brought back and is not used after all: the archive has it.
    async fn put_away(&self, bump: &Bump) {
        let (vault, place, id) = (self.vault.clone(), bump.instance.place.clone(), bump.id);
        if bump.archived
            && let Err(fault) = blocking(move || vault.archive(&place, id)).await
        {
            tracing::warn!(T3PIN_USER = %bump.instance.user(), T3PIN_BUMP = %bump.id, "a copy of the old data is left: {}", fault.reason);
        }
    }

    /// A bump that only waits would otherwise be between the user and the rollback.
    async fn call_off_waiting(&self, user: &UserName, run: &Run) -> Result<(), JournalError> {
        if let Some(open) = self.journal.open_bump(user)?
            && matches!(open.phase, Phase::Planned | Phase::Ready)
        {
            let reason = "a rollback was asked for".to_owned();
            self.drive(open, Event::CalledOff { reason }, &|line| run.say(line)).await;
        }
        Ok(())
    }
}
