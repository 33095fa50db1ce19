//! One instance in detail: what it runs, what is coming, why that waits.

use std::fmt::Write;

use super::super::render::{ago, clock, lasting, plain};
use crate::api::types::{BumpSummary, InstanceStatus, WaitStatus};
use crate::domain::{DeferralOwner, RehearsalReport, UnixMs};

/// `instance`, at `now`. Writing to a `String` cannot fail.
pub fn shown(instance: &InstanceStatus, now: UnixMs) -> String {
    let mut out = String::new();
    let port = instance.port.map_or_else(String::new, |port| format!(", port {port}"));
    let _ = writeln!(out, "{} ({}{port})", instance.user, plain(&instance.unit));
    let _ = writeln!(out, "Runs         {}", runs(instance));
    let _ = writeln!(out, "Coming       {}", coming(instance, now));
    let phase = instance.phase.as_deref().map_or_else(String::new, |phase| format!(", phase {}", plain(phase)));
    let detail = instance.detail.as_deref().map_or_else(String::new, |detail| format!(": {}", plain(detail)));
    let _ = writeln!(out, "State        {}{phase}{detail}", plain(&instance.state));
    if let Some(deferral) = &instance.deferral {
        let end = match deferral.owner {
            DeferralOwner::Activity => "goes on by itself when nothing is in flight any more and it has been quiet for a while",
            DeferralOwner::User | DeferralOwner::Operator => "goes on by itself then, when nobody works",
            DeferralOwner::Window => "goes on by itself then, when nobody works",
            DeferralOwner::Freeze => "goes on when an operator lifts the freeze",
        };
        let (since, look) = (ago(now, deferral.since_ms), ago(now, deferral.last_look_ms));
        let _ = writeln!(out, "Waits        {} (put off {since}, last look {look}); {end}", plain(&deferral.reason));
    }
    for drift in instance.drift.iter().filter(|drift| instance.detail.as_ref() != Some(&drift.what)) {
        let _ = writeln!(out, "DRIFT        {}: {}", plain(&drift.kind), plain(&drift.what));
    }
    if let Some(weaker) = &instance.weaker {
        let _ =
            writeln!(out, "Hand-over    less sure here: {}; a turn begun in its last milliseconds would be lost", plain(weaker));
    }
    if let Some(wait) = &instance.wait {
        if let Some(at) = wait.escalated_ms {
            let _ = writeln!(out, "Escalated    {}: it has been waiting for too long, and operators were told", ago(now, at));
        }
        out.push_str(&choices(instance, wait, now));
    }
    if let Some(rehearsal) = &instance.rehearsal {
        let _ = writeln!(out, "Rehearsal    {}", rehearsed(rehearsal));
    }
    if instance.to_pair_again > 0 {
        let n = instance.to_pair_again;
        let who = if n == 1 { "1 device still has".to_owned() } else { format!("{n} devices still have") };
        let _ = writeln!(out, "Pairing      {who} to pair again: t3pin reissue {}", instance.user);
    }
    if let Some(bump) = &instance.last_bump {
        let _ = write!(out, "{}", last_bump(bump, now));
    }
    out
}

fn runs(instance: &InstanceStatus) -> String {
    match (&instance.running_version, &instance.bound_version) {
        (Some(running), Some(bound)) if running != bound => format!("t3 {running}, though bound to {bound}"),
        (Some(running), _) => format!("t3 {running}"),
        (None, Some(bound)) => format!("nothing that answers (bound to t3 {bound})"),
        (None, None) => "nothing that answers".to_owned(),
    }
}

fn coming(instance: &InstanceStatus, now: UnixMs) -> String {
    match &instance.wanted_version {
        None => "nothing is pinned".to_owned(),
        Some(wanted) if instance.bound_version.as_ref() == Some(wanted) => "nothing: this is the wanted version".to_owned(),
        Some(wanted) => {
            let earliest = instance.wait.as_ref().and_then(|wait| wait.earliest_ms).filter(|at| *at > now);
            format!("t3 {wanted}{}", earliest.map_or_else(String::new, |at| format!(", at {} at the earliest", clock(at))))
        }
    }
}

/// What can be done about a bump that waits: by its user, and by operators for them.
fn choices(instance: &InstanceStatus, wait: &WaitStatus, now: UnixMs) -> String {
    let user = &instance.user;
    let mut out = format!(
        "You can      t3pin now {user}: as soon as nothing is in flight, without waiting for quiet (--force: at any price)\n"
    );
    if wait.user_limit_ms > now {
        let latest = clock(wait.user_limit_ms);
        let _ = writeln!(out, "             t3pin defer {user} --for 2h: not before then; until {latest} at the latest");
    }
    out
}

fn rehearsed(rehearsal: &RehearsalReport) -> String {
    let took = lasting(std::time::Duration::from_millis(rehearsal.total_ms).as_secs_f64());
    let verdict = match rehearsal.probe.first_problem() {
        Some(problem) => format!("did not pass ({:?})", problem.step),
        None if !rehearsal.intact => "left a damaged database".to_owned(),
        None if rehearsal.work_lost > 0 => format!("lost {} rows of work", rehearsal.work_lost),
        None => "passed".to_owned(),
    };
    let sessions = match rehearsal.sessions_lost {
        0 => "nobody has to pair again".to_owned(),
        1 => "1 session will have to pair again".to_owned(),
        n => format!("{n} sessions will have to pair again"),
    };
    format!("{verdict} on a copy in {took}; {sessions}")
}

fn last_bump(bump: &BumpSummary, now: UnixMs) -> String {
    let down = bump
        .downtime_ms
        .map_or_else(String::new, |ms| format!(", {} unreachable", lasting(std::time::Duration::from_millis(ms).as_secs_f64())));
    let reason = bump.reason.as_deref().map_or_else(String::new, |reason| format!(": {}", plain(reason)));
    let when = ago(now, bump.started_ms);
    let outcome = plain(&bump.outcome);
    let mut out = format!("Last bump    {} -> {} {when}, {outcome}{down}{reason}\n", bump.from, bump.to);
    if let Some(salvage) = &bump.salvage {
        let _ = writeln!(out, "Salvage      {} (what {} wrote before the rollback)", plain(salvage), bump.to);
    }
    if let Some(snapshot) = &bump.snapshot {
        let _ = writeln!(out, "Snapshot     {} (the data as {} left it)", plain(snapshot), bump.from);
    }
    out
}
