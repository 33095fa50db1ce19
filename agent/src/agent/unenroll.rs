//! Letting go of a user: t3pin no longer holds their server at a version. Nothing of theirs is touched.

use super::Agent;
use super::runs::Run;
use crate::api::types::RunOutcome;
use crate::domain::{UserName, Wait};
use crate::engine::{Event, Phase};

impl Agent {
    /// Carries out an order to let go of a user. `t3pin enroll` takes them up again.
    pub async fn unenroll(&self, user: &UserName, run: &Run) {
        match self.let_go_of(user, run).await {
            Ok(message) => {
                tracing::info!(T3PIN_USER = %user, "{message}");
                run.end(RunOutcome::Done, message);
            }
            Err(refusal) => run.end(RunOutcome::Refused, refusal),
        }
    }

    async fn let_go_of(&self, user: &UserName, run: &Run) -> Result<String, String> {
        let bound = self.store.binding(user).map_err(|error| error.to_string())?;
        let Some(bound) = bound.filter(|_| !self.journal.is_released(user).unwrap_or(false)) else {
            return Err(format!("{user} is not held by t3pin"));
        };
        match self.journal.open_bump(user).map_err(|error| error.to_string())? {
            Some(open) if matches!(open.phase, Phase::Planned | Phase::Ready) => {
                let reason = "t3pin no longer holds this user".to_owned();
                self.drive(open, Event::CalledOff { reason }, &|line| run.say(line)).await;
            }
            Some(open) => {
                return Err(format!(
                    "{user} has a bump that is not over ({} -> {}); when it is, ask again (t3pin status {user})",
                    open.from, open.to
                ));
            }
            None => {}
        }
        self.journal.set_released(user, true).map_err(|error| error.to_string())?;
        self.journal.change_wait(user, |wait| *wait = Wait::default()).map_err(|error| error.to_string())?;
        self.sights.keep_only(|watched| watched != user);
        Ok(format!(
            "{user} is no longer held. {} goes on with t3 {bound} and is yours to update; left as they are: the data, the unit, {}, the version, \
             snapshots (/var/lib/t3pin/snapshots/{user}) and custody. `t3pin enroll {user}` takes it up again",
            user.unit(),
            self.env.path(user).display()
        ))
    }
}
