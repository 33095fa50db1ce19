//! The pin file.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::fragment::{self, Input};
use crate::domain::{UserName, Version};
use crate::root_file::{self, Refusal};

/// A good pin file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The version this host is to run.
    pub version: Version,
    /// Integrity of the npm tarball; when given it must match.
    pub integrity: Option<String>,
    /// Users held elsewhere.
    pub users: BTreeMap<UserName, UserPin>,
}

/// One user held elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserPin {
    /// The version this user is to run.
    pub version: Version,
    /// Why, for the next operator.
    pub reason: Option<String>,
}

impl Pin {
    /// The version that `user` is to run.
    pub fn wanted(&self, user: &UserName) -> &Version {
        self.users.get(user).map_or(&self.version, |held| &held.version)
    }
}

/// Reads and checks the pin file. `user_exists` asks the user database.
pub fn load_pin(path: &Path, user_exists: &dyn Fn(&UserName) -> bool) -> Result<Pin, ConfigError> {
    load_pin_of(root_file::ROOT, path, user_exists)
}

fn load_pin_of(owner: u32, path: &Path, user_exists: &dyn Fn(&UserName) -> bool) -> Result<Pin, ConfigError> {
    let text = root_file::read(path, owner).map_err(|refusal| match refusal {
        Refusal::Missing => ConfigError::whole(path, "does not exist; write one with a line such as: version = \"0.0.25\""),
        other => ConfigError::whole(path, other.to_string()),
    })?;
    parse_pin(path, &text, user_exists)
}

const KEYS: [&str; 3] = ["version", "integrity", "users"];
const USER_KEYS: [&str; 2] = ["version", "reason"];
const MAX_REASON: usize = 1000;

/// Checks the text of a pin file; `path` is only for messages.
pub fn parse_pin(path: &Path, text: &str, user_exists: &dyn Fn(&UserName) -> bool) -> Result<Pin, ConfigError> {
    let mut version = None;
    let mut integrity = None;
    // Per user: the input that named them, for messages, and what it said so far.
    let mut users: BTreeMap<UserName, (Input, Option<Version>, Option<String>)> = BTreeMap::new();
    for input in fragment::parse(path, text)? {
        match input.keys.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["version"] => version = Some(exact(&input)?),
            ["integrity"] => integrity = Some(sha512(&input)?),
            ["users"] => input.table()?,
            ["users", name] => {
                input.table()?;
                let user = known(&input, name, user_exists)?;
                users.insert(user, (input, None, None));
            }
            ["users", name, key] => {
                let held = name.parse().ok().and_then(|user: UserName| users.get_mut(&user));
                match (held, *key) {
                    (Some((_, version, _)), "version") => *version = Some(exact(&input)?),
                    (Some((_, _, reason)), "reason") => *reason = Some(words(&input)?),
                    _ => return Err(input.unknown(&USER_KEYS)),
                }
            }
            _ => return Err(input.unknown(&KEYS)),
        }
    }
    let version = version.ok_or_else(|| ConfigError {
        path: path.to_owned(),
        line: None,
        key: Some("version".to_owned()),
        problem: "is missing; write one full version such as: version = \"0.0.25\"".to_owned(),
    })?;
    let users = users.into_iter().map(|(user, (input, version, reason))| {
        let version = version
            .ok_or_else(|| input.refuse("has no version; write the one this user is to run, such as: version = \"0.0.24\""))?;
        Ok((user, UserPin { version, reason }))
    });
    Ok(Pin { version, integrity, users: users.collect::<Result<_, ConfigError>>()? })
}

fn exact(input: &Input) -> Result<Version, ConfigError> {
    input.text()?.parse().map_err(|error: crate::domain::VersionError| input.refuse(error.to_string()))
}

fn known(input: &Input, name: &str, user_exists: &dyn Fn(&UserName) -> bool) -> Result<UserName, ConfigError> {
    let user: UserName = name.parse().map_err(|error: crate::domain::UserNameError| {
        let dots = if name.is_empty() { "" } else { "; a name with a dot goes in quotes: [users.\"first.last\"]" };
        input.refuse(format!("{error}{dots}"))
    })?;
    if !user_exists(&user) {
        let hint = "; a name with a dot goes in quotes: [users.\"first.last\"]";
        return Err(input.refuse(format!("this host has no user \"{user}\"{hint}")));
    }
    Ok(user)
}

/// npm's integrity of a tarball, in the only form that npm itself still writes (Subresource Integrity, SHA-512).
fn sha512(input: &Input) -> Result<String, ConfigError> {
    let text = input.text()?;
    match text.strip_prefix("sha512-") {
        Some(digest) if is_base64_of_64_bytes(digest) => Ok(text.to_owned()),
        _ => Err(input.refuse(
            "must be \"sha512-\" and the base64 of 64 bytes (88 characters), as \"npm view t3@VERSION dist.integrity\" prints it",
        )),
    }
}

/// 64 bytes are 21 groups of three and one byte: 86 digits, of which the last carries two bits, and `==` (RFC 4648 section 4).
fn is_base64_of_64_bytes(text: &str) -> bool {
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    match text.strip_suffix("==") {
        Some(digits) => digits.len() == 86 && digits.as_bytes().iter().all(digit) && digits.ends_with(['A', 'Q', 'g', 'w']),
        None => false,
    }
}

fn words(input: &Input) -> Result<String, ConfigError> {
    let text = input.text()?;
    if text.len() > MAX_REASON || text.chars().any(char::is_control) {
        return Err(input.refuse(format!("must be one line of at most {MAX_REASON} bytes")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
