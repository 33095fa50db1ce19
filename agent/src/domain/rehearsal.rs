//! What a rehearsal found.

use serde::{Deserialize, Serialize};

use super::{Paired, ProbeReport};

/// The candidate on a copy of one user's data, in the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RehearsalReport {
    /// What the prober inside the sandbox saw.
    pub probe: ProbeReport,
    /// Migration level of the copy before the candidate opened it; `None` without a database.
    pub level_before: Option<u32>,
    /// Migration level after.
    pub level_after: Option<u32>,
    /// From the candidate's start until its descriptor answered, in ms.
    pub start_ms: u64,
    /// From the start of the copy to the end of the rehearsal, in ms.
    pub total_ms: u64,
    /// Live sessions in the copy before that are gone after: who must pair again.
    pub sessions_lost: u64,
    /// Whose they are, as far as that can be told. Nobody in records from before there was this.
    #[serde(default)]
    pub lost: Paired,
    /// Rows of the user's work that were there before and are gone after (a migration that wipes); 0 is right.
    pub work_lost: u64,
    /// `PRAGMA quick_check` of the copy after the candidate was stopped said ok.
    pub intact: bool,
    /// The last lines the candidate printed, credentials blanked.
    pub output_tail: Vec<String>,
}
