//! `t3pin defer` and `t3pin now`: what people say about when a bump is to come. The socket has seen to it that users speak
//! for themselves only.

use super::handler::{error, internal};
use super::runs::Run;
use super::waiting::forget_now;
use super::{Agent, now_ms, summary};
use crate::api::types::{ApiError, Caller, DeferRequest, RunOutcome, Told};
use crate::config::Pin;
use crate::domain::{Said, UnixMs, UserName, Wait, Word};
use crate::engine::rollout::{Decision, decide};
use crate::engine::waits::user_limit;

/// Longer reasons are cut: they are shown in tables.
const REASON: usize = 200;

impl Agent {
    /// Notes "later", or takes back what was said. Answers with what holds now.
    pub fn defer(&self, caller: Caller, user: &UserName, request: DeferRequest) -> Result<Told, ApiError> {
        self.refuse_unknown(user)?;
        let now = now_ms();
        let wait = self.journal.wait(user).map_err(internal)?;
        let Some(until_ms) = request.until_ms else { return self.unsay(caller, user, &wait) };
        if until_ms <= now {
            return Err(error("bad-request", "that time is over; say one to come, or `t3pin now` for at once"));
        }
        if !caller.privileged {
            refuse_above(&wait, now)?;
            let limit = user_limit(&wait, now, &self.rules());
            if until_ms > limit {
                return Err(error(
                    "forbidden",
                    &format!("you may put it off until {} at the latest; an operator may for longer", shown(limit)),
                ));
            }
        }
        let reason = request.reason.map(|reason| clean(&reason)).filter(|reason| !reason.is_empty());
        let said = Said { word: Word::Later { until_ms }, at_ms: now, uid: caller.uid, reason };
        self.say(caller, user, said)?;
        Ok(Told { message: format!("{user} is not bumped before {}", shown(until_ms)) })
    }

    /// Notes "now".
    pub fn hasten(&self, caller: Caller, user: &UserName, force: bool) -> Result<(), ApiError> {
        self.refuse_unknown(user)?;
        let now = now_ms();
        if !caller.privileged {
            refuse_above(&self.journal.wait(user).map_err(internal)?, now)?;
        }
        self.say(caller, user, Said { word: Word::Now { force }, at_ms: now, uid: caller.uid, reason: None })
    }

    /// Carries out "now": as far as nothing is in flight, at once; else as soon as that has ended.
    pub async fn now(&self, user: &UserName, calls: Option<&UserName>, run: &Run) {
        let (outcome, message) = match self.go_on_with(user, calls, run).await {
            Ok(ended) => ended,
            Err(why) => (RunOutcome::Refused, why),
        };
        tracing::info!(T3PIN_USER = %user, "asked to bump {user} now: {message}");
        run.end(outcome, message);
    }

    /// Does what is next, tells what becomes of `user`, and says how it stands with them then.
    pub(super) async fn go_on_with(
        &self,
        user: &UserName,
        calls: Option<&UserName>,
        run: &Run,
    ) -> Result<(RunOutcome, String), String> {
        let begun = now_ms();
        let (pin, enforced) = self.enforced().map_err(|error| error.to_string())?.ok_or_else(|| {
            "no pin has been enforced on this host yet, so there is nothing to come; an operator does that: t3pin enforce"
                .to_owned()
        })?;
        // What becomes of others is not for this user's eyes.
        let prefix = format!("{user}: ");
        let say = |line: String| {
            if line.starts_with(&prefix) {
                run.say(line);
            }
        };
        self.advance(&pin, Some(&enforced), &say, calls).await.map_err(|error| error.to_string())?;
        let mut view = self.survey(&pin, Some(&enforced)).await.map_err(|error| error.to_string())?;
        view.instances.retain(|instance| instance.user == *user);
        view.mark_caller(calls);
        let waits =
            view.instances.iter().any(|instance| matches!(decide(&view, instance), Decision::Defer(_) | Decision::Bump(_)));
        if !waits {
            self.journal.change_wait(user, forget_now).map_err(|error| error.to_string())?;
        }
        let closed = self.journal.closed_bumps(Some(user), 100).unwrap_or_default();
        Ok(summary::of(&view, &closed, begun))
    }

    /// The pin as it is, and as it was last enforced by order; `None` when it never was.
    pub fn enforced(&self) -> Result<Option<(Pin, Pin)>, Box<dyn std::error::Error + Send + Sync>> {
        let Some(enforced) = self.journal.enforced_pin()? else { return Ok(None) };
        let Some(pin) = self.pins.look(&self.journal).good else { return Ok(None) };
        Ok(Some((pin, serde_json::from_str(&enforced)?)))
    }

    fn unsay(&self, caller: Caller, user: &UserName, wait: &Wait) -> Result<Told, ApiError> {
        let changed = self.journal.change_wait(user, |wait| {
            wait.user = None;
            if caller.privileged {
                wait.operator = None;
            }
        });
        if changed.map_err(internal)? == *wait {
            return Ok(Told { message: format!("nothing was said about {user} that you could take back") });
        }
        self.sights.forget(user);
        tracing::info!(T3PIN_USER = %user, "uid {} took back what was said about when {user} is bumped", caller.uid);
        Ok(Told { message: format!("taken back; {user} is bumped when idle, as usual") })
    }

    fn say(&self, caller: Caller, user: &UserName, said: Said) -> Result<(), ApiError> {
        let who = if caller.privileged { "an operator" } else { "the user" };
        let what = match said.word {
            Word::Later { until_ms } => format!("not before {}", shown(until_ms)),
            Word::Now { force: false } => "now, as soon as nothing is in flight".to_owned(),
            Word::Now { force: true } => "now, whatever is in flight".to_owned(),
        };
        tracing::info!(T3PIN_USER = %user, "{who} (uid {}) wants {user} bumped {what}", caller.uid);
        let noted = self.journal.change_wait(user, |wait| {
            // An operator's word puts an end to what the user said before it.
            if caller.privileged {
                wait.operator = Some(said);
            } else {
                wait.user = Some(said);
            }
        });
        self.sights.forget(user);
        noted.map(drop).map_err(internal)
    }

    fn refuse_unknown(&self, user: &UserName) -> Result<(), ApiError> {
        match self.store.binding(user) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => {
                Err(error("not-found", &format!("{user} has no server that t3pin holds; `t3pin enroll {user}` takes one over")))
            }
            Err(trouble) => Err(internal(trouble)),
        }
    }
}

/// A user cannot speak against an operator.
fn refuse_above(wait: &Wait, now: UnixMs) -> Result<(), ApiError> {
    let Some(said) = &wait.operator else { return Ok(()) };
    let why = said.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
    match said.word {
        Word::Later { until_ms } if until_ms > now => {
            Err(error("forbidden", &format!("an operator has put it off until {}{why}; ask them", shown(until_ms))))
        }
        Word::Later { .. } => Ok(()),
        Word::Now { .. } => Err(error("forbidden", "an operator has asked for this bump; ask them")),
    }
}

fn shown(ms: UnixMs) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(
        |_| "the end of time".to_owned(),
        |at| at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M %Z").to_string(),
    )
}

fn clean(reason: &str) -> String {
    reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON).collect::<String>().trim().to_owned()
}
