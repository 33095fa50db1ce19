//! New pairing links for the devices that a change of version has cost their pairing: who they are is known from before
//! ([`crate::engine::pair_again`]), each gets one link, and the database says which of the links were used.
//!
//! Links are minted as any other ([`super::mint`]): by the t3 that serves, with the same locks and limits. A link that was handed out
//! before and was not used is revoked before its device gets another. What is remembered of a link is its name, never its credential.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::handler::internal;
use super::mint::Serving;
use super::status::summary;
use super::{Agent, now_ms};
use crate::api::types::{ApiError, BumpSummary, Caller, ReissueRequest, Reissued, ReissuedLink};
use crate::domain::{Device, PairedLook, PairingTtl, Place, Reissue, UnixMs, UserName};
use crate::engine::{Bump, Missing, PairAgain, cost, pair_again, will_cost};
use crate::journal::JournalError;
use crate::worker::MintedLink;

/// Bumps that are looked at for what they have cost. A session is good for 30 days.
const BUMPS: usize = 16;
/// A look at who has paired again may take this long when a person waits for it...
const LOOK: Duration = Duration::from_secs(5);
/// ...and this long when it is only for the status...
const GLANCE: Duration = Duration::from_secs(1);
/// ...for which it is not taken more often than this.
const GLANCES: Duration = Duration::from_secs(10);
/// When one answer has taken so long, the rest is for the next: a client does not wait for ever, nor does a hand-over.
const ONE_ANSWER: Duration = Duration::from_secs(15);
/// Names of links that are remembered per device: one may have been used while it was being replaced.
const LINKS: usize = 4;

/// When it was last looked at for the status who has paired again.
#[derive(Debug, Default)]
pub struct Glances(Mutex<BTreeMap<UserName, Instant>>);

impl Glances {
    /// Whether it is time to look again; then it is noted that it was.
    fn is_due(&self, user: &UserName, now: Instant) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = all.get(user).is_none_or(|last| now.duration_since(*last) >= GLANCES);
        if due {
            all.insert(user.clone(), now);
        }
        due
    }
}

