//! What is in a bundle. Nothing gets into a file but through the redactor, and no file is longer than [`FILE_BYTES`].

use serde_json::{Value, json};

use crate::domain::UnixMs;
use crate::engine::Bump;
use crate::journal::Told;
use crate::worker::redact;

/// The most that is kept in one file, in bytes.
pub const FILE_BYTES: usize = 256 * 1024;
/// The file with what the user's server said while the new version ran.
pub const UNIT_LOG: &str = "unit.log";

/// Everything that a bundle is made of, as it was gathered: nothing of it is blanked yet.
#[derive(Debug)]
pub struct Material {
    /// The bump.
    pub bump: Bump,
    /// What the journal has of it.
    pub story: Vec<Told>,
    /// What the unit said while the new version ran, oldest first.
    pub log: Vec<String>,
    /// How the host was.
    pub host: Value,
    /// When it was gathered.
    pub written_ms: UnixMs,
}

/// The files of a bundle: names and contents.
pub fn files(material: &Material) -> Vec<(&'static str, String)> {
    let bump = &material.bump;
    let mut files = vec![
        ("facts.json", pretty(facts(material))),
        ("journal.jsonl", newest(material.story.iter().map(line).collect())),
        (
            "probes.json",
            pretty(json!({
                "old_version_before": bump.baseline,
                "rehearsal": bump.rehearsal.as_ref().map(|report| &report.probe),
                "new_version_live": bump.probe,
            })),
        ),
        (UNIT_LOG, newest(material.log.iter().map(|line| redact(line)).collect())),
    ];
    if let Some(rehearsal) = &bump.rehearsal {
        files.push(("rehearsal.log", newest(rehearsal.output_tail.iter().map(|line| redact(line)).collect())));
    }
    files
}

/// What one reads first: who, which versions, what went wrong, when, on what host.
fn facts(material: &Material) -> Value {
    let bump = &material.bump;
    let at = |ms: Option<UnixMs>| ms.map(time);
    let rehearsal = bump.rehearsal.as_ref();
    json!({
        "bump": bump.id,
        "user": bump.instance.user(),
        "unit": bump.instance.unit,
        "phase": bump.phase,
        "why_planned": bump.reason,
        "fault": bump.fault,
        "remark": bump.remark,
        "versions": { "from": bump.from, "to": bump.to, "t3pin": env!("CARGO_PKG_VERSION") },
        "migration_level": {
            "before": rehearsal.and_then(|report| report.level_before),
            "after_rehearsal": rehearsal.and_then(|report| report.level_after),
            "snapshot": bump.snapshot.as_ref().and_then(|snapshot| snapshot.migration_level),
        },
        "times": {
            "planned": time(bump.planned_ms),
            "begun": at(bump.begun_ms),
            "stopped": at(bump.stopped_ms),
            "answered_again": at(bump.answered_ms),
            "ended": at(bump.ended_ms),
            "downtime_ms": bump.downtime_ms(),
            "soaked_ms": bump.soaked_ms,
            "rehearsal_ms": rehearsal.map(|report| report.total_ms),
            "rehearsal_start_ms": rehearsal.map(|report| report.start_ms),
            "gathered": time(material.written_ms),
        },
        "salvage": bump.salvage,
        "snapshot": bump.snapshot.as_ref().map(|snapshot| &snapshot.path),
        "host": material.host,
    })
}

/// One entry of the journal on one line.
fn line(told: &Told) -> String {
    blanked(json!({ "at": time(told.at_ms), "phase": told.phase, "event": told.event })).to_string()
}

fn time(ms: UnixMs) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |at| at.to_string())
}

/// `value` with every text in it redacted.
fn blanked(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(redact(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(blanked).collect()),
        Value::Object(entries) => Value::Object(entries.into_iter().map(|(key, value)| (redact(&key), blanked(value))).collect()),
        other => other,
    }
}

fn pretty(value: Value) -> String {
    let mut text = format!("{:#}\n", blanked(value));
    text.truncate(text.floor_char_boundary(FILE_BYTES));
    text
}

