//! What may be said about a pairing credential that is to be minted. It ends up among the arguments of a user's t3, so
//! nothing that could be taken for anything else gets through.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// For how long a credential is good, in whole minutes: from one minute to a day, five when nothing is said (T3-CONTRACT section 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct PairingTtl(u32);

/// What a credential is called in the user's own list: 1 to 64 printable characters, not beginning with `-`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PairingLabel(String);

/// Why something cannot be said about a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairingError {
    /// No time that can be meant.
    #[error("a pairing credential is good for 1min to 24h, in whole minutes, written as 5min or 1h")]
    Ttl,
    /// No label.
    #[error("a label has 1 to 64 printable characters and does not begin with a dash")]
    Label,
}

const DAY: u32 = 24 * 60;
const LABEL: usize = 64;

impl Default for PairingTtl {
    fn default() -> Self {
        Self(5)
    }
}

impl TryFrom<u32> for PairingTtl {
    type Error = PairingError;

    fn try_from(minutes: u32) -> Result<Self, PairingError> {
        (1..=DAY).contains(&minutes).then_some(Self(minutes)).ok_or(PairingError::Ttl)
    }
}

impl From<PairingTtl> for u32 {
    fn from(ttl: PairingTtl) -> Self {
        ttl.0
    }
}

impl FromStr for PairingTtl {
    type Err = PairingError;

    fn from_str(text: &str) -> Result<Self, PairingError> {
        let span: Duration = humantime::parse_duration(text).map_err(|_| PairingError::Ttl)?;
        let whole = span.subsec_nanos() == 0 && span.as_secs().is_multiple_of(60);
        let minutes = u32::try_from(span.as_secs() / 60).ok().filter(|_| whole).ok_or(PairingError::Ttl)?;
        Self::try_from(minutes)
    }
}

/// As t3 takes it: `5m`.
impl fmt::Display for PairingTtl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}m", self.0)
    }
}

impl PairingLabel {
    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PairingLabel {
    type Err = PairingError;

    fn from_str(text: &str) -> Result<Self, PairingError> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for PairingLabel {
    type Error = PairingError;

    fn try_from(text: String) -> Result<Self, PairingError> {
        let fits = !text.trim().is_empty() && text.chars().count() <= LABEL;
        let plain = !text.starts_with('-') && !text.chars().any(char::is_control);
        (fits && plain).then_some(Self(text)).ok_or(PairingError::Label)
    }
}

impl From<PairingLabel> for String {
    fn from(label: PairingLabel) -> Self {
        label.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn only_times_that_t3_takes_are_taken() {
        for (text, said) in [("5m", "5m"), ("5min", "5m"), ("60s", "1m"), ("1h 30min", "90m"), ("1day", "1440m")] {
            assert_eq!(text.parse::<PairingTtl>().unwrap().to_string(), said);
        }
        for text in ["", "0s", "30s", "90s", "25h", "5", "-5m", "5m; id", "100000000years"] {
            assert_eq!(text.parse::<PairingTtl>(), Err(PairingError::Ttl), "{text}");
        }
        assert!(serde_json::from_str::<PairingTtl>("0").is_err() && serde_json::from_str::<PairingTtl>("5").is_ok());
    }

    #[test]
    fn no_label_can_be_taken_for_an_option() {
        assert_eq!("phone of J\u{fc}rgen".parse::<PairingLabel>().unwrap().as_str(), "phone of J\u{fc}rgen");
        for text in ["", " ", "-x", "--base-dir=/", "a\nb", "\u{1b}[2J", &"x".repeat(65)] {
            assert_eq!(text.parse::<PairingLabel>(), Err(PairingError::Label), "{text}");
        }
    }
}
