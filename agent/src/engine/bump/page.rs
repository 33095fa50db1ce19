//! The page `docs/phases.md`, made from the code; and laws of the whole table.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use strum::VariantArray;

use super::cue::Cue;
use super::{Bump, Course, NOT_ASKED, course, sample};
use crate::domain::BumpId;
use crate::engine::{Action, Phase, Undo};

/// Set, it has the page written anew.
const WRITE: &str = "T3PIN_WRITE_PAGES";

fn in_phase(phase: Phase) -> Bump {
    Bump { phase, ..sample(BumpId(1), "alice") }
}

fn decided(phase: Phase) -> impl Iterator<Item = (Cue, Course)> {
    Cue::VARIANTS.iter().map(move |cue| (*cue, course(phase, *cue)))
}

/// What an action may answer, other than that it failed.
fn answers(action: &Action) -> &'static [Cue] {
    match action {
        Action::Rehearse => &[Cue::RehearsedWell, Cue::RehearsedBadly, Cue::RehearsalUnclear],
        Action::TakeBaseline => &[Cue::BaselineTaken],
        Action::Seed => &[Cue::Seeded],
        Action::Quiesce { .. } => &[Cue::Quiesced, Cue::FoundBusy],
        Action::Secure => &[Cue::Secured],
        Action::Switch => &[Cue::Switched],
        Action::Start { .. } => &[Cue::Started],
        Action::Verify { .. } => &[Cue::FoundWell, Cue::FoundBad, Cue::FoundUnclear],
        Action::Archive => &[Cue::Archived],
        Action::Stop => &[Cue::Stopped],
        Action::Restore { .. } => &[Cue::Restored],
        Action::Tidy => &[Cue::Tidied],
    }
}

fn does(action: &Action) -> &'static str {
    match action {
        Action::Rehearse => "the new version on a copy of the data, in the sandbox; if it does not simply pass, the old one too",
        Action::TakeBaseline => "probe of the running old version",
        Action::Seed => "copy for the new version, beside the running server",
        Action::Quiesce { force: false } => "freeze, look again, hold the data and stop the unit only if still idle; else thaw",
        Action::Quiesce { force: true } => "hold the data and stop the unit, active or not",
        Action::Secure => "copy brought up to the last write, original into custody",
        Action::Switch => "copy in place, binding to the new version",
        Action::Start { .. } => "binding checked, data let go, unit started",
        Action::Verify { .. } => "pairing from outside, unit watched meanwhile",
        Action::Archive => "snapshot from custody, read back; only then custody's original is removed; retention",
        Action::Stop => "hold the data, stop the unit, whatever it does",
        Action::Restore { .. } => "what lies in place into salvage, original back by rename, binding to the old version",
        Action::Tidy => "data let go, work copies removed",
    }
}

/// `RollingBack(Quiesced { force: false, rest: Soaking })` as people say it.
fn name(phase: Phase) -> String {
    let kebab = |text: String| {
        let words = text.chars().flat_map(|c| if c.is_uppercase() { vec!['-', c.to_ascii_lowercase()] } else { vec![c] });
        words.collect::<String>().trim_start_matches('-').to_owned()
    };
    match phase {
        Phase::RollingBack(Undo::Quiesced { force, rest }) => {
            let force = if force { ", forced" } else { "" };
            format!("rolling back: quiesced (asked for when {}{force})", kebab(format!("{rest:?}")))
        }
        Phase::RollingBack(undo) => format!("rolling back: {}", kebab(format!("{undo:?}"))),
        Phase::Closing(outcome) => format!("closing: {}", kebab(format!("{outcome:?}"))),
        Phase::Closed(outcome) => format!("closed: {}", kebab(format!("{outcome:?}"))),
        plain => kebab(format!("{plain:?}")),
    }
}

fn words(cue: Cue) -> String {
    format!("{cue:?}").chars().fold(String::new(), |mut text, c| {
        if c.is_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.extend(c.to_lowercase());
        text
    })
}

/// Where `cue` leads, in a cell of the table.
fn cell(phase: Phase, cue: Cue) -> String {
    match course(phase, cue) {
        Course::To(next) => name(next),
        Course::Stay(why) => format!("stays: {why}"),
        Course::Ignore(why) => format!("- ({why})"),
    }
}