/// The last of `lines` that fit, and how many were left out.
fn newest(lines: Vec<String>) -> String {
    let mut room = FILE_BYTES - 80;
    let kept = lines.iter().rev().take_while(|line| {
        let fits = line.len() < room;
        room = room.saturating_sub(line.len() + 1);
        fits
    });
    let left_out = lines.len() - kept.count();
    let mut text = if left_out == 0 { String::new() } else { format!("({left_out} older lines are left out)\n") };
    for line in &lines[left_out..] {
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::domain::{BumpId, ProbeReport, ProbeStep, RehearsalReport, StepOutcome, StepRecord};
    use crate::engine::{Blame, Event, Fault, Outcome, Phase};

    const CREDENTIAL: &str = "ABCD2345EFGH";
    const COOKIE: &str = "eyJzdWIiOiJhbGljZSIsImV4cCI6MX0.c2lnbmF0dXJlLXNpZ25hdHVyZS1zaWc";

    fn material(said: &str) -> Material {
        let mut bump = crate::engine::bump::sample(BumpId(7), "alice");
        let outcome = StepOutcome::Failed { reason: said.to_owned(), contract_moved: false };
        let steps = vec![StepRecord { step: ProbeStep::Exchange, outcome, ms: 3 }];
        let probe = ProbeReport { steps, endpoint: Some(said.to_owned()), ..ProbeReport::default() };
        let fault = Fault { reason: said.to_owned(), blame: Blame::Version };
        bump.phase = Phase::Closed(Outcome::RolledBack);
        bump.rehearsal = Some(RehearsalReport {
            probe: probe.clone(),
            level_before: Some(30),
            level_after: Some(32),
            start_ms: 1,
            total_ms: 2,
            sessions_lost: 0,
            lost: crate::domain::Paired::default(),
            work_lost: 0,
            intact: true,
            output_tail: vec![said.to_owned()],
        });
        (bump.baseline, bump.probe) = (Some(probe.clone()), Some(probe.clone()));
        (bump.fault, bump.remark) = (Some(fault.clone()), Some(said.to_owned()));
        let told = |event: &Event| Told { at_ms: 5, phase: "started".to_owned(), event: serde_json::to_value(event).unwrap() };
        let story = vec![
            told(&Event::ActionFailed(fault)),
            told(&Event::Probed { report: probe, answered_ms: None, marks: None, lost: None }),
        ];
        Material { bump, story, log: vec![said.to_owned()], host: json!({ "kernel": said }), written_ms: 6 }
    }

    #[test]
    fn no_file_has_a_credential_a_cookie_or_a_token() {
        for said in [
            format!("Token: {CREDENTIAL}"),
            format!("Pairing URL: http://10.0.0.1:3773/pair#token={CREDENTIAL}"),
            format!("{{\"credential\":\"{CREDENTIAL}\",\"id\":1}}"),
            format!("set-cookie: t3_session={COOKIE}; Path=/; HttpOnly"),
            format!("Authorization: Bearer {COOKIE}"),
            format!("answered 500 to {COOKIE}"),
        ] {
            let files = files(&material(&said));
            assert_eq!(files.len(), 5);
            for (name, content) in files {
                assert!(!content.contains(CREDENTIAL) && !content.contains(COOKIE), "{name}: {content}");
                assert!(content.contains("***"), "{name} says nothing of it: {content}");
            }
        }
    }

    #[test]
    fn files_are_bounded_and_keep_what_was_said_last() {
        let mut material = material("fine");
        material.log = (0..100_000).map(|n| format!("line {n} of very many")).collect();
        let log = files(&material).into_iter().find(|(name, _)| *name == UNIT_LOG).unwrap().1;
        assert!(log.len() <= FILE_BYTES, "{}", log.len());
        assert!(log.ends_with("line 99999 of very many\n") && log.starts_with('('), "{}", &log[..80]);
        material.log = vec!["x".repeat(FILE_BYTES * 2)];
        assert!(files(&material).iter().all(|(_, content)| content.len() <= FILE_BYTES));
    }

    #[test]
    fn levels_versions_and_what_went_wrong_are_told() {
        let files = files(&material("answered 500"));
        let facts: Value = serde_json::from_str(&files[0].1).unwrap();
        assert_eq!(facts["versions"]["to"], "0.0.25");
        assert_eq!((&facts["migration_level"]["before"], &facts["migration_level"]["after_rehearsal"]), (&json!(30), &json!(32)));
        assert_eq!(facts["fault"]["reason"], "answered 500");
        assert_eq!(files[1].1.lines().count(), 2);
    }
}
