//! Is this instance busy? Looks as the user (database) and as root (`/proc` of the unit's cgroup).
//!
//! Unreadable, locked, unknown schema, timed out: [`Activity::Unknown`], which counts as busy (promise 4).

use std::time::Duration;

use crate::domain::{Activity, Place};

/// One look. `control_group` is the unit's (`UnitState::control_group`), for terminal jobs; empty skips them.
/// Never fails: what cannot be told is an answer.
pub async fn look(place: &Place, control_group: &str, deadline: Duration) -> Activity {
    let _ = (place, control_group, deadline);
    unimplemented!()
}
