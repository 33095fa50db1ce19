//! `t3pin enroll USER`.

use clap::Args;

use super::answer::Answer;
use super::follow;
use crate::api::client::{Client, ClientError};
use crate::api::types::{EnrollRequest, RunReport};
use crate::domain::{UserName, Version};

/// Make an instance for a user (port, unit, binding) and wait for the end; harmless when there is one
#[derive(Debug, Args)]
pub struct Enroll {
    /// Whom
    user: UserName,
    /// TCP port; a free one is chosen otherwise
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The version that wrote the data the user has already; only needed when it cannot be found out
    #[arg(long, value_name = "V")]
    version: Option<Version>,
}

impl Enroll {
    /// Asks for it and waits.
    pub async fn run(self, client: &Client) -> Result<Answer, ClientError> {
        let request = EnrollRequest { user: self.user, port: self.port, version: self.version };
        let started: RunReport = client.post("/v1/enroll", &request).await?;
        follow::to_the_end(client, started).await
    }
}
