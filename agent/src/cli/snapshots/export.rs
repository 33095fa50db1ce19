//! `t3pin snapshots export USER NAME [--output FILE]`: the agent makes the file and hands its bytes over; this process, with the
//! rights of whoever called it, writes them.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use serde::Serialize;

use super::super::answer::Answer;
use super::super::exit::Exit;
use super::super::follow;
use super::super::render::size;
use crate::api::archive_types::KeptRequest;
use crate::api::client::{Client, ClientError};
use crate::api::types::{ApiError, RunOutcome, RunReport};
use crate::domain::{KeptId, UserName};

#[derive(Debug, Args)]
pub struct Export {
    /// Whose
    user: UserName,
    /// Which
    id: KeptId,
    /// Where to; must not be there yet (default: USER-NAME.sqlite here)
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What was written.
#[derive(Serialize)]
struct Written {
    path: PathBuf,
    bytes: u64,
}

impl Export {
    /// Orders it, waits, and writes what comes.
    pub async fn run(self, client: &Client) -> Result<Answer, ClientError> {
        let path = self.output.unwrap_or_else(|| format!("{}-{}.sqlite", self.user, self.id).into());
        if path.symlink_metadata().is_ok() {
            return Err(refused(&path, "is there already; nothing was written"));
        }
        let request = KeptRequest { user: self.user, id: self.id, force: false };
        let started: RunReport = client.post("/v1/snapshots/export", &request).await?;
        let run = started.id;
        let made = follow::to_its_report(client, started).await?;
        if made.outcome != Some(RunOutcome::Done) {
            return follow::ended(made);
        }
        let draft = draft_of(&path).map_err(|error| refused(&path, &error.to_string()))?;
        let written = fetch(client, run, &draft.path, draft.file).await;
        let bytes = match written.and_then(|bytes| publish(&draft.path, &path).map(|()| bytes)) {
            Ok(bytes) => bytes,
            Err(error) => {
                let _ = std::fs::remove_file(&draft.path);
                return Err(error);
            }
        };
        let text = format!("{} ({})\n", path.display(), size(bytes));
        Answer::new(&Written { path, bytes }, text, Exit::Done)
    }
}

struct Draft {
    path: PathBuf,
    file: File,
}

/// A new file beside `path`, for this caller only. A link that somebody put there is not followed, and nothing is overwritten.
fn draft_of(path: &Path) -> io::Result<Draft> {
    let name = path.file_name().ok_or_else(|| io::Error::other("is no name of a file"))?.to_string_lossy();
    let draft = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(flags).open(&draft)?;
    Ok(Draft { path: draft, file })
}

async fn fetch(client: &Client, run: u64, path: &Path, mut file: File) -> Result<u64, ClientError> {
    let failed = |error: io::Error| refused(path, &error.to_string());
    let (terminal, mut offset) = (io::stderr().is_terminal(), 0u64);
    loop {
        let chunk = client.bytes(&format!("/v1/exports/{run}?offset={offset}")).await?;
        if chunk.is_empty() {
            break;
        }
        file.write_all(&chunk).map_err(failed)?;
        offset += chunk.len() as u64;
        if terminal {
            eprint!("\r  {} written", size(offset));
        }
    }
    if terminal {
        eprint!("\r{:24}\r", "");
    }
    file.sync_all().map_err(failed)?;
    Ok(offset)
}

fn publish(draft: &Path, path: &Path) -> Result<(), ClientError> {
    renameat_with(CWD, draft, CWD, path, RenameFlags::NOREPLACE)
        .map_err(|error| refused(path, &io::Error::from(error).to_string()))
}

fn refused(path: &Path, why: &str) -> ClientError {
    ApiError { kind: "bad-request".to_owned(), error: format!("{}: {why}", path.display()) }.into()
}
