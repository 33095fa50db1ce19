//! What an enforcement came to, for whoever asked for it: one outcome (the worst thing that happened) and the story.

use std::collections::BTreeMap;

use crate::api::types::RunOutcome;
use crate::domain::{UnixMs, UserName};
use crate::engine::rollout::{Decision, HostView, decide};
use crate::engine::{Blame, Bump, Outcome, Phase};

/// Sums up the enforcement that began at `begun`: `view` is the host after it, `closed` the bumps that have ended.
pub fn of(view: &HostView, closed: &[Bump], begun: UnixMs) -> (RunOutcome, String) {
    let mut sum = Sum { worst: RunOutcome::Done, stories: vec![] };
    for bump in closed.iter().filter(|bump| bump.ended_ms.is_some_and(|ended| ended >= begun)) {
        tell_end(&mut sum, bump);
    }
    tell_instances(&mut sum, view);
    if sum.stories.is_empty() {
        sum.stories.push("there are no instances; `t3pin enroll USER` makes one".to_owned());
    }
    (sum.worst, sentences(&sum.stories))
}

/// Stories one after the other; some end in a full stop of their own.
pub fn sentences(stories: &[String]) -> String {
    stories.iter().map(|story| story.trim_end_matches('.')).collect::<Vec<_>>().join(". ")
}

struct Sum {
    worst: RunOutcome,
    stories: Vec<String>,
}

impl Sum {
    fn take(&mut self, outcome: RunOutcome, story: String) {
        if rank(outcome) > rank(self.worst) {
            self.worst = outcome;
        }
        self.stories.push(story);
    }

    fn tells(&self, user: &UserName, reason: &str) -> bool {
        self.stories.iter().any(|story| story.starts_with(&format!("{user} was ")) && story.ends_with(reason))
    }
}

fn tell_end(sum: &mut Sum, bump: &Bump) {
    let reason = bump.fault.as_ref().map_or("no reason is known", |fault| fault.reason.as_str());
    let user = bump.instance.user();
    match bump.phase {
        Phase::Closed(Outcome::RolledBack) => {
            sum.take(RunOutcome::RolledBack, format!("{user} was rolled back to {} with its data: {reason}", bump.from));
        }
        Phase::Closed(Outcome::Refused) => sum.take(RunOutcome::Refused, format!("{user} was not touched: {reason}")),
        Phase::Closed(Outcome::Cancelled) if bump.fault.as_ref().is_some_and(|fault| fault.blame != Blame::Operator) => {
            sum.take(RunOutcome::Refused, format!("{user} was not touched: {reason}"));
        }
        _ => {}
    }
}

fn tell_instances(sum: &mut Sum, view: &HostView) {
    let mut settled = vec![];
    let mut held: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for instance in &view.instances {
        let user = &instance.user;
        if instance.open.as_ref().is_some_and(|open| open.phase == Phase::Stuck) {
            sum.take(RunOutcome::Stuck, format!("{user} is stuck"));
            continue;
        }
        match decide(view, instance) {
            Decision::Keep(_) if instance.bound.as_ref() == Some(&instance.wanted) => {
                settled.push(format!("{user} {}", instance.wanted))
            }
            Decision::Keep(reason) => sum.take(RunOutcome::Done, format!("{user}: {reason}")),
            Decision::Defer(reason) if instance.calls => {
                let inside = "you called from inside this server, so it goes last, once nothing runs in its terminals any more";
                sum.take(RunOutcome::Deferred, format!("{user} is put off: {reason}; {inside}"));
            }
            Decision::Defer(reason) => sum.take(RunOutcome::Deferred, format!("{user} is put off: {reason}")),
            Decision::Bump(reason) => sum.take(RunOutcome::Deferred, format!("{user} is next: {reason}")),
            // Told already, at the end of the bump that it came from.
            Decision::Refuse(reason) if sum.tells(user, &reason) => {}
            Decision::HoldBack(reason) | Decision::Refuse(reason) => held.entry(reason).or_default().push(user.to_string()),
        }
    }
    // The same reason for many is told once.
    for (reason, users) in held {
        sum.take(RunOutcome::Refused, format!("held back: {}: {reason}", users.join(", ")));
    }
    if !settled.is_empty() {
        sum.stories.insert(0, format!("as pinned: {}", settled.join(", ")));
    }
}

fn rank(outcome: RunOutcome) -> u8 {
    match outcome {
        RunOutcome::Done => 0,
        RunOutcome::Deferred => 1,
        RunOutcome::Refused => 2,
        RunOutcome::RolledBack => 3,
        RunOutcome::Stuck => 4,
    }
}
