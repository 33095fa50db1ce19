//! The candidate's server: started, probed, stopped.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;

use super::output::Output;
use super::room::Room;
use crate::domain::{ProbeStep, StepOutcome, StepRecord};
use crate::worker::protocol::ProbeSpec;
use crate::worker::tasks::handshake::Handshake;
use crate::worker::tasks::trouble::{self, excuse, failed, inconclusive};

/// Between SIGTERM and SIGKILL; t3 needs 50 to 190 ms (T3-CONTRACT section 7).
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// After the candidate has ended, how long its last words are waited for.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// How long the candidate must stay up after the handshake. One that serves for a moment and then dies, again and again, would
/// pass a handshake that is fast enough; here it costs nobody anything to wait and see.
const STEADY: Duration = Duration::from_secs(3);

/// Runs the candidate that `probe` names on `port`, and `handshake` against it. When it has ended, so has everything it
/// started in its process group. Returns its last lines.
pub async fn run(probe: &ProbeSpec, port: u16, handshake: &mut Handshake<'_>) -> Vec<String> {
    let mut command = handshake.surroundings().command(&probe.cli);
    command.args(["serve", "--host", "0.0.0.0", "--port", &port.to_string(), "--base-dir"]).arg(&probe.base_dir);
    command.arg("--no-browser").process_group(0);
    let room = Room::before(&probe.base_dir);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            handshake.abandon(not_started(&error));
            return Vec::new();
        }
    };
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let mut output = Output::of(&mut child);
    let (end, late) = end(&mut child, &room, handshake).await;
    let verdict = match end {
        End::Alone(status) => {
            output.settle(LAST_WORDS).await;
            Some(excuse(ended(status, &output.tail(usize::MAX)), &probe.base_dir))
        }
        End::NoRoom(outcome) => {
            // At once: it is given no time to write on.
            group.map(|group| kill_process_group(group, Signal::KILL));
            child.kill().await.ok();
            output.note("(t3pin: killed, because of the room that it took)".to_owned());
            Some(outcome)
        }
        End::Probed => {
            let outcome = handshake.report.first_problem().is_none().then_some(StepOutcome::Passed);
            if !stop(&mut child, group).await {
                output.note(format!("(t3pin: still running {} s after SIGTERM, killed)", STOP_DEADLINE.as_secs()));
            }
            outcome
        }
    };
    match verdict {
        Some(outcome) if late => steady(handshake, outcome),
        Some(outcome) => handshake.abandon(outcome),
        None => {}
    }
    // What it may have left behind; gone already is fine.
    group.map(|group| kill_process_group(group, Signal::KILL));
    output.settle(LAST_WORDS).await;
    output.tail(usize::MAX)
}

/// How a candidate's time came to its end.
enum End {
    /// It ended by itself.
    Alone(io::Result<ExitStatus>),
    /// It must not take any more room.
    NoRoom(StepOutcome),
    /// The handshake is over, and the candidate runs.
    Probed,
}

/// Waits for the handshake, and when that has passed, whether the candidate stays up. The end, and whether the handshake was over before.
async fn end(child: &mut Child, room: &Room, handshake: &mut Handshake<'_>) -> (End, bool) {
    let mut no_room = std::pin::pin!(room.runs_out());
    let early = tokio::select! {
        biased;
        status = child.wait() => End::Alone(status),
        outcome = &mut no_room => End::NoRoom(outcome),
        () = handshake.run() => End::Probed,
    };
    if !matches!(early, End::Probed) || handshake.report.first_problem().is_some() {
        return (early, false);
    }
    let late = tokio::select! {
        biased;
        status = child.wait() => End::Alone(status),
        outcome = &mut no_room => End::NoRoom(outcome),
        () = tokio::time::sleep(STEADY) => End::Probed,
    };
    (late, true)
}

/// Notes whether the candidate stayed up.
fn steady(handshake: &mut Handshake<'_>, outcome: StepOutcome) {
    let ms = u64::try_from(STEADY.as_millis()).unwrap_or(u64::MAX);
    handshake.report.steps.push(StepRecord { step: ProbeStep::Unit, outcome, ms });
}

/// The line that tells most: the last one that speaks of an error, else the last one.
fn telling(said: &[String]) -> &str {
    let error = said.iter().rev().find(|line| line.contains("rror"));
    error.or(said.last()).map_or("it printed nothing", String::as_str)
}

/// Asks the candidate to end, then makes it. False when it had to be killed.
async fn stop(child: &mut Child, group: Option<Pid>) -> bool {
    group.map(|group| kill_process_group(group, Signal::TERM));
    if tokio::time::timeout(STOP_DEADLINE, child.wait()).await.is_ok() {
        return true;
    }
    group.map(|group| kill_process_group(group, Signal::KILL));
    child.kill().await.ok();
    false
}

fn not_started(error: &io::Error) -> StepOutcome {
    let reason = format!("the candidate could not be started: {error}");
    if trouble::is_environment(error) { inconclusive(reason) } else { failed(reason) }
}

/// The candidate's end before the probe's. Killed for memory, or short of disk, says nothing about the version.
fn ended(status: io::Result<ExitStatus>, said: &[String]) -> StepOutcome {
    use std::os::unix::process::ExitStatusExt;
    let status = match status {
        Ok(status) => status,
        Err(error) => return inconclusive(format!("the candidate could not be watched: {error}")),
    };
    let reason = format!("the candidate ended by itself ({status}): {}", telling(said));
    let killed = status.signal() == Some(Signal::KILL.as_raw());
    if killed || trouble::sign_in(&said.join("\n")).is_some() { inconclusive(reason) } else { failed(reason) }
}
