//! `t3pin enforce [--wait]`.

use clap::Args;

use super::answer::Answer;
use super::exit::Exit;
use super::follow;
use super::render::plain_lines;
use crate::api::client::{Client, ClientError};
use crate::api::types::RunReport;

/// Bring every instance to the pinned version now, as far as nobody works
#[derive(Debug, Args)]
pub struct Enforce {
    /// Wait for the end, show progress, and exit with how it ended (leaving early does not stop it)
    #[arg(long)]
    wait: bool,
}

impl Enforce {
    /// Starts a run and, if wanted, stays with it.
    pub async fn run(self, client: &Client) -> Result<Answer, ClientError> {
        let started: RunReport = client.post("/v1/enforce", &serde_json::json!({})).await?;
        if self.wait {
            return follow::to_the_end(client, started).await;
        }
        if started.done {
            return follow::ended(started);
        }
        let text = shown(&started);
        Answer::new(&started, text, Exit::Done)
    }
}

pub(super) fn shown(started: &RunReport) -> String {
    let message = started.message.as_deref().map_or_else(String::new, |message| format!("{}\n", plain_lines(message)));
    format!("Started as run {}. {message}See how it goes: t3pin status, or journalctl -fu t3pin\n", started.id)
}
