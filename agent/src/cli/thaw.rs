//! `t3pin thaw`.

use clap::Args;

use super::answer::Answer;
use super::exit::Exit;
use crate::api::client::{Client, ClientError};
use crate::api::types::Acknowledged;

/// Lift the freeze
#[derive(Debug, Args)]
pub struct Thaw {}

impl Thaw {
    /// Asks for it.
    pub async fn run(self, client: &Client) -> Result<Answer, ClientError> {
        let done: Acknowledged = client.post("/v1/thaw", &serde_json::json!({})).await?;
        Answer::new(&done, "Thawed: bumps go on.\n".to_owned(), Exit::Done)
    }
}
