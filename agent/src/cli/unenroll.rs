//! `t3pin unenroll USER`.

use clap::Args;

use super::answer::Answer;
use super::follow;
use crate::api::client::{Client, ClientError};
use crate::api::types::{RunReport, UnenrollRequest};
use crate::domain::UserName;

/// No longer hold a user's server at a version; the server, its data and all copies of it stay as they are
#[derive(Debug, Args)]
pub struct Unenroll {
    /// Whose
    user: UserName,
}

impl Unenroll {
    /// Asks and waits for the end.
    pub async fn run(self, client: &Client) -> Result<Answer, ClientError> {
        let started: RunReport = client.post("/v1/unenroll", &UnenrollRequest { user: self.user }).await?;
        follow::to_the_end(client, started).await
    }
}
