//! `t3pin versions`, and what can be done about one.

use clap::{Args, Subcommand};

use super::answer::Answer;
use super::exit::Exit;
use super::follow;
use super::render::{ago, now_ms, size, table};
use crate::api::archive_types::{RemoveRequest, VerifyVersionRequest};
use crate::api::client::{Client, ClientError};
use crate::api::types::{Acknowledged, ClearRequest, RetryRequest, RunReport, VersionStatus};
use crate::domain::{UnixMs, UserName, Version};

/// List the installed versions, verify or remove one, or let one that failed here be tried again
#[derive(Debug, Args)]
pub struct Versions {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the installed versions (also without a verb)
    List,
    /// Remove a version that nothing needs any more
    ///
    /// Refused while a binding, the pin, a bump, a snapshot or a running process needs it. Versions that nothing needs
    /// also go by themselves when a bump is settled.
    Remove {
        /// Which
        version: Version,
    },
    /// Read installed versions from end to end: is everything as it was when it was sealed?
    ///
    /// The agent itself looks at the versions in use once an hour, without reading what nobody has written to.
    Verify {
        /// Which; all when not said
        version: Option<Version>,
    },
    /// Try a quarantined version once more, with one user
    ///
    /// Everybody else stays held back. When it has soaked well there the quarantine is lifted by itself and the others follow;
    /// when it has not, the user is rolled back as ever and nothing else changes.
    Retry {
        /// Which; it must be what the user is pinned to
        version: Version,
        /// With whom
        user: UserName,
        /// Wait for the end, show progress, and exit with how it ended (leaving early does not stop it)
        #[arg(long)]
        wait: bool,
    },
    /// Lift the quarantine of a version, so that everybody may get it
    Clear {
        /// Which
        version: Version,
    },
}

impl Versions {
    /// Asks and shows.
    pub async fn run(self, client: &Client) -> Result<Answer, ClientError> {
        match self.verb {
            None | Some(Verb::List) => {
                let versions: Vec<VersionStatus> = client.get("/v1/versions").await?;
                Answer::new(&versions, shown(&versions, now_ms()), Exit::Done)
            }
            Some(Verb::Remove { version }) => {
                let started: RunReport = client.post("/v1/versions/remove", &RemoveRequest { version }).await?;
                follow::to_the_end(client, started).await
            }
            Some(Verb::Verify { version }) => {
                let started: RunReport = client.post("/v1/versions/verify", &VerifyVersionRequest { version }).await?;
                follow::to_the_end(client, started).await
            }
            Some(Verb::Retry { version, user, wait }) => {
                let started: RunReport = client.post("/v1/quarantine/retry", &RetryRequest { version, user }).await?;
                if wait {
                    return follow::to_the_end(client, started).await;
                }
                if started.done {
                    return follow::ended(started);
                }
                let text = super::enforce::shown(&started);
                Answer::new(&started, text, Exit::Done)
            }
            Some(Verb::Clear { version }) => {
                let text = format!("{version} may be tried again; it is when it is pinned: t3pin enforce\n");
                let done: Acknowledged = client.post("/v1/quarantine/clear", &ClearRequest { version }).await?;
                Answer::new(&done, text, Exit::Done)
            }
        }
    }
}

pub(super) fn shown(versions: &[VersionStatus], now: UnixMs) -> String {
    if versions.is_empty() {
        return "No version is installed yet.\n".to_owned();
    }
    let row = |version: &VersionStatus| {
        let users: Vec<String> = version.users.iter().map(ToString::to_string).collect();
        [
            version.version.to_string(),
            size(version.bytes),
            ago(now, version.sealed_ms),
            if users.is_empty() { "-".to_owned() } else { users.join(" ") },
            version.quarantined.as_ref().map_or_else(String::new, |reason| format!("quarantined: {reason}")),
        ]
    };
    table(["VERSION", "SIZE", "INSTALLED", "USERS", ""], &versions.iter().map(row).collect::<Vec<_>>())
}
