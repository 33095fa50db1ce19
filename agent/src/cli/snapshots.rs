//! `t3pin snapshots [list|show|verify|restore|export|prune]`.

mod export;

use clap::{Args, Subcommand};

use self::export::Export;
use super::answer::Answer;
use super::exit::Exit;
use super::follow;
use super::render::{ago, now_ms, plain, size, table};
use crate::api::archive_types::{ArchiveRequest, ArchiveStatus, KeptRequest, KeptStatus};
use crate::api::client::{Client, ClientError};
use crate::api::types::RunReport;
use crate::domain::{KeptId, UnixMs, UserName};

/// List, verify, restore, export and prune what is kept of users' data
///
/// A snapshot is the state from before a bump and is called like it (b000042). Salvage is what a newer version wrote before it
/// was rolled back (b000042-salvage). Users see, verify and export their own.
#[derive(Debug, Args)]
pub struct Snapshots {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List snapshots and salvage (also without a verb)
    List {
        /// Only this user's
        user: Option<UserName>,
    },
    /// Show one, with its files
    Show {
        /// Whose
        user: UserName,
        /// Which
        id: KeptId,
    },
    /// Read snapshots from end to end and say whether they are whole
    Verify {
        /// Only this user's
        user: Option<UserName>,
        /// Only this one
        id: Option<KeptId>,
    },
    /// Bring a snapshot back: the data, and the version that it belongs to
    ///
    /// As careful as a bump: not while somebody works, what lies there now is set aside as salvage, and the version of the snapshot
    /// is started on its own data and verified. Restored is what that user had then; what was done since is in the salvage.
    Restore {
        /// Whose
        user: UserName,
        /// Which
        id: KeptId,
        /// Also while somebody works; what is in flight is lost
        #[arg(long)]
        force: bool,
    },
    /// Write the database of a snapshot or of salvage as an ordinary SQLite file
    Export(Export),
    /// Apply retention now, or remove one by its name; salvage only goes by its name
    Prune {
        /// Only this user's
        user: Option<UserName>,
        /// Only this one
        id: Option<KeptId>,
    },
}

impl Snapshots {
    /// Asks and shows.
    pub async fn run(self, client: &Client) -> Result<Answer, ClientError> {
        match self.verb.unwrap_or(Verb::List { user: None }) {
            Verb::List { user } => {
                // User names need no escaping in a query (see UserName).
                let user = user.map_or_else(String::new, |user| format!("?user={user}"));
                let all: Vec<ArchiveStatus> = client.get(&format!("/v1/snapshots{user}")).await?;
                Answer::new(&all, shown(&all, now_ms()), Exit::Done)
            }
            Verb::Show { user, id } => {
                let one: KeptStatus = client.get(&format!("/v1/snapshots/{user}/{id}")).await?;
                Answer::new(&one, details(&one, now_ms()), Exit::Done)
            }
            Verb::Verify { user, id } => order(client, "verify", &ArchiveRequest { user, id }).await,
            Verb::Prune { user, id } => order(client, "prune", &ArchiveRequest { user, id }).await,
            Verb::Restore { user, id, force } => order(client, "restore", &KeptRequest { user, id, force }).await,
            Verb::Export(export) => export.run(client).await,
        }
    }
}

async fn order(client: &Client, what: &str, request: &impl serde::Serialize) -> Result<Answer, ClientError> {
    let started: RunReport = client.post(&format!("/v1/snapshots/{what}"), request).await?;
    follow::to_the_end(client, started).await
}

pub(super) fn shown(all: &[ArchiveStatus], now: UnixMs) -> String {
    if all.is_empty() {
        return "Nothing is kept that you may see.\n".to_owned();
    }
    let row = |archive: &ArchiveStatus, one: &KeptStatus| {
        [
            archive.user.to_string(),
            one.id.to_string(),
            ago(now, one.created_ms),
            one.version.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            size(one.bytes),
            state(one, now),
        ]
    };
    let rows: Vec<_> = all.iter().flat_map(|archive| archive.kept.iter().map(|one| row(archive, one))).collect();
    let mut out = table(["USER", "NAME", "TAKEN", "VERSION", "SIZE", "VERIFIED"], &rows);
    out.push('\n');
    for archive in all {
        let count = archive.kept.iter().filter(|one| matches!(one.id, KeptId::Snapshot(_))).count();
        out.push_str(&format!("{}: {count} snapshot(s) take {} on disk\n", archive.user, size(archive.disk_bytes)));
    }
    out
}

fn state(one: &KeptStatus, now: UnixMs) -> String {
    match (&one.damaged, one.verified_ms, one.id) {
        (Some(why), _, _) => format!("DAMAGED: {}", plain(why)),
        (None, Some(at), _) => ago(now, at),
        (None, None, KeptId::Salvage(..)) => "salvage".to_owned(),
        (None, None, KeptId::Snapshot(_)) => "not yet".to_owned(),
    }
}

fn details(one: &KeptStatus, now: UnixMs) -> String {
    let version = one.version.as_ref().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    let level = one.migration_level.map_or_else(|| "unknown".to_owned(), |level| level.to_string());
    let mut out = format!(
        "{}\n  taken      {}\n  version    {version} (migration {level})\n  size       {}\n  verified   {}\n  lies in    {}\n\n",
        one.id,
        ago(now, one.created_ms),
        size(one.bytes),
        state(one, now),
        plain(&one.path),
    );
    let row = |file: &crate::api::archive_types::KeptFile| [plain(&file.path), size(file.bytes)];
    out.push_str(&table(["FILE", "SIZE"], &one.files.iter().map(row).collect::<Vec<_>>()));
    out
}
