//! A rollout that has stopped: a bump to the version failed for a fault of the host's, so that nobody else gets it until it is tried again.
//!
//! It is tried again by order, or unasked and ever more rarely ([`super::patience`]); what failed before that try counts no more.

use super::bump::Bump;
use super::fault::Blame;
use super::phase::Phase;
use super::rollout::{HostView, InstanceView};
use crate::domain::{UnixMs, Version};

/// Why nobody else gets `version` until the next try.
pub fn stopped_rollout(view: &HostView, version: &Version) -> Option<String> {
    failures(view, version).find_map(|failure| {
        let fault = failure.fault.as_ref()?;
        Some(format!("{} ({})", fault.reason, failure.instance.user()))
    })
}

/// When the last of those failures was that hold somebody up and that another try may mend: a fault of the host's, a rehearsal that could not
/// tell, an install that did not work, no room for all. `None` when there is nothing to try again. Never for a version that is quarantined.
pub fn halted_ms(view: &HostView) -> Option<UnixMs> {
    if view.frozen.is_some() {
        return None;
    }
    view.instances.iter().filter_map(|instance| halted(view, instance)).max()
}

/// Whether the last bump of this instance to what it is pinned to failed, for whatever reason but an operator's word.
pub fn failed_before(instance: &InstanceView) -> bool {
    let fault = instance.tried.as_ref().and_then(|tried| tried.fault.as_ref());
    fault.is_some_and(|fault| fault.blame != Blame::Operator)
}

/// Whether a bump failed after the last order to enforce, or the last try. Times in the future are from before the clock was set back,
/// so that neither they nor what is measured by them can hold anybody back until they come round again.
pub fn since_enforced(view: &HostView, last: &Bump) -> bool {
    let order = if view.enforced_ms > view.now_ms { 0 } else { view.enforced_ms };
    failed_ms(last).is_some_and(|failed| (order..=view.now_ms).contains(&failed))
}

/// Whether the operator allowed the version again after the bump had ended; a word from the future does not count.
pub fn cleared_since(view: &HostView, last: &Bump) -> bool {
    let cleared = view.cleared.get(&last.to).filter(|at| **at <= view.now_ms);
    let ended = last.ended_ms.filter(|at| *at <= view.now_ms);
    cleared > ended.as_ref()
}

fn halted(view: &HostView, instance: &InstanceView) -> Option<UnixMs> {
    let wanted = &instance.wanted;
    let may_come = instance.bound.as_ref().is_some_and(|bound| bound != wanted) && !instance.unenforced && !instance.stopped;
    // What is stuck is tried again in its own time.
    let stuck = instance.open.as_ref().is_some_and(|open| open.phase == Phase::Stuck);
    if !may_come || stuck || instance.problem.is_some() || view.quarantine.contains_key(wanted) {
        return None;
    }
    let own = instance.tried.iter().filter(|last| {
        since_enforced(view, last)
            && !cleared_since(view, last)
            && last.fault.as_ref().is_some_and(|fault| fault.blame == Blame::User)
    });
    let failed = failures(view, wanted).chain(own).filter_map(failed_ms).max();
    failed.or_else(|| (view.uninstallable.contains_key(wanted) || view.cramped.is_some()).then_some(view.enforced_ms))
}

/// The bumps to `version` that failed for a fault of the host's since the last try: those that are over, and those that are stuck.
fn failures<'v>(view: &'v HostView, version: &'v Version) -> impl Iterator<Item = &'v Bump> {
    let all = view.instances.iter().flat_map(|instance| {
        let stuck = instance.open.iter().filter(|open| open.phase == Phase::Stuck);
        instance.last.iter().chain(&instance.tried).chain(stuck)
    });
    all.filter(|bump| {
        bump.to == *version
            && since_enforced(view, bump)
            && bump.fault.as_ref().is_some_and(|fault| fault.blame == Blame::Environment)
    })
}

/// When a bump failed. One that is stuck has not ended: it began to go wrong soon after it had begun.
fn failed_ms(bump: &Bump) -> Option<UnixMs> {
    bump.ended_ms.or(bump.begun_ms.filter(|_| bump.phase == Phase::Stuck))
}
