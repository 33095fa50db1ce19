//! Arguments, one file per verb, rendering for people and `--json`.
//!
//! A verb asks the agent and makes an [`Answer`] of what it heard; only [`main`] prints. Stdout is for that answer (for people,
//! or pure JSON with `--json`), stderr for progress and complaints. Exit codes are a contract: [`exit`].

mod answer;
mod defer;
mod doctor;
mod enforce;
mod enroll;
mod exit;
mod explain;
mod follow;
mod freeze;
mod generate;
mod history;
mod instances;
mod mint;
mod now;
mod own;
mod plan;
mod reissue;
mod render;
mod rollback;
mod snapshots;
mod status;
mod thaw;
mod unenroll;
mod versions;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::answer::Answer;
use self::exit::EXIT_CODES;
use crate::api::client::{Client, ClientError, DEFAULT_SOCKET};
use crate::api::types::ApiError;

/// Holds this host's T3 Code servers at the version in /etc/t3pin/pin.toml.
///
/// Every bump is rehearsed on a copy of the user's data, done when the user is idle, verified through the real pairing
/// handshake, and undone whole (binary and data) when it is not right.
#[derive(Debug, Parser)]
#[command(name = "t3pin", version, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Cli {
    /// Print JSON on stdout and nothing else (errors too)
    #[arg(long, global = true)]
    json: bool,

    /// The agent's socket
    #[arg(long, global = true, value_name = "PATH", env = "T3PIN_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    #[command(flatten)]
    Ask(Question),
    /// Run the agent (what t3pin.service starts)
    Agent,
    #[command(name = "t3")]
    OwnT3(own::OwnT3),
    /// Finish or undo what was under way when the agent died, without the agent
    Recover,
    /// Let servers go on that stand still for an agent that has ended (what t3pin.service runs at its end)
    #[command(hide = true)]
    ReleaseFrozen,
    #[command(hide = true)]
    Generate(generate::Generate),
}

/// The verbs that the agent answers.
#[derive(Debug, Subcommand)]
enum Question {
    Status(status::Status),
    Plan(plan::Plan),
    Enforce(enforce::Enforce),
    Rollback(rollback::Rollback),
    Now(now::Now),
    Defer(defer::Defer),
    Mint(mint::Mint),
    Reissue(reissue::Reissue),
    History(history::History),
    Explain(explain::Explain),
    Instances(instances::Instances),
    Versions(versions::Versions),
    Snapshots(snapshots::Snapshots),
    Enroll(enroll::Enroll),
    Unenroll(unenroll::Unenroll),
    Freeze(freeze::Freeze),
    Thaw(thaw::Thaw),
    Doctor(doctor::Doctor),
}

/// Runs the command line. Usage errors end the process with exit code 2.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.verb {
        Verb::Agent => crate::agent::main(),
        Verb::OwnT3(own) => own.run(),
        Verb::Recover => crate::agent::recover(),
        Verb::ReleaseFrozen => crate::agent::release_frozen(),
        Verb::Generate(generate) => answer::print(generate.run(), cli.json),
        Verb::Ask(question) => answer::print(converse(question, Client::new(cli.socket)), cli.json),
    }
}

/// Puts `question` to the agent. One thread is enough for one conversation, and quick to start.
fn converse(question: Question, client: Client) -> Result<Answer, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ApiError { kind: "internal".to_owned(), error: format!("cannot start: {error}") })?;
    runtime.block_on(async {
        match question {
            Question::Status(status) => status.run(&client).await,
            Question::Plan(plan) => plan.run(&client).await,
            Question::Enforce(enforce) => enforce.run(&client).await,
            Question::Rollback(rollback) => rollback.run(&client).await,
            Question::Now(now) => now.run(&client).await,
            Question::Defer(defer) => defer.run(&client).await,
            Question::Mint(mint) => mint.run(&client).await,
            Question::Reissue(reissue) => reissue.run(&client).await,
            Question::History(history) => history.run(&client).await,
            Question::Explain(explain) => explain.run(&client).await,
            Question::Instances(instances) => instances.run(&client).await,
            Question::Versions(versions) => versions.run(&client).await,
            Question::Snapshots(snapshots) => snapshots.run(&client).await,
            Question::Enroll(enroll) => enroll.run(&client).await,
            Question::Unenroll(unenroll) => unenroll.run(&client).await,
            Question::Freeze(freeze) => freeze.run(&client).await,
            Question::Thaw(thaw) => thaw.run(&client).await,
            Question::Doctor(doctor) => doctor.run(&client).await,
        }
    })
}

#[cfg(test)]
mod tests;
