//! `t3pin snapshots export USER NAME [--output FILE]`: the agent makes the file and hands its bytes over; this process, with the
//! rights of whoever called it, writes them.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags, openat, openat2, renameat_with, unlinkat};
use rustix::io::Errno;
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
        let written = fetch(client, run, &path, &draft.file).await;
        let published =
            written.and_then(|bytes| draft.publish().map(|()| bytes).map_err(|error| refused(&path, &error.to_string())));
        let bytes = match published {
            Ok(bytes) => bytes,
            Err(error) => {
                draft.remove();
                return Err(error);
            }
        };
        let text = format!("{} ({})\n", path.display(), size(bytes));
        Answer::new(&Written { path, bytes }, text, Exit::Done)
    }
}

/// A new file beside the one that is wanted, for this caller only. The directory is opened once: whoever owns it may put another in its
/// place meanwhile.
struct Draft {
    directory: OwnedFd,
    name: OsString,
    wanted: OsString,
    file: File,
}

impl Draft {
    /// Gives it the name that is wanted; nothing is overwritten.
    fn publish(&self) -> io::Result<()> {
        Ok(renameat_with(&self.directory, &self.name, &self.directory, &self.wanted, RenameFlags::NOREPLACE)?)
    }

    fn remove(&self) {
        unlinkat(&self.directory, &self.name, AtFlags::empty()).ok();
    }
}

/// A link that somebody put there is not followed, and nothing is overwritten.
fn draft_of(path: &Path) -> io::Result<Draft> {
    let wanted = path.file_name().ok_or_else(|| io::Error::other("is no name of a file"))?.to_owned();
    let name: OsString = format!(".{}.{}", wanted.to_string_lossy(), std::process::id()).into();
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = directory(above, rustix::process::geteuid().is_root())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&directory, &name, flags, Mode::from_raw_mode(0o600))?.into();
    Ok(Draft { directory, name, wanted, file })
}

/// Opens the directory `path`. As root through no link: it may lie in somebody's home, and they may lead root anywhere with one.
fn directory(path: &Path, is_root: bool) -> io::Result<OwnedFd> {
    let links = if is_root { ResolveFlags::NO_SYMLINKS } else { ResolveFlags::empty() };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(CWD, path, flags, Mode::empty(), links).map_err(|error| match error {
        Errno::LOOP => io::Error::other(
            "is reached through a symbolic link, which root does not follow here; name the real directory (realpath)",
        ),
        error => error.into(),
    })
}

async fn fetch(client: &Client, run: u64, path: &Path, mut file: &File) -> Result<u64, ClientError> {
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

fn refused(path: &Path, why: &str) -> ClientError {
    ApiError { kind: "bad-request".to_owned(), error: format!("{}: {why}", path.display()) }.into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_stays_in_the_directory_that_was_opened() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().canonicalize().unwrap();
        let (out, elsewhere) = (here.join("out"), here.join("elsewhere"));
        std::fs::create_dir_all(&out).unwrap();
        std::fs::create_dir_all(&elsewhere).unwrap();
        let draft = draft_of(&out.join("x")).unwrap();
        std::fs::rename(&out, here.join("moved")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &out).unwrap();
        draft.publish().unwrap();
        assert!(here.join("moved/x").exists() && std::fs::read_dir(&elsewhere).unwrap().next().is_none());
        assert!(draft_of(&here.join("moved/x")).unwrap().publish().is_err(), "nothing is overwritten");
    }

    #[test]
    fn root_is_led_nowhere_by_a_link_and_others_go_where_they_may() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().canonicalize().unwrap().join("link");
        std::os::unix::fs::symlink("/root", &link).unwrap();
        assert!(directory(&link, true).unwrap_err().to_string().contains("realpath"));
        assert!(directory(&link.join("x/.."), true).is_err());
        assert!(directory(&link, false).is_ok());
    }
}
