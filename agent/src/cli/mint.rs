//! `t3pin mint [USER]`.

use clap::Args;

use super::answer::Answer;
use super::exit::Exit;
use crate::api::client::{Client, ClientError};
use crate::api::types::{MintRequest, Minted};
use crate::domain::{PairingLabel, PairingTtl, UserName};

/// Mint a one-time pairing credential for a user's server, by exactly the t3 that serves
///
/// For reverse proxies and for users themselves: everybody may mint for their own server, root and group t3pin for anybody's. The
/// credential is printed and kept nowhere. While the user is being moved to another version it waits for up to 15 s, and then ends
/// with exit code 3; a server that does not answer, or answers with another version than it should, is refused with 5.
#[derive(Debug, Args)]
pub struct Mint {
    /// For whose server; your own when not said
    user: Option<UserName>,

    /// For how long it is good: whole minutes, at most a day
    #[arg(long, value_name = "TIME", default_value = "5min")]
    ttl: PairingTtl,

    /// What it is called in the user's own list (t3 auth pairing list)
    #[arg(long)]
    label: Option<PairingLabel>,
}

impl Mint {
    /// Asks for one and tells it.
    pub async fn run(self, client: &Client) -> Result<Answer, ClientError> {
        let request = MintRequest { user: self.user, ttl: self.ttl, label: self.label };
        let minted: Minted = client.post("/v1/mint", &request).await?;
        let text = format!("{}\n", minted.credential);
        Answer::new(&minted, text, Exit::Done)
    }
}
