//! Names of what is kept of a user: snapshots, and what was set aside.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::BumpId;

/// A snapshot (`b000042`: the state from before that bump), or what a rollback of that bump set aside (`b000042-salvage`, and
/// `b000042-salvage-2` for the second time).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum KeptId {
    /// A snapshot.
    Snapshot(BumpId),
    /// Salvage: of which bump, and of which rollback of it, from 1.
    Salvage(BumpId, u32),
}

impl fmt::Display for KeptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot(bump) => bump.fmt(f),
            Self::Salvage(bump, 1) => write!(f, "{bump}-salvage"),
            Self::Salvage(bump, round) => write!(f, "{bump}-salvage-{round}"),
        }
    }
}

impl FromStr for KeptId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((bump, rest)) = text.split_once("-salvage") else { return text.parse().map(Self::Snapshot) };
        let round = match rest.strip_prefix('-') {
            None if rest.is_empty() => Some(1),
            None => None,
            Some(round) => round.parse().ok().filter(|round| *round > 1),
        };
        let wrong = || "is not the name of anything kept (b000042, b000042-salvage, b000042-salvage-2)".to_owned();
        Ok(Self::Salvage(bump.parse()?, round.ok_or_else(wrong)?))
    }
}

impl TryFrom<String> for KeptId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<KeptId> for String {
    fn from(id: KeptId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_shown() {
        for id in [KeptId::Snapshot(BumpId(42)), KeptId::Salvage(BumpId(42), 1), KeptId::Salvage(BumpId(7), 12)] {
            assert_eq!(id.to_string().parse::<KeptId>().unwrap(), id);
        }
        for wrong in ["", "b42", "b000042-salvage-1", "b000042-salvage-x", "b000042-salvages", "../b000042", "b000042-salvage/"] {
            assert!(wrong.parse::<KeptId>().is_err(), "{wrong}");
        }
    }
}
