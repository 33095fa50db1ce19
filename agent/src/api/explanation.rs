//! `GET /v1/explain/USER` and `GET /v1/explain/BUMP`: the story of one bump in plain words.

use serde::{Deserialize, Serialize};

use super::types::BumpSummary;
use crate::domain::{UnixMs, UserName};

/// What happened to a user, and what it means. Every text is one or more whole sentences for people.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explanation {
    /// Whose story.
    pub user: UserName,
    /// The bump that it is about: the one asked for, or the open one, or the last one; `None` when there was none.
    pub bump: Option<BumpSummary>,
    /// What was planned, and why.
    pub planned: Option<String>,
    /// What happened, oldest first.
    pub steps: Vec<ExplainedStep>,
    /// What went wrong first.
    pub wrong: Option<String>,
    /// What the new version itself said last before that; credentials blanked.
    pub log: Vec<String>,
    /// What was done about it.
    pub done: Option<String>,
    /// The devices that will have to pair again, or still have to, one each.
    #[serde(default)]
    pub pair_again: Vec<String>,
    /// How things are now.
    pub now: String,
    /// What a person can do, one thing each.
    pub can: Vec<String>,
    /// Where the evidence lies; only root can read it, and only the privileged are told.
    pub evidence: Option<String>,
}

/// Something that happened, once or several times in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedStep {
    /// When, or when first.
    pub at_ms: UnixMs,
    /// When last.
    pub last_ms: UnixMs,
    /// How often in a row.
    pub times: u32,
    /// What.
    pub text: String,
}
