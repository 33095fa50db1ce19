//! Places where the agent can be told to die, for tests that kill it at every boundary on a real machine.
//!
//! Only in a program built with the feature `kill-points`, which no package that is shipped has; elsewhere [`reach`] is
//! nothing at all. `/etc/t3pin/kill-points` orders deaths, one a line, each happening once: `USER POINT kill` ends the agent with
//! SIGKILL, `USER POINT hang` stands still there for good, for the whole machine to be switched off, `USER POINT pause` stops the
//! process until somebody sends it SIGCONT, for something else to be changed meanwhile (`-` for USER where a point belongs to nobody). A name that is not known is an error at the start, so that no test passes by a misspelling. The names
//! of all points are written to `/run/t3pin/kill-points` at the start, for a test to see that it has tried them all.

use std::fmt;

#[cfg(not(feature = "kill-points"))]
use crate::domain::UserName;
use crate::engine::Phase;

/// A place to die at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The phase is in the journal, nothing of it was begun.
    Recorded(Phase),
    /// What the phase wanted was done, and the journal does not know.
    Done(Phase),
    /// In the middle of something.
    Amid(&'static str),
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recorded(phase) => write!(f, "recorded:{}", slug(*phase)),
            Self::Done(phase) => write!(f, "done:{}", slug(*phase)),
            Self::Amid(what) => write!(f, "amid:{what}"),
        }
    }
}

/// `RollingBack(Quiesced { force: false, rest: Done })` as one word: `rolling-back-quiesced-force-false-rest-done`.
fn slug(phase: Phase) -> String {
    let spaced = format!("{phase:?}").chars().fold(String::new(), |mut text, c| {
        if c.is_uppercase() {
            text.push(' ');
        }
        text.push(if c.is_alphanumeric() { c.to_ascii_lowercase() } else { ' ' });
        text
    });
    spaced.split_whitespace().collect::<Vec<_>>().join("-")
}

/// Dies here if that was ordered.
#[cfg(not(feature = "kill-points"))]
#[inline(always)]
pub fn reach(_: Option<&UserName>, _: Point) {}

#[cfg(feature = "kill-points")]
pub use armed::{arm, reach};

#[cfg(feature = "kill-points")]
mod armed {
    use std::fs;
    use std::io;
    use std::path::Path;

    use super::Point;
    use crate::domain::UserName;
    use crate::engine::Phase;

    const ORDERS: &str = "/etc/t3pin/kill-points";
    const KNOWN: &str = "/run/t3pin/kill-points";

    /// What lies between the boundaries of the phases.
    const AMID: [&str; 16] = [
        "switched",
        "restored",
        "unarchived",
        "archived",
        "install-staged",
        "install-fetched",
        "install-built",
        "install-sealed",
        "install-published",
        "retired",
        "forgotten",
        "swept",
        "agent-up",
        "recovery-begun",
        "recovery-left-over",
        "recovery-done",
    ];

    /// Reads the orders, and refuses those that nobody would ever carry out. Called at every start.
    pub fn arm() -> io::Result<()> {
        let known = all();
        fs::write(KNOWN, known.join("\n") + "\n")?;
        for (number, line) in orders()?.iter().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let good = matches!(words[..], [_, point, "kill" | "hang" | "pause"] if known.iter().any(|name| name == point));
            if !good {
                let why = format!(
                    "{ORDERS}, line {}: \"{line}\" is no order to die: USER POINT kill|hang|pause, and {KNOWN} has the points",
                    number + 1
                );
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
        }
        Ok(())
    }

    /// Dies here if that was ordered.
    pub fn reach(user: Option<&UserName>, point: Point) {
        let here = format!("{} {point} ", user.map_or("-", UserName::as_str));
        let Ok(lines) = orders() else { return };
        let Some(at) = lines.iter().position(|line| format!("{line} ").starts_with(&here)) else { return };
        let signal = if lines[at].ends_with("pause") { rustix::process::Signal::STOP } else { rustix::process::Signal::KILL };
        let hang = lines[at].ends_with("hang");
        let rest: String = lines.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, line)| format!("{line}\n")).collect();
        // Carried out once: taken from the list before.
        let struck = fs::write(format!("{ORDERS}.new"), rest)
            .and_then(|()| fs::File::open(format!("{ORDERS}.new"))?.sync_all())
            .and_then(|()| fs::rename(format!("{ORDERS}.new"), ORDERS));
        if let Err(error) = struck {
            tracing::error!("{ORDERS} cannot be written: {error}; not dying at {point}");
            return;
        }
        if hang {
            loop {
                std::thread::park();
            }
        }
        let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
    }

    fn orders() -> io::Result<Vec<String>> {
        match fs::read_to_string(Path::new(ORDERS)) {
            Ok(text) => Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
            Err(error) => Err(error),
        }
    }

    fn all() -> Vec<String> {
        let phases = Phase::all();
        let recorded = phases.iter().map(|phase| Point::Recorded(*phase).to_string());
        // Where nothing is due, nothing gets done.
        let rests =
            |phase: &Phase| matches!(phase, Phase::Planned | Phase::Ready | Phase::Soaking | Phase::Stuck | Phase::Closed(_));
        let done = phases.iter().filter(|phase| !rests(phase)).map(|phase| Point::Done(*phase).to_string());
        recorded.chain(done).chain(AMID.map(|what| Point::Amid(what).to_string())).collect()
    }
}
