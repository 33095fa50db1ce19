//! Looking for T3's own background service in a user's files, as the user: its unit for the user's own systemd, and what its
//! launcher has written down (T3-CONTRACT, "More facts").
//!
//! Links are followed: whoever keeps their settings elsewhere has the service all the same, and as the user nothing is reached that
//! is not theirs. What is there and cannot be made sense of counts as there.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::Deserialize;

use crate::domain::{LauncherState, OwnService};
use crate::worker::protocol::{TaskError, TaskErrorKind};

/// Where a user's own units lie below the home (systemd.unit(5), "User Unit Search Path").
const UNITS: [&str; 2] = [".config/systemd/user/t3code.service", ".local/share/systemd/user/t3code.service"];
/// Below the base directory.
const STATE: &str = "runtime/service-state.json";
/// The launcher writes some hundred bytes.
const MOST: u64 = 64 << 10;
/// Longer versions are none.
const VERSION: usize = 100;

/// See [`crate::worker::Task::OwnService`].
pub fn own_service(home: &Path, base_dir: &Path) -> Result<OwnService, TaskError> {
    let units: Vec<PathBuf> = UNITS.iter().map(|unit| home.join(unit)).collect();
    let mut service = OwnService::default();
    for unit in units {
        if is_unit(&unit).map_err(|error| cannot_tell(&unit, &error))? {
            service.units.push(unit);
        }
    }
    let state = base_dir.join(STATE);
    service.state = launcher_state(&state).map_err(|error| cannot_tell(&state, &error))?;
    Ok(service)
}

fn cannot_tell(path: &Path, error: &io::Error) -> TaskError {
    TaskError { kind: TaskErrorKind::Other, message: format!("whether there is {}: {error}", path.display()) }
}

/// Whether a unit is there; a masked one (a link to `/dev/null`, or empty: systemctl(1), "mask") is none.
fn is_unit(path: &Path) -> io::Result<bool> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if is_absent(&error) => return Ok(false),
        found => found?,
    };
    if found.is_symlink() {
        return Ok(fs::read_link(path).map_or(true, |target| target != Path::new("/dev/null")));
    }
    Ok(!found.is_file() || found.len() > 0)
}

fn launcher_state(path: &Path) -> io::Result<Option<LauncherState>> {
    let told = |active_version, updating_to| Some(LauncherState { path: path.to_owned(), active_version, updating_to });
    let text = match read(path) {
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Ok(told(Err(error.to_string()), None)),
        Ok(text) => text,
    };
    Ok(match serde_json::from_slice::<Written>(&text) {
        Err(_) => told(Err("it cannot be made sense of".to_owned()), None),
        Ok(Written { active_version, update }) => {
            let pending = update.filter(|update| update.status == "pending").map(|update| update.target_version);
            told(Ok(short(active_version)), pending.map(short))
        }
    })
}

/// Neither a FIFO nor a device is waited for, and no more is read than a launcher writes.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).map_err(io::Error::other)?;
    let file: File = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = Vec::new();
    file.take(MOST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MOST {
        return Err(io::Error::other(format!("it is longer than {MOST} bytes")));
    }
    Ok(text)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn short(text: String) -> String {
    text.chars().take(VERSION).collect()
}

/// What matters here of what the launcher writes; later ones may write more.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    active_version: String,
    #[serde(default)]
    update: Option<Update>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Update {
    target_version: String,
    status: String,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    fn home() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".config/systemd/user")).unwrap();
        fs::create_dir_all(dir.path().join(".t3/runtime")).unwrap();
        dir
    }

    fn look(home: &tempfile::TempDir) -> OwnService {
        own_service(home.path(), &home.path().join(".t3")).unwrap()
    }

    #[test]
    fn nothing_is_found_where_nothing_is_and_a_masked_unit_is_none() {
        assert_eq!(own_service(Path::new("/nowhere"), Path::new("/nowhere/.t3")).unwrap(), OwnService::default());
        let home = home();
        assert_eq!(look(&home), OwnService::default());
        let unit = home.path().join(UNITS[0]);
        symlink("/dev/null", &unit).unwrap();
        assert_eq!(look(&home), OwnService::default());
        fs::remove_file(&unit).unwrap();
        fs::write(&unit, "").unwrap();
        assert_eq!(look(&home), OwnService::default());
    }

    #[test]
    fn a_unit_counts_also_when_it_is_a_link_to_somewhere() {
        let home = home();
        let unit = home.path().join(UNITS[0]);
        fs::write(&unit, "[Service]\nExecStart=/x\n").unwrap();
        assert_eq!(look(&home).units, std::slice::from_ref(&unit));
        fs::remove_file(&unit).unwrap();
        symlink("/home/elsewhere/t3code.service", &unit).unwrap();
        assert_eq!(look(&home).units, [unit]);
    }

    #[test]
    fn what_the_launcher_runs_and_whether_it_updates_is_told() {
        let home = home();
        let state = home.path().join(".t3").join(STATE);
        let update = |status: &str| {
            format!(
                r#"{{"protocol":1,"activeVersion":"0.0.30","update":{{"id":"u","fromVersion":"0.0.30","targetVersion":"0.0.31","dbPath":"/x","status":"{status}"}}}}"#
            )
        };
        for (text, active, to) in [
            (r#"{"protocol":1,"activeVersion":"0.0.30"}"#.to_owned(), Ok("0.0.30"), None),
            (update("pending"), Ok("0.0.30"), Some("0.0.31")),
            (update("committed"), Ok("0.0.30"), None),
            ("{".to_owned(), Err(()), None),
            (r#"{"activeVersion":7}"#.to_owned(), Err(()), None),
            ("[".repeat(100_000), Err(()), None),
            ("[".repeat(20_000), Err(()), None),
        ] {
            fs::write(&state, &text).unwrap();
            let found = look(&home).state.unwrap();
            assert_eq!(
                (found.active_version.as_deref().map_err(|_| ()), found.updating_to.as_deref()),
                (active, to),
                "{text:.60}"
            );
        }
    }

    #[test]
    fn what_is_no_file_is_there_and_is_not_waited_for() {
        let home = home();
        let state = home.path().join(".t3").join(STATE);
        rustix::fs::mknodat(rustix::fs::CWD, &state, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(look(&home).state.unwrap().active_version.is_err());
        fs::remove_file(&state).unwrap();
        fs::create_dir(&state).unwrap();
        assert!(look(&home).state.unwrap().active_version.is_err());
        fs::remove_dir(&state).unwrap();
        symlink("/dev/zero", &state).unwrap();
        assert!(look(&home).state.unwrap().active_version.is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_written_there_is_found_and_short(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let home = home();
            fs::write(home.path().join(".t3").join(STATE), text).unwrap();
            let state = look(&home).state.unwrap();
            prop_assert!(state.active_version.is_ok_and(|version| version.len() <= 4 * VERSION) || state.updating_to.is_none());
        }
    }
}