impl Agent {
    /// `POST /v1/reissue`. The caller may do this for `user`.
    pub async fn reissue(&self, caller: Caller, user: &UserName, request: &ReissueRequest) -> Result<Reissued, ApiError> {
        let known = self.pair_again(user).map_err(internal)?;
        let bound = self.store.binding(user).map_err(internal)?;
        if known.left.is_empty() && bound.is_some() {
            return Ok(told(user, None, &known, vec![], 0));
        }
        let serving = self.serving(caller, user).await?;
        let begun = Instant::now();
        self.note_used_within(user, &serving.instance.place, LOOK).await;
        let mut links = vec![];
        let mut left = 0;
        let known = self.pair_again(user).map_err(internal)?;
        let mut given = self.journal.reissues(user).map_err(internal)?;
        for missing in &known.left {
            let earlier = missing.among(&given).cloned();
            if earlier.as_ref().and_then(|earlier| earlier.links.last()).is_some_and(|link| request.kept.contains(link)) {
                continue;
            }
            if begun.elapsed() > ONE_ANSWER {
                left += 1;
                continue;
            }
            match self.give(caller, &serving, missing, earlier, request.ttl).await {
                Ok((link, reissue)) => {
                    links.push(told_link(&missing.device, link, reissue.until_ms));
                    given.retain(|given| !given.is_for(missing.bump, &missing.device));
                    given.push(reissue);
                    if let Err(error) = self.journal.set_reissues(user, &given) {
                        tracing::error!(T3PIN_USER = %user, "a link that was handed out is not remembered: {error}");
                    }
                }
                // What there is by now must not be lost to who asked; the rest says itself why it fails.
                Err(_) if !links.is_empty() => {
                    left += 1;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(told(user, Some(&serving), &known, links, left))
    }

    /// One new link for a device, in place of what it was given `earlier`.
    async fn give(
        &self,
        caller: Caller,
        serving: &Serving,
        missing: &Missing,
        earlier: Option<Reissue>,
        ttl: PairingTtl,
    ) -> Result<(MintedLink, Reissue), ApiError> {
        let at_ms = now_ms();
        let replaces = earlier.as_ref().filter(|earlier| earlier.until_ms > at_ms).and_then(|earlier| earlier.links.last());
        let link = self.mint_by(caller, serving, ttl, missing.device.link_label(), replaces.cloned()).await?;
        // What t3 says of the time is not needed to know it, and may be anything.
        let until_ms = now_ms().saturating_add(i64::from(u32::from(ttl)).saturating_mul(60_000));
        let mut names = earlier.map(|earlier| earlier.links).unwrap_or_default();
        names.push(link.id.clone());
        let links = names.split_off(names.len().saturating_sub(LINKS));
        let (bump, session) = (missing.bump, missing.device.session.clone());
        Ok((link, Reissue { bump, session, links, at_ms, until_ms, done: false }))
    }

    /// Who of `user`'s has to pair again, as far as the ledger knows.
    pub(super) fn pair_again(&self, user: &UserName) -> Result<PairAgain, JournalError> {
        let open = self.journal.open_bump(user)?;
        let closed = self.journal.closed_bumps(Some(user), BUMPS)?;
        Ok(pair_again(open.iter().chain(&closed), &self.journal.reissues(user)?, now_ms()))
    }

    /// As [`Agent::pair_again`], for the status: while links are out it is looked at now and then which were used.
    pub(super) async fn pair_again_now(&self, user: &UserName) -> PairAgain {
        let out = |known: &PairAgain| !known.left.is_empty() && self.links_are_out(user, known);
        let known = self.pair_again(user).unwrap_or_default();
        if !out(&known) || !self.glances.is_due(user, Instant::now()) {
            return known;
        }
        let Some(serving) = self.serves_now(user).await else { return known };
        self.note_used_within(user, &serving.instance.place, GLANCE).await;
        self.pair_again(user).unwrap_or(known)
    }

    fn links_are_out(&self, user: &UserName, known: &PairAgain) -> bool {
        let given = self.journal.reissues(user).unwrap_or_default();
        !known.to_ask(&given).1.is_empty()
    }

    /// Notes which of the links that are out were used. Nobody else may be minting for `user` or noting this meanwhile.
    pub(super) async fn note_used(&self, user: &UserName, place: &Place) {
        if self.pair_again(user).is_ok_and(|known| self.links_are_out(user, &known)) {
            self.note_used_within(user, place, LOOK).await;
        }
    }

    async fn note_used_within(&self, user: &UserName, place: &Place, time: Duration) {
        let noted = async {
            let known = self.pair_again(user)?;
            let given = self.journal.reissues(user)?;
            let (sessions, links) = known.to_ask(&given);
            let Some(seen) = self.paired(place, sessions, links, time).await else { return Ok(()) };
            self.journal.set_reissues(user, &noted(&known, given, &seen, now_ms()))
        };
        if let Err(error) = noted.await as Result<(), JournalError> {
            tracing::warn!(T3PIN_USER = %user, "who has paired again could not be noted: {error}");
        }
    }

    /// `bump` for the history, with how many still have to pair again because of it.
    pub(super) fn summary_of(&self, bump: &Bump) -> BumpSummary {
        let cost = cost(bump);
        let left = cost.and_then(|_| {
            let given = self.journal.reissues(bump.instance.user()).ok()?;
            Some(pair_again([bump], &given, now_ms()).left())
        });
        BumpSummary { sessions_lost: cost.map(|cost| cost.count()), to_pair_again: left, ..summary(bump) }
    }
}

/// `given`, now that the database was `seen`: whose link was used or whose session lives again is done with.
fn noted(known: &PairAgain, given: Vec<Reissue>, seen: &PairedLook, now_ms: UnixMs) -> Vec<Reissue> {
    let mut given = given;
    for Missing { bump, device } in &known.left {
        let lives = seen.still.contains(&device.session);
        match given.iter_mut().find(|given| given.is_for(*bump, device)) {
            Some(given) => given.done |= lives || given.links.iter().any(|link| seen.used.contains(link)),
            None if lives => given.push(Reissue {
                bump: *bump,
                session: device.session.clone(),
                links: vec![],
                at_ms: now_ms,
                until_ms: now_ms,
                done: true,
            }),
            None => {}
        }
    }
    // Nothing is remembered for longer than any session that it is about lives.
    const MONTHS: UnixMs = 90 * 24 * 3_600_000;
    given.retain(|given| given.at_ms.saturating_add(MONTHS) > now_ms);
    given
}

fn told(user: &UserName, serving: Option<&Serving>, known: &PairAgain, links: Vec<ReissuedLink>, left: u64) -> Reissued {
    Reissued {
        user: user.clone(),
        version: serving.filter(|_| !links.is_empty()).map(|serving| serving.version.clone()),
        lost: known.lost,
        paired_again: known.done(),
        unlisted: known.more,
        links,
        left,
    }
}

fn told_link(device: &Device, link: MintedLink, until_ms: UnixMs) -> ReissuedLink {
    let (id, credential) = (link.id, link.credential);
    ReissuedLink { device: device.name(), last_connected_ms: device.last_ms, id, credential, until_ms }
}

/// What `bump` is going to cost, for who is shown a plan.
pub fn forewarning(bump: &Bump) -> Option<String> {
    let (count, devices) = will_cost(bump)?;
    let mut names: Vec<String> = devices.devices.iter().take(3).map(Device::name).collect();
    if count > u64::try_from(names.len()).unwrap_or(u64::MAX) && !names.is_empty() {
        names.push("...".to_owned());
    }
    let who = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
    Some(match count {
        1 => format!("1 device will have to pair again{who}"),
        n => format!("{n} devices will have to pair again{who}"),
    })
}

/// The devices that the story of `bump` is about, one sentence each: before it those that will have to pair again, after it those that
/// still have to (`again`).
pub fn devices(bump: &Bump, again: &PairAgain, given: &[Reissue], now_ms: UnixMs) -> Vec<String> {
    let line = |device: &Device, out: bool| {
        let last = device.last_ms.and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
        let last = last.map_or_else(String::new, |at| format!(", last connected {}", at.strftime("%Y-%m-%d %H:%M UTC")));
        format!("{}{last}{}", device.name(), if out { "; its new link is not used yet" } else { "" })
    };
    let is_out = |missing: &Missing| missing.among(given).is_some_and(|given| given.until_ms > now_ms);
    let (mut lines, more): (Vec<String>, u64) = match will_cost(bump) {
        Some((count, lost)) => (
            lost.devices.iter().map(|device| line(device, false)).collect(),
            count.saturating_sub(u64::try_from(lost.devices.len()).unwrap_or(u64::MAX)),
        ),
        None => (again.left.iter().map(|missing| line(&missing.device, is_out(missing))).collect(), again.more),
    };
    if more > 0 {
        lines.push(format!("{more} more, of which nothing is known"));
    }
    lines
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::domain::{BumpId, Paired};
    use crate::engine::bump::sample;
    use crate::engine::{Outcome, Phase};

    const NOW: UnixMs = 1_800_000_000_000;

    fn device(session: &str, label: &str) -> Device {
        Device { session: session.to_owned(), label: Some(label.to_owned()), last_ms: Some(0), ..Device::default() }
    }

    fn given(session: &str, link: &str) -> Reissue {
        Reissue {
            bump: BumpId(1),
            session: session.to_owned(),
            links: vec![link.to_owned()],
            at_ms: NOW,
            until_ms: NOW + 1,
            done: false,
        }
    }

    fn through() -> Bump {
        let mut bump = sample(BumpId(1), "alice");
        bump.phase = Phase::Closed(Outcome::Done);
        bump.lost = Some(Paired::of([device("a", "phone"), device("b", "laptop"), device("c", "tablet")], 1));
        bump
    }

    #[test]
    fn a_used_link_and_a_session_that_lives_again_are_done_with() {
        let bump = through();
        let known = pair_again([&bump], &[given("a", "la"), given("b", "lb")], NOW);
        let seen = PairedLook { used: ["la".to_owned()].into(), still: ["c".to_owned()].into(), ..PairedLook::default() };
        let after = noted(&known, vec![given("a", "la"), given("b", "lb")], &seen, NOW);
        let left = pair_again([&bump], &after, NOW);
        assert_eq!(left.left.iter().map(|missing| missing.device.name()).collect::<Vec<_>>(), ["laptop"]);
        assert_eq!(
            devices(&bump, &left, &after, NOW),
            ["laptop, last connected 1970-01-01 00:00 UTC; its new link is not used yet", "1 more, of which nothing is known"]
        );
        assert!(noted(&known, after, &seen, NOW + 91 * 24 * 3_600_000).is_empty());
    }

    #[test]
    fn what_a_bump_will_cost_is_said_before_and_not_after() {
        let mut bump = through();
        assert_eq!(forewarning(&bump), None);
        bump.phase = Phase::Ready;
        assert_eq!(forewarning(&bump), None, "without a rehearsal nothing is known");
        let mut rehearsed = crate::api::canned::bob().rehearsal.unwrap();
        rehearsed.sessions_lost = 4;
        bump.rehearsal = Some(rehearsed);
        assert_eq!(forewarning(&bump).unwrap(), "4 devices will have to pair again (my phone, ...)");
        assert_eq!(devices(&bump, &PairAgain::default(), &[], NOW)[1], "3 more, of which nothing is known");
    }

    #[test]
    fn the_status_looks_only_now_and_then() {
        let (glances, alice, now) = (Glances::default(), "alice".parse().unwrap(), Instant::now());
        assert!(glances.is_due(&alice, now) && !glances.is_due(&alice, now) && glances.is_due(&alice, now + GLANCES));
    }
}
