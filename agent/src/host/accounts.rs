//! Users, as the user database knows them (getpwnam(3)), LDAP and the like included.

use std::io;

use nix::unistd::User;

use crate::domain::{Account, UserName};

/// The user database could not be asked. That is not the same as "no such user".
#[derive(Debug, thiserror::Error)]
#[error("the user database could not be asked about {what}: {source}")]
pub struct AccountError {
    what: String,
    source: io::Error,
}

/// The account of `user`, if the host has one.
pub fn lookup(user: &UserName) -> Result<Option<Account>, AccountError> {
    let found = User::from_name(user.as_str()).map_err(|error| failed(user, error))?;
    Ok(found.map(|entry| Account {
        user: user.clone(),
        uid: entry.uid.as_raw(),
        gid: entry.gid.as_raw(),
        home: entry.dir,
        shell: entry.shell,
    }))
}

/// The name of the user with this uid, if the host has one that t3pin can take (getpwuid(3)).
pub fn name(uid: u32) -> Result<Option<UserName>, AccountError> {
    let found = User::from_uid(nix::unistd::Uid::from_raw(uid)).map_err(|error| failed(format!("uid {uid}"), error))?;
    Ok(found.and_then(|entry| entry.name.parse().ok()))
}

fn failed(what: impl ToString, error: nix::Error) -> AccountError {
    AccountError { what: what.to_string(), source: error.into() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_with_its_home() {
        let root = lookup(&"root".parse().unwrap()).unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.home.is_absolute());
    }

    #[test]
    fn an_unknown_user_is_none() {
        assert_eq!(lookup(&"no-such-user-here".parse().unwrap()).unwrap(), None);
    }
}
