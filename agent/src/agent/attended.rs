//! `t3pin versions retry V USER`: one attended try of a quarantined version.

use super::runs::Run;
use super::{Agent, now_ms};
use crate::api::types::{RetryRequest, RunOutcome};
use crate::domain::{AttendedTry, UserName};

impl Agent {
    /// Gives one user a quarantined version once more, as far as nothing is in flight at once, else as soon as that has ended. Everybody else
    /// stays held back until it has soaked well there. `calls` is the instance from inside of which it was asked.
    pub async fn retry_version(&self, request: &RetryRequest, calls: Option<&UserName>, run: &Run) {
        let (version, user) = (&request.version, &request.user);
        let (outcome, message) = match self.allow_try(request) {
            Ok(()) => self.go_on_with(user, calls, run).await.unwrap_or_else(|why| (RunOutcome::Refused, why)),
            Err(why) => (RunOutcome::Refused, format!("{why}. Nothing was changed")),
        };
        tracing::info!(T3PIN_USER = %user, T3PIN_VERSION = %version, "asked to try {version} once more with {user}: {message}");
        run.end(outcome, message);
    }

    fn allow_try(&self, request: &RetryRequest) -> Result<(), String> {
        let RetryRequest { version, user } = request;
        // A setting that was wrong may be why it had failed.
        self.reload_settings().map_err(|error| error.to_string())?;
        let quarantine = self.journal.quarantine().map_err(|error| error.to_string())?;
        if !quarantine.iter().any(|quarantine| quarantine.version == *version) {
            return Err(format!("{version} is not quarantined, so that it needs no leave: pin it, and t3pin enforce"));
        }
        let pinned = self.pins.look(&self.journal).good.map(|pin| pin.wanted(user).clone());
        if pinned.as_ref() != Some(version) {
            let pinned = pinned.map_or("nothing".to_owned(), |version| version.to_string());
            return Err(format!(
                "{user} is pinned to {pinned}, and only what is pinned is tried: see [users.{user}] in the pin file"
            ));
        }
        if self.store.binding(user).map_err(|error| error.to_string())?.is_none() {
            return Err(format!("{user} has no server that t3pin holds; `t3pin enroll {user}` takes one over"));
        }
        let word = AttendedTry { user: user.clone(), at_ms: now_ms() };
        self.journal.attend(version, &word).map_err(|error| error.to_string())?;
        self.board.clear_uninstallable();
        self.sights.forget(user);
        Ok(())
    }
}
