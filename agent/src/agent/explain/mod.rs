//! `t3pin explain`: the story of a user's bump in plain words, out of the journal and the evidence. Changes nothing.

mod advice;
mod steps;

use super::evidence::{bundle_of, last_words};
use super::handler::{error, internal};
use super::reissue::devices;
use super::status::may_see;
use super::{Agent, now_ms};
use crate::api::explanation::Explanation;
use crate::api::types::{ApiError, Caller, InstanceStatus};
use crate::domain::{BumpId, UserName};
use crate::engine::{Bump, Outcome, Phase, pair_again};

/// How many lines of a log a story quotes.
const QUOTED: usize = 8;

impl Agent {
    /// Explains the bump that is called `what`, or else the open or last bump of the user who is.
    pub async fn explain(&self, caller: Caller, what: &UserName) -> Result<Explanation, ApiError> {
        // The name of a bump may well be the name of a user, too.
        let named = what.as_str().parse::<BumpId>().ok().map(|id| self.journal.bump(id)).transpose().map_err(internal)?.flatten();
        let named = named.filter(|bump| may_see(caller, bump.instance.user()));
        let user = named.as_ref().map_or(what, |bump| bump.instance.user()).clone();
        let bump = match named {
            Some(bump) => Some(bump),
            None if may_see(caller, &user) => self.last_of(&user).map_err(internal)?,
            None => None,
        };
        let known = bump.is_some() || (may_see(caller, &user) && self.users().await.contains(&user));
        if !known {
            return Err(error("not-found", &format!("there is no user and no bump {what} here that you may see")));
        }
        let instance = self.instance_now(&user).await;
        let Some(bump) = bump else {
            return Ok(Explanation {
                now: now(&instance, None),
                can: advice::without_bump(&instance),
                user,
                bump: None,
                planned: None,
                steps: vec![],
                wrong: None,
                log: vec![],
                pair_again: vec![],
                done: None,
                evidence: None,
            });
        };
        let story = self.journal.story(bump.id).map_err(internal)?;
        let latest = self.last_of(&user).map_err(internal)?.is_none_or(|last| last.id == bump.id);
        let given = self.journal.reissues(&user).map_err(internal)?;
        let again = if latest { self.pair_again(&user).map_err(internal)? } else { pair_again([&bump], &given, now_ms()) };
        let mut can = match bump.phase {
            _ if !latest => vec![],
            Phase::Stuck => self.ways_out(&bump),
            _ => advice::about(&bump, &instance),
        };
        if latest && again.left() > 0 {
            can.push(format!("t3pin reissue {user}: a new pairing link for each device that has to pair again"));
        }
        Ok(Explanation {
            user,
            planned: Some(format!("From {} to {}, because of this: {}.", bump.from, bump.to, bump.reason.trim_end_matches('.'))),
            steps: steps::told(&bump, &story),
            wrong: wrong(&bump),
            log: log_of(&bump),
            done: done(&bump),
            now: now(&instance, (!latest).then_some(&bump)),
            can,
            evidence: bundle_of(&bump).filter(|_| caller.privileged).map(|path| path.display().to_string()),
            pair_again: devices(&bump, &again, &given, now_ms()),
            bump: Some(self.summary_of(&bump)),
        })
    }

    fn last_of(&self, user: &UserName) -> Result<Option<Bump>, crate::journal::JournalError> {
        match self.journal.open_bump(user)? {
            Some(open) => Ok(Some(open)),
            None => Ok(self.journal.closed_bumps(Some(user), 1)?.into_iter().next()),
        }
    }

    async fn instance_now(&self, user: &UserName) -> InstanceStatus {
        let pin = self.pins.look(&self.journal).good;
        self.instance_status(&self.glance(), user, pin.map(|pin| pin.wanted(user).clone())).await
    }
}

fn wrong(bump: &Bump) -> Option<String> {
    let fault = bump.fault.as_ref()?;
    let whose = match fault.blame {
        crate::engine::Blame::Version => format!("The new version, {}, is at fault", bump.to),
        crate::engine::Blame::User => "It lies in this user's data or settings".to_owned(),
        crate::engine::Blame::Environment => "It lies in this host, not in the version".to_owned(),
        crate::engine::Blame::Operator => "Nothing went wrong: it was wanted".to_owned(),
    };
    let reason = fault.reason.trim().trim_end_matches('.');
    let later = bump.remark.as_ref().map_or_else(String::new, |remark| format!(" Then: {}.", remark.trim_end_matches('.')));
    Some(format!("{whose}: {reason}.{later}"))
}

/// What the new version said: on the user's data if it ran there, else in the rehearsal.
fn log_of(bump: &Bump) -> Vec<String> {
    if bump.fault.is_none() {
        return vec![];
    }
    let live = last_words(bump, QUOTED);
    if !live.is_empty() {
        return live;
    }
    match &bump.rehearsal {
        Some(rehearsal) if matches!(bump.phase, Phase::Closed(Outcome::Refused | Outcome::Cancelled)) => {
            let tail = &rehearsal.output_tail;
            tail[tail.len().saturating_sub(QUOTED)..].to_vec()
        }
        _ => vec![],
    }
}

fn done(bump: &Bump) -> Option<String> {
    let (from, to) = (&bump.from, &bump.to);
    let down = bump.downtime_ms().map_or_else(String::new, |ms| format!(" Nobody was answered for {:.1} s.", ms as f64 / 1000.0));
    Some(match bump.phase {
        Phase::Closed(Outcome::Done) => format!("{to} was verified from outside, soaked well and is settled.{down}"),
        Phase::Soaking => format!("{to} was verified from outside and runs; it is still being watched.{down}"),
        Phase::Closed(Outcome::RolledBack) => {
            let salvage = bump.salvage.as_ref().map_or_else(
                || format!("{to} had written nothing that was to be kept."),
                |salvage| format!("What {to} wrote is kept in {} ({} bytes).", salvage.path.display(), salvage.bytes),
            );
            format!("{from} was put back together with its own data.{down} {salvage}")
        }
        Phase::Closed(Outcome::Refused) => {
            format!("{to} was tried on a copy only. The server and the data of the user were not touched.")
        }
        Phase::Closed(Outcome::Cancelled) if bump.stopped_ms.is_none() => {
            "It was called off before the server was touched.".to_owned()
        }
        Phase::Closed(Outcome::Cancelled) => format!("It was called off; {from} was started again on its own data.{down}"),
        Phase::Stuck => format!(
            "Going back to {from} was tried and did not work. t3pin does not go on by guessing: it left both copies of the data in place."
        ),
        _ => return None,
    })
}

/// How the user's instance is now; `old`: the story is of a bump that others came after.
fn now(instance: &InstanceStatus, old: Option<&Bump>) -> String {
    let user = &instance.user;
    let runs = match (&instance.running_version, &instance.bound_version) {
        (Some(running), _) => format!("{user}'s server runs {running}"),
        (None, Some(bound)) => format!("{user}'s server does not answer (it is bound to {bound})"),
        (None, None) => format!("{user} has no server under t3pin"),
    };
    let detail = instance.detail.as_deref().map_or_else(String::new, |detail| format!(" ({})", detail.trim_end_matches('.')));
    let later = if old.is_some() { " Other bumps came after this one." } else { "" };
    format!("{runs}; state: {}{detail}.{later}", instance.state)
}
