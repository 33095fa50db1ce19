//! What went wrong with a bump, and what that means for the others.

use serde::{Deserialize, Serialize};

/// What went wrong, and whose fault it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What happened, for the operator.
    pub reason: String,
    /// Whose fault it is.
    pub blame: Blame,
}

/// Whose fault it is, which decides what follows for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    /// The new version: quarantined, nobody else gets it.
    Version,
    /// This user's data or settings: the others go on.
    User,
    /// The host: the rollout stops until the next enforcement, nothing is condemned.
    Environment,
    /// A person wanted it.
    Operator,
}
