//! One user's instance, from the user database and the environment file.

use std::net::IpAddr;
use std::path::Path;

use super::accounts::{self, AccountError};
use super::env_file::{EnvError, EnvFiles};
use crate::domain::{Account, Instance, Place, UserName};

/// Why there is no instance to work with.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// The host does not know the user.
    #[error("this host has no user {0}")]
    NoUser(UserName),
    /// The user's server would be root's.
    #[error("{0} has uid 0; t3pin runs no server as root")]
    Root(UserName),
    /// The user has no environment file yet.
    #[error("{user} has no {path}; run: t3pin enroll {user}")]
    NoEnv {
        /// Whose.
        user: UserName,
        /// The file.
        path: String,
    },
    /// A key is not what it must be.
    #[error("{path}, {key}: {problem}")]
    Key {
        /// The file.
        path: String,
        /// The key.
        key: &'static str,
        /// What is wrong, and what is allowed.
        problem: String,
    },
    /// The environment file.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// The user database.
    #[error(transparent)]
    Account(#[from] AccountError),
}

/// The instance of `user`, as its unit would start it.
pub fn of(env: &EnvFiles, user: &UserName) -> Result<Instance, InstanceError> {
    let account = accounts::lookup(user)?.ok_or_else(|| InstanceError::NoUser(user.clone()))?;
    if account.uid == 0 {
        return Err(InstanceError::Root(user.clone()));
    }
    from(env, account)
}

fn from(env: &EnvFiles, account: Account) -> Result<Instance, InstanceError> {
    let user = account.user.clone();
    let path = env.path(&user).display().to_string();
    let found = env.read(&user)?.ok_or_else(|| InstanceError::NoEnv { user: user.clone(), path: path.clone() })?;
    let refuse = |key, problem: &str| InstanceError::Key { path: path.clone(), key, problem: problem.to_owned() };
    let port = found.port.ok_or_else(|| refuse("T3_PORT", "is missing; write the port of this server, 1024 to 65535"))?;
    let port = port_from(&port).ok_or_else(|| refuse("T3_PORT", "must be a port from 1024 to 65535"))?;
    let host = found.host.unwrap_or_else(|| "127.0.0.1".to_owned());
    if !is_host(&host) {
        return Err(refuse("T3_HOST", "must be an address to listen on, such as 127.0.0.1 or 0.0.0.0"));
    }
    let place = Place::of(account);
    if found.base_dir.is_some_and(|dir| Path::new(&dir) != place.base_dir) {
        let problem = format!("moves the data away from {}; t3pin only looks after data there", place.base_dir.display());
        return Err(refuse("T3CODE_HOME", &problem));
    }
    Ok(Instance { place, unit: user.unit(), host, port })
}

pub(super) fn port_from(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port >= 1024)
}

fn is_host(text: &str) -> bool {
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    text.parse::<IpAddr>().is_ok() || (!text.is_empty() && text.len() <= 253 && !text.starts_with('-') && text.chars().all(name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::super::env_file::tests::files;
    use super::*;

    fn made(text: &str) -> Result<Instance, InstanceError> {
        let (_dir, env) = files(&[("alice", text)]);
        let home = "/home/alice".into();
        from(&env, Account { user: "alice".parse().unwrap(), uid: 1000, gid: 1000, home, shell: "/bin/sh".into() })
    }

    #[test]
    fn the_port_comes_from_the_file_and_the_host_is_loopback_unless_said() {
        let instance = made("T3_PORT=3774\n").unwrap();
        assert_eq!((instance.host.as_str(), instance.port), ("127.0.0.1", 3774));
        assert_eq!(instance.unit, "t3-serve@alice.service");
        assert_eq!(instance.place.base_dir, Path::new("/home/alice/.t3"));
    }

    #[test]
    fn a_server_on_every_address_is_probed_on_loopback() {
        let address = |host: &str| made(&format!("T3_PORT=3774\nT3_HOST={host}\n")).unwrap().probe_address();
        assert_eq!(address("0.0.0.0"), "127.0.0.1:3774");
        assert_eq!(address("::"), "[::1]:3774");
        assert_eq!(address("10.0.0.7"), "10.0.0.7:3774");
        assert_eq!(address("fd00::7"), "[fd00::7]:3774");
        assert_eq!(address("box.example"), "box.example:3774");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_file_and_key() {
        for (text, key) in [
            ("", "T3_PORT"),
            ("T3_PORT=80", "T3_PORT"),
            ("T3_PORT=70000", "T3_PORT"),
            ("T3_PORT=x", "T3_PORT"),
            ("T3_PORT=3773\nT3_HOST=-x", "T3_HOST"),
            ("T3_PORT=3773\nT3_HOST='a b'", "T3_HOST"),
            ("T3_PORT=3773\nT3CODE_HOME=/srv/alice", "T3CODE_HOME"),
        ] {
            let error = made(text).unwrap_err().to_string();
            assert!(error.contains(&format!("alice.env, {key}: ")), "{error}");
        }
        assert!(made("T3_PORT=3773\nT3CODE_HOME=/home/alice/.t3").is_ok());
    }

    #[test]
    fn an_unknown_user_and_root_have_no_instance() {
        let (_dir, env) = files(&[("root", "T3_PORT=3773")]);
        assert!(matches!(of(&env, &"no-such-user-here".parse().unwrap()), Err(InstanceError::NoUser(_))));
        assert!(matches!(of(&env, &"root".parse().unwrap()), Err(InstanceError::Root(_))));
    }

    #[test]
    fn a_user_without_a_file_is_told_to_enroll() {
        let (_dir, env) = files(&[]);
        let account =
            Account { user: "bob".parse().unwrap(), uid: 1000, gid: 1000, home: "/home/bob".into(), shell: "/bin/sh".into() };
        assert!(from(&env, account).unwrap_err().to_string().ends_with("run: t3pin enroll bob"));
    }
}
