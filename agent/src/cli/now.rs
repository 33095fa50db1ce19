//! `t3pin now [USER]`.

use clap::Args;

use super::answer::Answer;
use super::enforce::shown;
use super::exit::Exit;
use super::follow;
use crate::api::client::{Client, ClientError};
use crate::api::types::{NowRequest, RunReport};
use crate::domain::UserName;

/// Have a bump that waits done now: without waiting for quiet, outside of the hours for changes, too
///
/// Work in flight is never interrupted, unless `--force` says so: then the bump comes as soon as it has ended. Everybody may ask
/// for their own bump, root and group t3pin for anybody's.
#[derive(Debug, Args)]
pub struct Now {
    /// Whose bump; your own when not said
    user: Option<UserName>,

    /// Also when something is in flight, which is then lost
    #[arg(long)]
    force: bool,

    /// Wait for the end, show progress, and exit with how it ended (leaving early does not stop it)
    #[arg(long)]
    wait: bool,
}

impl Now {
    /// Asks for it and, if wanted, stays with it.
    pub async fn run(self, client: &Client) -> Result<Answer, ClientError> {
        let started: RunReport = client.post("/v1/now", &NowRequest { user: self.user, force: self.force }).await?;
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
