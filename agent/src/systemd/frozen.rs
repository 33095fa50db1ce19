//! What stands still because of us, so that it never stays so: a note per unit, written before the unit is frozen and removed
//! once it moves again.
//!
//! The notes lie below `/run`, which forgets with the kernel that forgets the freezing: a reboot leaves neither. Whoever
//! finds a note thaws what it names ([`release_frozen`]): t3pin.service's `ExecStopPost=` when the agent has ended, however it
//! ended; t3pin-thaw.timer when the agent lives and does not get on; the agent itself when it starts.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{ControlGroup, Systemd};
use crate::domain::UserName;
use crate::root_file;

/// Where the notes lie; root's alone.
const DIRECTORY: &str = "/run/t3pin/frozen";
/// Units that are thawed with one look; one is the rule.
const MOST: usize = 1000;
/// When systemd does not even answer the call for a connection, the units are thawed without it.
const CONNECT: Duration = Duration::from_secs(2);

/// The notes.
#[derive(Debug)]
pub struct FrozenNotes {
    directory: PathBuf,
}

impl FrozenNotes {
    /// Where they are on every host. Made when it is not there.
    pub fn open() -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(DIRECTORY)?;
        Ok(Self { directory: DIRECTORY.into() })
    }

    /// Notes that `user`'s unit, which has the control group `name`, is about to be frozen.
    pub fn write(&self, user: &UserName, name: &str) -> io::Result<()> {
        let half = self.directory.join(format!(".{user}"));
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
        io::Write::write_all(&mut file, name.as_bytes())?;
        fs::rename(half, self.path(user))
    }

    /// Notes that it moves again, or never stood.
    pub fn remove(&self, user: &UserName) -> io::Result<()> {
        match fs::remove_file(self.path(user)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Whose unit may stand still, and its control group. What is no note of ours is left out.
    pub fn all(&self) -> io::Result<Vec<(UserName, String)>> {
        let names = fs::read_dir(&self.directory)?.flatten().take(MOST).filter_map(|entry| entry.file_name().into_string().ok());
        let users = names.filter_map(|name| name.parse::<UserName>().ok());
        Ok(users.filter_map(|user| root_file::read(&self.path(&user), root_file::ROOT).ok().map(|group| (user, group))).collect())
    }

    fn path(&self, user: &UserName) -> PathBuf {
        self.directory.join(user.as_str())
    }
}

/// Thaws every unit that a note names, and removes the note: through systemd, or without it when it does not answer. Says who it
/// was. Repeating it does no harm; nothing noted costs nothing.
pub async fn release_frozen() -> io::Result<Vec<UserName>> {
    if !Path::new(DIRECTORY).exists() {
        return Ok(vec![]);
    }
    let notes = FrozenNotes::open()?;
    let noted = notes.all()?;
    if noted.is_empty() {
        return Ok(vec![]);
    }
    let systemd = tokio::time::timeout(CONNECT, Systemd::connect()).await.ok().and_then(Result::ok);
    let mut released = vec![];
    for (user, name) in noted {
        let Ok(group) = ControlGroup::named(&name) else { continue };
        let through_systemd = match &systemd {
            Some(systemd) => systemd.thaw_group(&user.unit(), &group).await.is_ok(),
            None => false,
        };
        if !through_systemd {
            group.let_move()?;
        }
        notes.remove(&user)?;
        released.push(user);
    }
    Ok(released)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_whose_unit_stands_still_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let notes = FrozenNotes { directory: dir.path().to_owned() };
        let alice: UserName = "alice".parse().unwrap();
        notes.write(&alice, "/system.slice/a").unwrap();
        notes.write(&alice, "/system.slice/b").unwrap();
        fs::write(dir.path().join(".bob"), "half written").unwrap();
        let noted = notes.all().unwrap();
        if rustix::process::geteuid().is_root() {
            assert_eq!(noted, [(alice.clone(), "/system.slice/b".to_owned())]);
        }
        notes.remove(&alice).unwrap();
        notes.remove(&alice).unwrap();
        assert!(notes.all().unwrap().is_empty());
    }
}
