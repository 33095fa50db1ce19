//! One attended try of a quarantined version: an operator names one user who gets it once more, while everybody else stays held back.
//! When that bump has soaked well the quarantine is lifted by itself and the others follow; when it has not, all is as before.

use super::rollout::{HostView, InstanceView};
use crate::domain::UnixMs;

/// Whether `instance` may be given what it is pinned to although that is quarantined, or failed here before. The word is spent when
/// a bump of this user to that version has ended since; one from the future, from before the clock was set back, does not count.
pub fn is_attended(view: &HostView, instance: &InstanceView) -> bool {
    let Some(word) = view.attended.get(&instance.wanted) else { return false };
    let spent = instance.tried.as_ref().and_then(|tried| tried.ended_ms).is_some_and(|ended| ended >= word.at_ms);
    word.user == instance.user && word.at_ms <= view.now_ms && !spent
}

/// Whether a bump that was planned at `planned_ms` and has soaked well speaks for a version that is in quarantine since `since_ms`: it must have
/// begun after that was known. One that was under way by then only shows that not everybody is hit.
pub fn lifts(planned_ms: UnixMs, since_ms: UnixMs) -> bool {
    planned_ms > since_ms
}

#[cfg(test)]
#[path = "attended_tests.rs"]
mod tests;
