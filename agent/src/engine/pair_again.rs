//! Who has to pair again because of the bumps that a user went through, and who has done so.
//!
//! Every bump that stands keeps the sessions that it has cost; the new links that were handed out for them are kept apart
//! ([`Reissue`]), as a session that was lost at one bump may still be missing after the next. One that was rolled back has cost nobody
//! anything, and a session that would have expired by now is nobody's loss any more.

use std::collections::BTreeSet;

use super::{Bump, Outcome, Phase};
use crate::domain::{BumpId, Device, Paired, Reissue, UnixMs};

/// How long a session is good, in ms (T3-CONTRACT section 2): of one that is not known by itself no more is known.
const SESSION: UnixMs = 30 * 24 * 3_600_000;

/// A device that has not paired again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What has cost it its pairing.
    pub bump: BumpId,
    /// It.
    pub device: Device,
}

impl Missing {
    /// What it was given of `given`.
    pub fn among<'g>(&self, given: &'g [Reissue]) -> Option<&'g Reissue> {
        given.iter().find(|given| given.is_for(self.bump, &self.device))
    }
}

/// Where a user's devices are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PairAgain {
    /// Those that have not paired again, as far as is known.
    pub left: Vec<Missing>,
    /// How many were lost, known one by one.
    pub lost: u64,
    /// How many were lost besides; whether they have paired again nobody can tell.
    pub more: u64,
}

impl PairAgain {
    /// How many have paired again.
    pub fn done(&self) -> u64 {
        self.lost.saturating_sub(count(&self.left))
    }

    /// How many have not.
    pub fn left(&self) -> u64 {
        count(&self.left)
    }

    /// The sessions and the links that a look at the database may tell more of.
    pub fn to_ask(&self, given: &[Reissue]) -> (Vec<String>, Vec<String>) {
        let sessions = self.left.iter().map(|missing| missing.device.session.clone()).collect();
        let links = self.left.iter().filter_map(|missing| missing.among(given)).flat_map(|given| given.links.clone()).collect();
        (sessions, links)
    }
}

/// What `bumps` of one user have cost, the newest first, with `given` for it.
pub fn pair_again<'b>(bumps: impl IntoIterator<Item = &'b Bump>, given: &[Reissue], now_ms: UnixMs) -> PairAgain {
    let mut all = PairAgain::default();
    let mut seen = BTreeSet::new();
    for (bump, ended_ms, lost) in bumps.into_iter().filter_map(|bump| Some((bump.id, bump.ended_ms, cost(bump)?))) {
        if ended_ms.is_none_or(|ended| now_ms.saturating_sub(ended) < SESSION) {
            all.more = all.more.saturating_add(lost.more);
        }
        for device in lost.devices.iter().filter(|device| !device.has_expired(now_ms)) {
            if !seen.insert(device.session.as_str()) {
                continue;
            }
            all.lost += 1;
            let missing = Missing { bump, device: device.clone() };
            if !missing.among(given).is_some_and(|given| given.done) {
                all.left.push(missing);
            }
        }
    }
    all
}

/// The sessions that a bump has cost; `None` while it has not been through, or was undone.
pub fn cost(bump: &Bump) -> Option<&Paired> {
    match bump.phase {
        Phase::Soaking | Phase::Settled | Phase::Closing(Outcome::Done) | Phase::Closed(Outcome::Done) => {
            // Where it could not be confirmed, what the rehearsal found is the best there is.
            bump.lost.as_ref().or(bump.rehearsal.as_ref().map(|rehearsal| &rehearsal.lost))
        }
        _ => None,
    }
}

/// The sessions that a bump is going to cost, as its rehearsal says.
pub fn will_cost(bump: &Bump) -> Option<(u64, &Paired)> {
    let rehearsal = bump.rehearsal.as_ref().filter(|rehearsal| rehearsal.sessions_lost > 0)?;
    let to_come = matches!(
        bump.phase,
        Phase::Planned | Phase::Rehearsed | Phase::Ready | Phase::Baselined | Phase::Seeded | Phase::Quiesced
    );
    to_come.then_some((rehearsal.sessions_lost, &rehearsal.lost))
}

fn count(missing: &[Missing]) -> u64 {
    u64::try_from(missing.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::engine::bump::sample;

    fn lost(ids: &[&str], phase: Phase) -> Bump {
        let device = |id: &&str| Device { session: (*id).to_owned(), expires_ms: Some(100), ..Device::default() };
        let mut bump = sample(BumpId(1), "alice");
        bump.phase = phase;
        bump.lost = Some(Paired::of(ids.iter().map(device), 1));
        bump
    }

    fn given(session: &str, done: bool) -> Reissue {
        Reissue {
            bump: BumpId(1),
            session: session.to_owned(),
            links: vec![format!("link-{session}")],
            at_ms: 1,
            until_ms: 2,
            done,
        }
    }

    #[test]
    fn what_several_bumps_have_cost_is_counted_once_and_less_what_has_paired_again() {
        let bumps = [
            lost(&["b", "c"], Phase::Soaking),
            lost(&["undone"], Phase::Closed(Outcome::RolledBack)),
            lost(&["a", "b"], Phase::Closed(Outcome::Done)),
        ];
        let all = pair_again(&bumps, &[given("a", true), given("c", false)], 50);
        assert_eq!((all.lost, all.done(), all.left(), all.more), (3, 1, 2, 2));
        assert_eq!(
            all.to_ask(&[given("a", true), given("c", false)]),
            (vec!["b".to_owned(), "c".to_owned()], vec!["link-c".to_owned()])
        );
        let mut long_ago = lost(&[], Phase::Closed(Outcome::Done));
        long_ago.ended_ms = Some(0);
        assert_eq!((pair_again([&long_ago], &[], 0).more, pair_again([&long_ago], &[], SESSION).more), (1, 0));
        assert_eq!(pair_again(&bumps, &[], 100).lost, 0, "they would have had to pair again anyway");
    }

    #[test]
    fn what_a_bump_has_cost_that_was_undone_may_be_lost_once_more() {
        let (undone, mut again) = (lost(&["a"], Phase::Closed(Outcome::RolledBack)), lost(&["a"], Phase::Soaking));
        again.id = BumpId(2);
        let all = pair_again([&again, &undone], &[given("a", true)], 0);
        assert_eq!((all.left[0].bump, all.left(), all.done()), (BumpId(2), 1, 0), "it has paired again after another bump");
    }

    #[test]
    fn a_record_from_before_there_was_this_has_cost_nobody_anything() {
        let mut old = serde_json::to_value(lost(&["a"], Phase::Closed(Outcome::Done))).unwrap();
        for field in ["lost", "paired"] {
            old.as_object_mut().unwrap().remove(field);
        }
        let old: Bump = serde_json::from_value(old).unwrap();
        assert_eq!(pair_again([&old], &[], 0), PairAgain::default());
    }
}
