//! `GET /metrics`: the status report as Prometheus gauges (text exposition format 0.0.4).
//!
//! Everything here is read off the report that the same caller would get from `/v1/status`: nothing is counted, estimated
//! or remembered, so a gauge is missing rather than wrong.

use std::fmt::Write;

use super::types::{BumpSummary, DriftStatus, StatusReport};
use crate::domain::UnixMs;

/// `report` in the exposition format; ages are taken at `now_ms`.
pub fn exposition(report: &StatusReport, now_ms: UnixMs) -> String {
    let mut out = Exposition(String::with_capacity(4096));
    agent(&mut out, report);
    rollout(&mut out, report);
    instances(&mut out, report, now_ms);
    out.0
}

fn agent(out: &mut Exposition, report: &StatusReport) {
    out.gauge("t3pin_agent_info", "Always 1; the version of t3pin.");
    out.sample("t3pin_agent_info", &[("version", &report.agent.version)], 1.0);
    out.gauge("t3pin_agent_start_time_seconds", "When the agent started, in seconds since the Unix epoch.");
    out.sample("t3pin_agent_start_time_seconds", &[], seconds(report.agent.since_ms));
    out.gauge("t3pin_agent_state", "1 for the state that the agent is in.");
    out.sample("t3pin_agent_state", &[("state", &report.agent.state)], 1.0);
    out.gauge("t3pin_pin_valid", "1 when the pin file as it is now is good, else 0.");
    out.sample("t3pin_pin_valid", &[], flag(report.pin.valid));
    if let Some(version) = &report.pin.version {
        out.gauge("t3pin_pin_info", "Always 1; the version that is enforced.");
        out.sample("t3pin_pin_info", &[("version", &version.to_string())], 1.0);
    }
    out.gauge("t3pin_frozen", "1 while the operator has frozen version changes, else 0.");
    out.sample("t3pin_frozen", &[], flag(report.freeze.is_some()));
    out.gauge("t3pin_journal_damages", "Times the agent's journal was not as it was left, until what was set aside is removed.");
    out.sample("t3pin_journal_damages", &[], count(report.journal.len()));
    out.gauge("t3pin_quarantined_versions", "Versions that failed here and are not tried again unattended.");
    out.sample("t3pin_quarantined_versions", &[], count(report.quarantine.len()));
}

fn rollout(out: &mut Exposition, report: &StatusReport) {
    let Some(rollout) = &report.rollout else { return };
    let version = rollout.version.to_string();
    out.gauge("t3pin_rollout_state", "1 for the state of the rollout; absent without one.");
    out.sample("t3pin_rollout_state", &[("version", &version), ("state", &rollout.state)], 1.0);
    out.gauge("t3pin_rollout_users", "Users of the rollout by how far they are.");
    for (progress, users) in [("done", &rollout.done), ("pending", &rollout.pending), ("deferred", &rollout.deferred)] {
        out.sample("t3pin_rollout_users", &[("version", &version), ("progress", progress)], count(users.len()));
    }
}

fn instances(out: &mut Exposition, report: &StatusReport, now_ms: UnixMs) {
    out.gauge("t3pin_instance_state", "1 for the state that the user's instance is in.");
    for instance in &report.instances {
        out.sample("t3pin_instance_state", &[("user", instance.user.as_str()), ("state", &instance.state)], 1.0);
    }
    out.gauge("t3pin_drift", "1 for everything that is not as t3pin left it or does not work; the host's own has an empty user.");
    for (user, drift) in drifts(report) {
        out.sample("t3pin_drift", &[("user", user), ("kind", &drift.kind)], 1.0);
    }
    out.gauge("t3pin_instance_as_wanted", "1 when the version that answers is the wanted one, else 0.");
    for instance in report.instances.iter().filter(|instance| instance.wanted_version.is_some()) {
        let as_wanted = instance.running_version == instance.wanted_version;
        out.sample("t3pin_instance_as_wanted", &[("user", instance.user.as_str())], flag(as_wanted));
    }
    out.gauge("t3pin_deferral_age_seconds", "For how long the user's bump has been put off; absent when it is not.");
    for instance in &report.instances {
        if let Some(deferral) = &instance.deferral {
            let age = seconds(now_ms.saturating_sub(deferral.since_ms).max(0));
            out.sample("t3pin_deferral_age_seconds", &[("user", instance.user.as_str())], age);
        }
    }
    out.gauge(
        "t3pin_devices_to_pair_again",
        "The user's devices that lost their pairing to changes of version and have not paired again, as far as is known.",
    );
    for instance in &report.instances {
        let left = usize::try_from(instance.to_pair_again).unwrap_or(usize::MAX);
        out.sample("t3pin_devices_to_pair_again", &[("user", instance.user.as_str())], count(left));
    }
    out.gauge(
        "t3pin_deferral_escalated",
        "1 when the user's bump has been put off for longer than drain.escalate_after, else 0.",
    );
    for instance in &report.instances {
        if let Some(wait) = &instance.wait {
            let escalated = flag(wait.escalated_ms.is_some());
            out.sample("t3pin_deferral_escalated", &[("user", instance.user.as_str())], escalated);
        }
    }
    out.gauge("t3pin_last_bump_downtime_seconds", "How long nobody answered during the user's last bump; absent when unknown.");
    of_last_bump(out, report, "t3pin_last_bump_downtime_seconds", |bump| bump.downtime_ms);
    out.gauge(
        "t3pin_last_bump_freeze_seconds",
        "How long the user's server was frozen in their last bump; absent when it was not.",
    );
    of_last_bump(out, report, "t3pin_last_bump_freeze_seconds", |bump| bump.still_ms);
}