fn page() -> String {
    let mut page = String::from(
        "# Phases of a bump\n\n\
         Made from `agent/src/engine/bump.rs`, which decides every phase with everything that can happen. Do not edit it; a test \
         compares the two, and\n`T3PIN_WRITE_PAGES=1 cargo test -p t3pin page_of_phases` writes it anew.\n\n\
         A phase is written to the journal, synced, before its action starts. After a restart the agent hands *agent restarted* \
         to every open bump: the last\ncolumn is what recovery does, and what happens, too, when the journal cannot be written.\n\n\
         | phase | action | then | if the action fails | if the agent dies here |\n|---|---|---|---|---|\n",
    );
    for phase in Phase::all() {
        let due = in_phase(phase).due();
        let then: Vec<_> = decided(phase)
            .filter(|(cue, course)| {
                !matches!(course, Course::Ignore(_))
                    && !matches!(cue, Cue::ActionFailed | Cue::FailedTooOften | Cue::AgentRestarted)
            })
            .map(|(cue, course)| match course {
                Course::To(next) => format!("{}: **{}**", words(cue), name(next)),
                _ => format!("{}: {}", words(cue), cell(phase, cue)),
            })
            .collect();
        let failed = match (due.is_some(), course(phase, Cue::FailedTooOften)) {
            (false, _) => "-".to_owned(),
            (true, Course::To(last)) => format!("{}, then {}", cell(phase, Cue::ActionFailed), name(last)),
            (true, _) => cell(phase, Cue::ActionFailed),
        };
        let action = due.as_ref().map_or("rests", does);
        let then = if then.is_empty() { "-".to_owned() } else { then.join("; ") };
        writeln!(page, "| {} | {action} | {then} | {failed} | {} |", name(phase), cell(phase, Cue::AgentRestarted)).unwrap();
    }
    let mut ignored: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut moves, mut stays) = (0, 0);
    for (_, course) in Phase::all().into_iter().flat_map(decided) {
        match course {
            Course::To(_) => moves += 1,
            Course::Stay(_) => stays += 1,
            Course::Ignore(why) => *ignored.entry(why).or_default() += 1,
        }
    }
    let (phases, cues) = (Phase::all().len(), Cue::VARIANTS.len());
    writeln!(
        page,
        "\n{phases} phases and {cues} things that can happen make {} pairs: {moves} lead to another phase, {stays} keep the phase \
         (its action is done again, or it\nrests on), and these are left alone on purpose:\n\n| why | pairs |\n|---|---|",
        phases * cues
    )
    .unwrap();
    for (why, pairs) in ignored {
        writeln!(page, "| {why} | {pairs} |").unwrap();
    }
    page
}

#[test]
fn the_page_of_phases_says_what_the_code_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/phases.md");
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "docs/phases.md is not what the code says; {WRITE}=1 has this test write it");
}

#[test]
fn every_answer_to_what_a_phase_wants_done_is_decided_and_no_other() {
    for phase in Phase::all() {
        let due = in_phase(phase).due();
        let asked = due.as_ref().map(answers).unwrap_or_default();
        for action in all_actions() {
            for cue in answers(&action) {
                let left_alone = course(phase, *cue) == Course::Ignore(NOT_ASKED);
                assert_eq!(left_alone, !asked.contains(cue), "{phase:?} with {cue:?}");
            }
        }
        let failed = course(phase, Cue::ActionFailed);
        assert_eq!(matches!(failed, Course::Ignore(_)), due.is_none(), "{phase:?} when its action fails: {failed:?}");
    }
}

/// Every action that any phase wants.
fn all_actions() -> Vec<Action> {
    Phase::all().into_iter().filter_map(|phase| in_phase(phase).due()).collect()
}

#[test]
fn every_phase_can_be_reached_and_left_and_ends_at_rest_or_over() {
    let mut reached = BTreeSet::from([Phase::Planned]);
    loop {
        let next: BTreeSet<_> = reached.iter().flat_map(|phase| decided(*phase)).filter_map(to).collect();
        if next.is_subset(&reached) {
            break;
        }
        reached.extend(next);
    }
    assert_eq!(reached, Phase::all().into_iter().collect());
    for phase in Phase::all() {
        let over = matches!(phase, Phase::Closed(_));
        assert!(over || decided(phase).filter_map(to).any(|next| next != phase), "{phase:?} is never left");
    }
}

fn to((_, course): (Cue, Course)) -> Option<Phase> {
    match course {
        Course::To(next) => Some(next),
        Course::Stay(_) | Course::Ignore(_) => None,
    }
}

#[test]
fn a_phase_that_may_have_changed_something_is_never_forgotten() {
    // Wherever the unit may be stopped or the data moved, death and failure lead back, on, or to a person; never to the end.
    let changed = [Phase::Quiesced, Phase::Secured, Phase::Switched, Phase::Started, Phase::Verified];
    for phase in Phase::all().into_iter().filter(|phase| changed.contains(phase) || matches!(phase, Phase::RollingBack(_))) {
        for cue in [Cue::AgentRestarted, Cue::ActionFailed, Cue::FailedTooOften] {
            let next = to((cue, course(phase, cue))).unwrap_or(phase);
            assert!(
                matches!(next, Phase::RollingBack(_) | Phase::Started | Phase::Stuck) || next == phase,
                "{phase:?} with {cue:?} leads to {next:?}"
            );
        }
    }
}
