//! A user's name, safe to use in unit names, paths and SQL.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A Unix user name that is also a plain path component and a plain systemd instance name.
///
/// Allowed are letters, digits, `_`, `.` and `-`, at most 32 characters, not beginning with `-` or `.`
/// (systemd.unit(5): these need no escaping in an instance name; no `/`, so no path can be formed with it).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(String);

/// Why a text is not a usable user name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a user name t3pin can use (letters, digits, _ . -, at most 32 characters, not starting with - or .)")]
pub struct UserNameError(String);

impl UserName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The systemd unit of this user's server, `t3-serve@USER.service`.
    pub fn unit(&self) -> String {
        format!("t3-serve@{}.service", self.0)
    }

    /// The user whose server a unit name belongs to, if it is one of ours.
    pub fn from_unit(unit: &str) -> Option<Self> {
        unit.strip_prefix("t3-serve@")?.strip_suffix(".service")?.parse().ok()
    }
}

impl FromStr for UserName {
    type Err = UserNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if text.is_empty() || text.len() > 32 || text.starts_with(['-', '.']) || !text.chars().all(plain) {
            return Err(UserNameError(text.chars().take(64).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for UserName {
    type Error = UserNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<UserName> for String {
    fn from(user: UserName) -> Self {
        user.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn names_with_dots_and_dashes_round_trip_through_the_unit_name() {
        for name in ["alice", "emil.barzin", "a-b_c9"] {
            let user: UserName = name.parse().unwrap();
            assert_eq!(UserName::from_unit(&user.unit()), Some(user));
        }
    }

    #[test]
    fn names_that_could_form_a_path_or_an_option_are_refused() {
        for name in ["", ".", "..", "a/b", "-rf", "a b", "a\n", "ä", &"x".repeat(33)] {
            assert!(name.parse::<UserName>().is_err(), "{name:?} was taken");
        }
    }
}
