//! The host as a whole, and the table of its instances.

use std::fmt::Write;

use super::super::render::{ago, plain, table, version_or_dash};
use crate::api::types::{InstanceStatus, RolloutStatus, StatusReport};
use crate::domain::{UnixMs, UserName};

/// Agent, pin, rollout, freeze and quarantine. Writing to a `String` cannot fail.
pub fn shown(report: &StatusReport, now: UnixMs) -> String {
    let mut out = String::new();
    let agent = &report.agent;
    let doing = if agent.doing.is_empty() { String::new() } else { format!(" ({})", plain(&agent.doing)) };
    let since = ago(now, agent.since_ms);
    let _ = writeln!(out, "Agent        {}{doing}; t3pin {}, started {since}", plain(&agent.state), plain(&agent.version));
    let pin = &report.pin;
    let version = pin.version.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    let path = plain(&pin.path);
    if pin.valid {
        let _ = writeln!(out, "Pin          {version} ({path})");
    } else {
        let kept = if pin.version.is_some() { "still enforced from the last good pin file" } else { "nothing is enforced" };
        let _ = writeln!(out, "Pin          {version}, {kept}");
        let error = pin.error.as_deref().unwrap_or("the agent does not say what");
        let _ = writeln!(out, "PIN FILE IS WRONG: {}", plain(error));
    }
    if let Some(rollout) = &report.rollout {
        let _ = writeln!(out, "Rollout      {}", rollout_line(rollout));
    }
    if let Some(freeze) = &report.freeze {
        let reason = freeze.reason.as_deref().map_or_else(|| "no reason given".to_owned(), plain);
        let _ = writeln!(out, "Frozen       {}: {reason}; lift with: t3pin thaw", ago(now, freeze.since_ms));
    }
    for notice in &report.journal {
        let (found, done, aside) = (plain(&notice.found), plain(&notice.done), plain(&notice.aside));
        let _ =
            writeln!(out, "JOURNAL      {}: {found}. Done: {done}. When you have looked: rm -r {aside}", ago(now, notice.at_ms));
    }
    for drift in &report.drift {
        let _ = writeln!(out, "DRIFT        {}: {}", plain(&drift.kind), plain(&drift.what));
    }
    for bad in &report.quarantine {
        let _ = writeln!(out, "Quarantined  {}, {}: {}", bad.version, ago(now, bad.since_ms), plain(&bad.reason));
    }
    out
}

/// One line per instance.
pub fn instances(instances: &[InstanceStatus], now: UnixMs) -> String {
    let row = |instance: &InstanceStatus| {
        [
            instance.user.to_string(),
            instance.state.clone(),
            version_or_dash(instance.running_version.as_ref()),
            version_or_dash(instance.wanted_version.as_ref()),
            instance.port.map_or_else(|| "-".to_owned(), |port| port.to_string()),
            why(instance, now),
        ]
    };
    table(["USER", "STATE", "RUNS", "WANTED", "PORT", "WHY"], &instances.iter().map(row).collect::<Vec<_>>())
}

fn rollout_line(rollout: &RolloutStatus) -> String {
    let reason = rollout.reason.as_deref().map_or_else(String::new, |reason| format!(" ({})", plain(reason)));
    let parts = [("done", &rollout.done), ("to come", &rollout.pending), ("deferred", &rollout.deferred)];
    let counted: Vec<String> =
        parts.iter().filter(|(_, users)| !users.is_empty()).map(|(word, users)| format!("{} {word}", names(users))).collect();
    let counted = if counted.is_empty() { String::new() } else { format!("; {}", counted.join(", ")) };
    format!("{} {}{reason}{counted}", rollout.version, plain(&rollout.state))
}

/// Up to three users by name, more by number.
fn names(users: &[UserName]) -> String {
    if users.len() > 3 {
        return users.len().to_string();
    }
    users.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// What explains the state: the phase, and the deferral or else the detail.
fn why(instance: &InstanceStatus, now: UnixMs) -> String {
    let deferral =
        instance.deferral.as_ref().map(|deferral| format!("{} (put off {})", deferral.reason, ago(now, deferral.since_ms)));
    let phase = instance.phase.as_ref().map(|phase| format!("phase {phase}"));
    // The detail of a deferred bump says the same again.
    let detail = instance.detail.clone().filter(|_| deferral.is_none());
    let drift = instance.drift.iter().map(|drift| drift.what.clone()).filter(|what| detail.as_ref() != Some(what));
    let parts: Vec<String> = [phase, deferral, detail.clone()].into_iter().flatten().chain(drift).collect();
    parts.join("; ")
}
