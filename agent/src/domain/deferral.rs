//! A bump put off.

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
    /// The operator's freeze.
    Freeze,
}
