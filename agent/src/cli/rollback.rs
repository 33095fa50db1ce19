//! `t3pin rollback USER|--all [--force]`.

use clap::{ArgGroup, Args};

use super::answer::Answer;
use super::follow;
use crate::api::client::{Client, ClientError};
use crate::api::types::{RollbackRequest, RunReport};
use crate::domain::UserName;

/// Undo the last bump, binary and data together, and wait for the end
///
/// What the newer version wrote since is set aside (salvage), not deleted; the final message says where it lies.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whose").required(true).args(["user", "all"]))]
pub struct Rollback {
    /// Whose
    user: Option<UserName>,
    /// Everybody's
    #[arg(long)]
    all: bool,
    /// Also where somebody works; what is in flight is lost
    #[arg(long)]
    force: bool,
}

impl Rollback {
    /// Asks for it and waits. Without a user it is everybody: clap lets that through with `--all` only.
    pub async fn run(self, client: &Client) -> Result<Answer, ClientError> {
        let started: RunReport = client.post("/v1/rollback", &RollbackRequest { user: self.user, force: self.force }).await?;
        follow::to_the_end(client, started).await
    }
}
