//! An exact `t3` version.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One exact semantic version of `t3`, for instance `0.0.25` or `0.0.29-nightly.20260720.1`.
///
/// Ranges (`^0.0.25`, `0.0.x`) and dist-tags (`latest`) cannot be represented. Build metadata (`+...`) is refused,
/// because npm ignores it and two different pins would then name one package. Ordering is semver precedence.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(semver::Version);

/// Why a text is not an exact version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not an exact version ({why}); write one full version such as \"0.0.25\", no range and no dist-tag")]
pub struct VersionError {
    text: String,
    why: String,
}

impl Version {
    /// Whether moving from `self` to `other` goes to an older version.
    pub fn is_newer_than(&self, other: &Version) -> bool {
        self > other
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |why: &str| VersionError { text: text.chars().take(64).collect(), why: why.to_owned() };
        if text.len() > 64 {
            return Err(refuse("longer than 64 characters"));
        }
        let parsed = semver::Version::parse(text).map_err(|error| refuse(&error.to_string()))?;
        if !parsed.build.is_empty() {
            return Err(refuse("build metadata is not part of an npm version"));
        }
        Ok(Self(parsed))
    }
}

impl TryFrom<String> for Version {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.0.to_string()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn exact_versions_are_taken_and_printed_unchanged() {
        for text in ["0.0.24", "1.2.3", "0.0.29-nightly.20260720.1"] {
            assert_eq!(text.parse::<Version>().map(|v| v.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn ranges_tags_and_build_metadata_are_refused() {
        for text in ["^0.0.25", "~0.0.25", "0.0.x", "0.0", "latest", "", "v0.0.25", "0.0.25+1", " 0.0.25", "../0.0.25"] {
            assert!(text.parse::<Version>().is_err(), "{text} was taken");
        }
    }

    #[test]
    fn a_prerelease_is_older_than_its_release() {
        let (a, b): (Version, Version) = ("0.0.29-nightly.1".parse().unwrap(), "0.0.29".parse().unwrap());
        assert!(b.is_newer_than(&a));
    }
}
