//! Waiting for a run, with its progress on stderr.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::answer::Answer;
use super::exit::Exit;
use super::render::{plain, plain_lines};
use crate::api::client::{Client, ClientError};
use crate::api::types::{RunOutcome, RunReport};

/// How long the agent may hold one answer back when there is nothing new.
const POLL_MS: u64 = 20_000;

/// After how much silence a terminal shows that time passes, and how often.
const SILENCE: Duration = Duration::from_secs(1);

/// Waits for the end of `started`, telling its progress, and answers with its final report.
pub async fn to_the_end(client: &Client, started: RunReport) -> Result<Answer, ClientError> {
    ended(to_its_report(client, started).await?)
}

/// As [`to_the_end`], for a caller who does something with the report.
pub async fn to_its_report(client: &Client, started: RunReport) -> Result<RunReport, ClientError> {
    let stderr = io::stderr();
    let mut progress = Progress::new(stderr.lock(), stderr.is_terminal());
    follow(client, started, &mut progress).await
}

/// The answer to a run that has ended.
pub fn ended(report: RunReport) -> Result<Answer, ClientError> {
    let exit = report.outcome.map_or(Exit::Internal, Exit::from);
    let text = match &report.message {
        Some(message) => plain_lines(message),
        None => report.outcome.map_or("Ended, but the agent does not say how.", in_words).to_owned(),
    };
    Answer::new(&report, text, exit)
}

/// How it ended, when the agent says no more than that.
fn in_words(outcome: RunOutcome) -> &'static str {
    match outcome {
        RunOutcome::Done => "Done: everything is as wanted.",
        RunOutcome::Deferred => "Put off; it will be done by itself.",
        RunOutcome::RolledBack => "Something failed and was undone.",
        RunOutcome::Refused => "Nothing was done, because it must not be.",
        RunOutcome::Stuck => "Stuck: it could neither be finished nor undone. Nothing was deleted; a person has to look.",
    }
}

async fn follow(client: &Client, started: RunReport, progress: &mut Progress<impl Write>) -> Result<RunReport, ClientError> {
    let mut report = started;
    loop {
        progress.tell(&report.progress);
        if report.done {
            return Ok(report);
        }
        let (id, seen) = (report.id, report.progress.len());
        let path = format!("/v1/runs/{id}?wait_ms={POLL_MS}&seen={seen}");
        let asking = client.get::<RunReport>(&path);
        tokio::pin!(asking);
        let answer = loop {
            tokio::select! {
                answer = &mut asking => break answer,
                () = tokio::time::sleep(SILENCE) => progress.pass_time(),
            }
        };
        progress.wipe();
        report = match answer {
            // A shorter story under the same number is another run: numbers start over with the agent.
            Ok(next) if next.progress.len() >= seen => next,
            Ok(_) => return Err(lost(id, "the agent was restarted")),
            Err(ClientError::Refused(refusal)) if refusal.kind == "not-found" => return Err(lost(id, "the agent was restarted")),
            Err(ClientError::Unreachable(why)) => return Err(lost(id, &why)),
            Err(error) => return Err(error),
        };
    }
}

fn lost(id: u64, why: &str) -> ClientError {
    ClientError::Unreachable(format!(
        "lost sight of run {id}: {why}. What was under way is finished or undone by the agent itself; see t3pin status"
    ))
}

/// Tells each line of a run once, and on a terminal that time passes.
struct Progress<W> {
    out: W,
    terminal: bool,
    told: usize,
    since: Instant,
    clock_shown: bool,
}

impl<W: Write> Progress<W> {
    fn new(out: W, terminal: bool) -> Self {
        Self { out, terminal, told: 0, since: Instant::now(), clock_shown: false }
    }

    /// Tells what is new in `lines`. That nobody listens on stderr is no reason to stop.
    fn tell(&mut self, lines: &[String]) {
        for line in lines.iter().skip(self.told) {
            let _ = writeln!(self.out, "{}", plain(line));
        }
        self.told = self.told.max(lines.len());
        let _ = self.out.flush();
    }

    fn pass_time(&mut self) {
        if self.terminal {
            let _ = write!(self.out, "\r  {} s", self.since.elapsed().as_secs());
            let _ = self.out.flush();
            self.clock_shown = true;
        }
    }

    /// Takes the clock off the terminal again, with blanks, so that no terminal needs to know escape sequences.
    fn wipe(&mut self) {
        if std::mem::take(&mut self.clock_shown) {
            let _ = write!(self.out, "\r{:16}\r", "");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_progress_is_told_once_and_plainly() {
        let mut out = Vec::new();
        let mut progress = Progress::new(&mut out, false);
        progress.tell(&["one".to_owned()]);
        progress.pass_time();
        progress.wipe();
        progress.tell(&["one".to_owned(), "two\x1b[2J".to_owned()]);
        assert_eq!(String::from_utf8(out).unwrap(), "one\ntwo [2J\n");
    }

    #[test]
    fn a_terminal_sees_time_pass_and_nothing_is_left_of_it() {
        let mut out = Vec::new();
        let mut progress = Progress::new(&mut out, true);
        progress.pass_time();
        progress.wipe();
        progress.tell(&["done".to_owned()]);
        assert_eq!(String::from_utf8(out).unwrap(), format!("\r  0 s\r{:16}\rdone\n", ""));
    }
}
