//! Names of bumps.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of one bump: a journal number printed as `b000042`. Safe as a path component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BumpId(pub u32);

impl fmt::Display for BumpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{:06}", self.0)
    }
}

impl FromStr for BumpId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix('b')
            .filter(|digits| digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| format!("\"{}\" is not the name of a bump (b000042)", text.chars().take(32).collect::<String>()))
    }
}

impl TryFrom<String> for BumpId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BumpId> for String {
    fn from(id: BumpId) -> Self {
        id.to_string()
    }
}
