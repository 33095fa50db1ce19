//! `t3pin explain USER|BUMP`.

use std::fmt::Write as _;

use clap::Args;

use super::answer::Answer;
use super::exit::Exit;
use super::render::{clock_seconds, plain};
use crate::api::client::{Client, ClientError};
use crate::api::explanation::Explanation;
use crate::domain::UserName;

/// Tell the story of a bump in plain words: what was planned, what happened, how things are, what you can do
#[derive(Debug, Args)]
pub struct Explain {
    /// A bump (b000042, see t3pin history), or a user: their open or last one
    #[arg(value_name = "USER|BUMP")]
    what: UserName,
}

impl Explain {
    /// Asks and shows.
    pub async fn run(self, client: &Client) -> Result<Answer, ClientError> {
        // User names need no escaping in a path (see UserName).
        let told: Explanation = client.get(&format!("/v1/explain/{}", self.what)).await?;
        Answer::new(&told, shown(&told), Exit::Done)
    }
}

/// Writing to a `String` cannot fail.
pub(super) fn shown(told: &Explanation) -> String {
    let mut out = match &told.bump {
        Some(bump) => {
            format!("{} of {}: {} -> {}, {}\n", plain(&bump.id), told.user, bump.from, bump.to, plain(&bump.outcome))
        }
        None => format!("{} had no bump so far.\n", told.user),
    };
    part(&mut out, "What was planned", told.planned.as_deref());
    if !told.steps.is_empty() {
        let _ = write!(out, "\nWhat happened\n");
        for step in &told.steps {
            let again = match step.times {
                1 => String::new(),
                n => format!(" ({n} times, last at {})", clock_seconds(step.last_ms)),
            };
            let _ = writeln!(out, "  {}  {}{again}", clock_seconds(step.at_ms), plain(&step.text));
        }
    }
    part(&mut out, "What was wrong", told.wrong.as_deref());
    if !told.log.is_empty() {
        let to = told.bump.as_ref().map_or_else(|| "the new version".to_owned(), |bump| bump.to.to_string());
        let _ = write!(out, "\nWhat {to} said last\n");
        for line in &told.log {
            let _ = writeln!(out, "  | {}", plain(line));
        }
    }
    part(&mut out, "What was done", told.done.as_deref());
    if !told.pair_again.is_empty() {
        let _ = write!(out, "\nWho has to pair again\n");
        for device in &told.pair_again {
            let _ = writeln!(out, "  - {}", plain(device));
        }
    }
    part(&mut out, "How it is now", Some(&told.now));
    if !told.can.is_empty() {
        let _ = write!(out, "\nWhat you can do\n");
        for way in &told.can {
            let _ = writeln!(out, "  - {}", plain(way));
        }
    }
    part(&mut out, "Evidence (root only)", told.evidence.as_deref());
    out
}

fn part(out: &mut String, head: &str, text: Option<&str>) {
    if let Some(text) = text {
        let _ = write!(out, "\n{head}\n  {}\n", plain(text));
    }
}
