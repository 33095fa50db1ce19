//! A bump put off, and what people said about when it is to come.

use serde::{Deserialize, Serialize};

use super::UnixMs;

/// A bump put off because the instance is active or somebody said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deferral {
    /// Why, in words for the operator and the user.
    pub reason: String,
    /// Who or what put it off.
    pub owner: DeferralOwner,
    /// When it was first put off.
    pub since_ms: UnixMs,
    /// When the instance was last looked at.
    pub last_look_ms: UnixMs,
}

/// Who or what put a bump off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeferralOwner {
    /// Work in flight, or work not `quiet` ago, or activity that could not be read.
    Activity,
    /// The user said "later".
    User,
    /// An operator said "later".
    Operator,
    /// The hours in which bumps may be done.
    Window,
    /// The operator's freeze.
    Freeze,
}

/// The window is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// When it opens.
    pub opens_ms: UnixMs,
    /// The same for people, in the window's own zone: `2026-11-23 22:00 Europe/Berlin`.
    pub opens: String,
}

/// What is remembered about one user's wait for the wanted version. It outlives single bumps, which are called off and
/// planned anew when the pin moves on or a rehearsal has grown old.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// Since when the instance has been waiting; `None` while it runs what it is to run.
    #[serde(default)]
    pub since_ms: Option<UnixMs>,
    /// When operators were told that it has been waiting for too long.
    #[serde(default)]
    pub escalated_ms: Option<UnixMs>,
    /// What the user said last.
    #[serde(default)]
    pub user: Option<Said>,
    /// What an operator said last; it goes above the user's.
    #[serde(default)]
    pub operator: Option<Said>,
}

/// Something that a person said about a bump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// What.
    pub word: Word,
    /// When.
    pub at_ms: UnixMs,
    /// Who: their uid.
    pub uid: u32,
    /// Why, if they said so.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Later, or now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "word")]
pub enum Word {
    /// Not before this time.
    Later {
        /// When it ends by itself.
        until_ms: UnixMs,
    },
    /// As soon as nothing is in flight, without quiet and outside of the window, too.
    Now {
        /// Also when something is in flight.
        force: bool,
    },
}
