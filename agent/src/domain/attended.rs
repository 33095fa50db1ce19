//! One more try of a version that failed here.

use serde::{Deserialize, Serialize};

use super::{UnixMs, UserName};

/// An operator's word that a quarantined version may be tried once more, with one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttendedTry {
    /// With whom.
    pub user: UserName,
    /// When it was said.
    pub at_ms: UnixMs,
}