/// Each kind once per user, as a series may not be told twice.
fn drifts(report: &StatusReport) -> Vec<(&str, &DriftStatus)> {
    let of_host = report.drift.iter().map(|drift| ("", drift));
    let of_users = report.instances.iter().flat_map(|one| one.drift.iter().map(|drift| (one.user.as_str(), drift)));
    let mut seen = std::collections::BTreeSet::new();
    of_host.chain(of_users).filter(|(user, drift)| seen.insert((*user, drift.kind.as_str()))).collect()
}

/// A time in ms of each user's last bump, where it has one.
fn of_last_bump(out: &mut Exposition, report: &StatusReport, name: &str, time: impl Fn(&BumpSummary) -> Option<u64>) {
    for instance in &report.instances {
        if let Some((bump, ms)) = instance.last_bump.as_ref().and_then(|bump| Some((bump, time(bump)?))) {
            let labels = [("user", instance.user.as_str()), ("outcome", bump.outcome.as_str())];
            out.sample(name, &labels, seconds(i64::try_from(ms).unwrap_or(i64::MAX)));
        }
    }
}

/// Text under construction. Writing to a `String` cannot fail.
struct Exposition(String);

impl Exposition {
    fn gauge(&mut self, name: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        let braces = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{braces} {value}");
    }
}

/// As the exposition format wants label values.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn flag(yes: bool) -> f64 {
    if yes { 1.0 } else { 0.0 }
}

fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::INFINITY, f64::from)
}

/// Milliseconds as seconds. Times of this era are far below 2^53 ms, where every one is exact.
#[allow(clippy::cast_precision_loss)]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::super::canned;
    use super::*;

    #[test]
    fn gauges_say_what_the_status_report_says() {
        let report = canned::status();
        let text = exposition(&report, canned::NOW_MS);
        for line in [
            "t3pin_pin_valid 1",
            "t3pin_frozen 0",
            "t3pin_quarantined_versions 1",
            "t3pin_instance_state{user=\"alice\",state=\"settled\"} 1",
            "t3pin_instance_state{user=\"bob\",state=\"deferred\"} 1",
            "t3pin_instance_as_wanted{user=\"bob\"} 0",
            "t3pin_deferral_age_seconds{user=\"bob\"} 180",
            "t3pin_devices_to_pair_again{user=\"alice\"} 2",
            "t3pin_deferral_escalated{user=\"bob\"} 1",
            "t3pin_last_bump_downtime_seconds{user=\"alice\",outcome=\"done\"} 3.5",
            "t3pin_last_bump_freeze_seconds{user=\"alice\",outcome=\"done\"} 0.031",
            "t3pin_rollout_users{version=\"0.0.25\",progress=\"deferred\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn every_sample_belongs_to_the_gauge_declared_before_it() {
        let mut current = String::new();
        for line in exposition(&canned::status(), canned::NOW_MS).lines() {
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                current = declared.strip_suffix(" gauge").unwrap().to_owned();
            } else if !line.starts_with('#') {
                assert_eq!(line.split(['{', ' ']).next().unwrap(), current);
            }
        }
    }

    #[test]
    fn label_values_cannot_break_out_of_their_quotes() {
        let mut report = canned::status();
        report.agent.state = "a\"} 1\nfake 1\\".to_owned();
        let text = exposition(&report, canned::NOW_MS);
        assert!(text.contains(r#"t3pin_agent_state{state="a\"} 1\nfake 1\\"} 1"#), "{text}");
    }
}
