//! `t3pin freeze`.

use clap::Args;

use super::answer::Answer;
use super::exit::Exit;
use crate::api::client::{Client, ClientError};
use crate::api::types::{Acknowledged, FreezeRequest};

/// Stop version changes until `thaw`; servers keep running what they run
#[derive(Debug, Args)]
pub struct Freeze {
    /// Why, for whoever wonders
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Freeze {
    /// Asks for it.
    pub async fn run(self, client: &Client) -> Result<Answer, ClientError> {
        let done: Acknowledged = client.post("/v1/freeze", &FreezeRequest { reason: self.reason }).await?;
        Answer::new(&done, "Frozen: no new bump starts until t3pin thaw.\n".to_owned(), Exit::Done)
    }
}
