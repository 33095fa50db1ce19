//! Users and groups, as the user database knows them (getpwnam(3), getgrouplist(3)), LDAP and the like included.

use std::ffi::CString;
use std::io;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

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

/// Whether `uid` belongs to `group`, as its primary group or as a member. An unknown user or group: no.
pub fn is_member(uid: u32, group: &str) -> Result<bool, AccountError> {
    let Some(group) = Group::from_name(group).map_err(|error| failed(group, error))? else { return Ok(false) };
    let Some(user) = User::from_uid(Uid::from_raw(uid)).map_err(|error| failed(uid, error))? else { return Ok(false) };
    let name = CString::new(user.name).map_err(|error| AccountError { what: uid.to_string(), source: error.into() })?;
    let groups: Vec<Gid> = getgrouplist(&name, user.gid).map_err(|error| failed(uid, error))?;
    Ok(groups.contains(&group.gid))
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
    fn an_unknown_user_is_none_and_member_of_nothing() {
        assert_eq!(lookup(&"no-such-user-here".parse().unwrap()).unwrap(), None);
        assert!(!is_member(0, "no-such-group-here").unwrap());
        assert!(!is_member(u32::MAX - 7, "root").unwrap());
    }

    #[test]
    fn a_primary_group_counts_as_membership() {
        assert!(is_member(0, "root").unwrap());
    }
}
