//! `/etc/t3-serve/USER.env`: where an instance listens.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::env_text;
use crate::domain::UserName;
use crate::root_file::{self, Refusal};

/// The directory of the instances' environment files.
#[derive(Debug, Clone)]
pub struct EnvFiles {
    dir: PathBuf,
    owner: u32,
}

/// What one environment file says, as far as t3pin reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Env {
    /// `T3_PORT`.
    pub port: Option<String>,
    /// `T3_HOST`.
    pub host: Option<String>,
    /// `T3CODE_HOME`: t3's base directory, when it is moved (T3-CONTRACT section 7).
    pub base_dir: Option<String>,
}

/// Why an environment file is not used.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    /// The file is not what it must be.
    #[error("{}: {refusal}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        refusal: Refusal,
    },
    /// It could not be written; what was there is still there.
    #[error("{} could not be written: {source}; it is as it was", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl EnvFiles {
    /// The files below `dir` (`/etc/t3-serve`), which must be root's.
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), owner: root_file::ROOT }
    }

    /// The file of `user`.
    pub fn path(&self, user: &UserName) -> PathBuf {
        self.dir.join(format!("{user}.env"))
    }

    /// What the file of `user` says; `None` without a file.
    pub fn read(&self, user: &UserName) -> Result<Option<Env>, EnvError> {
        let Some(text) = self.text(user)? else { return Ok(None) };
        let get = |key| env_text::get(&text, key);
        Ok(Some(Env { port: get("T3_PORT"), host: get("T3_HOST"), base_dir: get("T3CODE_HOME") }))
    }

    /// What the file of `user` sets `key` to.
    pub fn value(&self, user: &UserName, key: &str) -> Result<Option<String>, EnvError> {
        Ok(self.text(user)?.and_then(|text| env_text::get(&text, key)))
    }

    /// All users with a file, sorted.
    pub fn users(&self) -> io::Result<Vec<UserName>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut users = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            users.extend(name.to_str().and_then(|name| name.strip_suffix(".env")).and_then(|user| user.parse().ok()));
        }
        users.sort();
        Ok(users)
    }

    /// Writes `T3_PORT`, and `T3_HOST` where one is given, into the file of `user`, keeping all other lines; makes the file and the directory if they are missing.
    /// At every instant the whole old or the whole new file is there.
    pub fn write(&self, user: &UserName, port: u16, host: Option<&str>) -> Result<(), EnvError> {
        let mut text =
            self.text(user)?.unwrap_or_else(|| format!("# Where {}'s T3 Code server listens; read by {}.\n", user, user.unit()));
        let path = self.path(user);
        if let Some(host) = host {
            text = env_text::set(&text, "T3_HOST", host);
        }
        self.replace(&path, &env_text::set(&text, "T3_PORT", &port.to_string()))
            .map_err(|source| EnvError::Write { path, source })
    }

    fn text(&self, user: &UserName) -> Result<Option<String>, EnvError> {
        let path = self.path(user);
        match root_file::read(&path, self.owner) {
            Ok(text) => Ok(Some(text)),
            Err(Refusal::Missing) => Ok(None),
            Err(refusal) => Err(EnvError::Refused { path, refusal }),
        }
    }

    fn replace(&self, path: &Path, text: &str) -> io::Result<()> {
        if !self.dir.exists() {
            fs::create_dir(&self.dir)?;
            fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o755))?;
        }
        // An administrator may have made it unreadable for others, because of other keys in it.
        let mode = fs::symlink_metadata(path).map_or(0o644, |found| found.permissions().mode() & 0o755);
        let new = path.with_extension("env.t3pin-new");
        let _ = fs::remove_file(&new);
        let written = File::options().write(true).create_new(true).mode(mode).open(&new).and_then(|mut file| {
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            File::open(&self.dir)?.sync_all()
        });
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub(super) mod tests {
    use super::*;

    /// Environment files in a fresh directory of this process's user.
    pub fn files(contents: &[(&str, &str)]) -> (tempfile::TempDir, EnvFiles) {
        let dir = tempfile::tempdir().unwrap();
        for (user, text) in contents {
            let path = dir.path().join(format!("{user}.env"));
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        }
        let env = EnvFiles { dir: dir.path().to_owned(), owner: rustix::process::geteuid().as_raw() };
        (dir, env)
    }

    fn alice() -> UserName {
        "alice".parse().unwrap()
    }

    #[test]
    fn a_file_is_read_and_a_missing_one_is_none() {
        let (_dir, env) = files(&[("alice", "T3_PORT=3773\nT3_HOST=0.0.0.0\n")]);
        let found = env.read(&alice()).unwrap().unwrap();
        assert_eq!((found.port.as_deref(), found.host.as_deref()), (Some("3773"), Some("0.0.0.0")));
        assert_eq!(env.read(&"bob".parse().unwrap()).unwrap(), None);
        assert_eq!(env.users().unwrap(), [alice()]);
    }

    #[test]
    fn writing_keeps_other_keys_comments_and_mode() {
        let (_dir, env) = files(&[("alice", "# hers\nT3_PORT=3773\nSECRET=x\n")]);
        env.write(&alice(), 4000, None).unwrap();
        assert_eq!(fs::read_to_string(env.path(&alice())).unwrap(), "# hers\nT3_PORT=4000\nSECRET=x\n");
        assert_eq!(fs::metadata(env.path(&alice())).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(env.users().unwrap(), [alice()], "something was left over");
    }

    #[test]
    fn writing_a_first_file_makes_the_directory_and_leaves_a_left_over_behind_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let env = EnvFiles { dir: dir.path().join("t3-serve"), owner: rustix::process::geteuid().as_raw() };
        env.write(&alice(), 4000, None).unwrap();
        fs::write(env.path(&alice()).with_extension("env.t3pin-new"), "half").unwrap();
        env.write(&alice(), 4001, Some("0.0.0.0")).unwrap();
        let found = env.read(&alice()).unwrap().unwrap();
        assert_eq!((found.port.as_deref(), found.host.as_deref()), (Some("4001"), Some("0.0.0.0")));
        assert_eq!(fs::read_dir(&env.dir).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_its_user_could_have_written_is_refused_and_left_alone() {
        let (_dir, env) = files(&[("alice", "T3_PORT=3773\n")]);
        fs::set_permissions(env.path(&alice()), fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(env.read(&alice()), Err(EnvError::Refused { .. })));
        assert!(matches!(env.write(&alice(), 4000, None), Err(EnvError::Refused { .. })));
        assert_eq!(fs::read_to_string(env.path(&alice())).unwrap(), "T3_PORT=3773\n");
    }
}
