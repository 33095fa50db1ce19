//! After the journal was made anew: what the disk tells is compared with what the journal still says, and bumps that it has
//! lost are made out of custody, holds and bindings, always as the safer of the things that they can have been.

use std::collections::BTreeSet;

use super::{Agent, now_ms};
use crate::domain::{BumpId, UserName, Version};
use crate::engine::{Blame, Bump, Fault, Outcome, Phase, Rest, Undo};
use crate::host::instances;
use crate::journal::Finding;
use crate::state::Whereabouts;

/// What went wrong with a bump whose record was lost.
const LOST: &str = "the journal was lost in the middle of the bump";

impl Agent {
    /// Compares journal and disk when the journal had to be made anew. Part of every recovery, before anything else.
    pub async fn settle_journal(&self) {
        let Some(finding) = self.journal.finding() else { return };
        if let Err(error) = self.compare(&finding) {
            tracing::error!("what the disk tells could not be compared with the journal: {error}; the next start tries again");
        }
    }

    fn compare(&self, finding: &Finding) -> Result<(), Box<dyn std::error::Error>> {
        let held = self.vault.held()?;
        let bound = self.store.bound_users()?;
        let last = self.vault.last_bump()?;
        if let Some(last) = last {
            self.journal.reserve(last)?;
        }
        let users: BTreeSet<UserName> = held.iter().map(|(user, _)| user.clone()).chain(bound).collect();
        if finding.nothing {
            if users.is_empty() && last.is_none() {
                return Ok(self.journal.settle_finding()?);
            }
            let names: Vec<String> = users.iter().take(3).map(ToString::to_string).collect();
            self.journal
                .report_loss(&format!("users are bound to versions or have data in custody ({})", names.join(", ")), now_ms())?;
        }
        let mut unknown = vec![];
        for user in &users {
            let hold = held.iter().find(|(held, _)| held == user).map(|(_, bump)| *bump);
            if let Err(error) = self.compare_one(finding, user, hold) {
                tracing::error!(T3PIN_USER = %user, "what was under way for {user} cannot be told: {error}");
                unknown.push(user.to_string());
            }
        }
        if unknown.is_empty() {
            return Ok(self.journal.settle_finding()?);
        }
        Err(format!("nothing is known of {}", unknown.join(", ")).into())
    }

    fn compare_one(&self, finding: &Finding, user: &UserName, hold: Option<BumpId>) -> Result<(), Box<dyn std::error::Error>> {
        let open = self.journal.open_bump(user)?;
        if open.as_ref().is_some_and(|open| !finding.doubtful.contains(&open.id)) {
            return Ok(());
        }
        let Some(bound) = self.store.binding(user)? else { return Ok(()) };
        let instance = instances::of(&self.env, user)?;
        let mut custody = None;
        for seen in self.vault.custodies(&instance.place)? {
            // Custody of a bump that is over is kept for a reason, and of the others the last one counts.
            if self.journal.bump(seen.bump)?.is_none_or(|bump| !bump.is_closed()) {
                custody = Some(seen);
            }
        }
        let from = custody.as_ref().map_or(&bound, |seen| &seen.version).clone();
        let phase = shown_by_disk(hold.is_some(), custody.as_ref().map(|seen| seen.originals), bound == from);
        let bump = match (phase, open) {
            (None, None) => return Ok(()),
            (None, Some(open)) => {
                let fault = Fault { reason: format!("{LOST}; nothing of it shows on disk"), blame: Blame::Operator };
                Bump { phase: Phase::Closing(Outcome::Cancelled), fault: Some(fault), ended_ms: Some(now_ms()), ..open }
            }
            (Some(phase), open) => self.found(instance, from, &bound, phase, custody.map(|seen| seen.bump).or(hold), open)?,
        };
        tracing::warn!(
            T3PIN_USER = %user, T3PIN_BUMP = %bump.id, T3PIN_VERSION = %bump.to, T3PIN_PHASE = ?bump.phase,
            "{user}: {} was lost with the journal; what lies on disk shows that it has got to {:?}", bump.id, bump.phase
        );
        Ok(self.journal.record(&bump, None, now_ms())?)
    }

    /// The bump that the disk shows to be in `phase`.
    fn found(
        &self,
        instance: crate::domain::Instance,
        from: Version,
        bound: &Version,
        phase: Phase,
        id: Option<BumpId>,
        open: Option<Bump>,
    ) -> Result<Bump, crate::journal::JournalError> {
        let soak_ms = i64::try_from(self.settings().soak.as_millis()).unwrap_or(i64::MAX);
        let now = now_ms();
        let id = match id {
            Some(id) => id,
            None => self.journal.new_bump_id()?,
        };
        let told = open.filter(|open| open.id == id);
        let mut bump = told.unwrap_or_else(|| {
            Bump::planned(
                id,
                instance,
                from.clone(),
                bound.clone(),
                "found on disk after the journal was lost".to_owned(),
                soak_ms,
                now,
            )
        });
        bump.from = from;
        bump.phase = phase;
        // The new version may have run: whatever lies in place is kept.
        bump.ran = true;
        bump.tries = 0;
        if phase == Phase::Soaking {
            (bump.soaked_ms, bump.soak_looked_ms) = (0, Some(now));
            bump.soak_until_ms = Some(now.saturating_add(bump.soak_ms));
        } else {
            bump.fault = Some(Fault { reason: LOST.to_owned(), blame: Blame::Environment });
        }
        Ok(bump)
    }
}

/// How far a bump of which only the disk tells must be taken to have got; `None`: nothing is under way. `on_old`: the binding is
/// to the version that wrote the originals.
fn shown_by_disk(held: bool, originals: Option<Whereabouts>, on_old: bool) -> Option<Phase> {
    match (held, originals) {
        // Held: no server may run. What is in custody goes back, and what is not needs no more than its server.
        (true, Some(Whereabouts::InCustody)) => Some(Phase::RollingBack(Undo::Stopped)),
        (true, Some(Whereabouts::Back)) => Some(Phase::RollingBack(Undo::Restored)),
        (true, Some(Whereabouts::Archived) | None) => Some(Phase::RollingBack(Undo::Restarted)),
        // Let go on the new version: people may work on it. It is watched once more, for as long as a soak lasts.
        (false, Some(Whereabouts::InCustody)) if !on_old => Some(Phase::Soaking),
        // No way leads here; somebody has changed the binding by hand. Their server may be in use.
        (false, Some(Whereabouts::InCustody)) => Some(Phase::RollingBack(Undo::Quiesced { force: false, rest: Rest::Stuck })),
        (false, Some(Whereabouts::Back | Whereabouts::Archived) | None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_lost_bump_can_have_been_the_safer_is_taken() {
        use Whereabouts::{Archived, Back, InCustody};
        let back = |undo| Some(Phase::RollingBack(undo));
        for (held, originals, on_old, expected) in [
            (true, Some(InCustody), true, back(Undo::Stopped)),
            (true, Some(InCustody), false, back(Undo::Stopped)),
            (true, Some(Back), false, back(Undo::Restored)),
            (true, None, true, back(Undo::Restarted)),
            (true, Some(Archived), true, back(Undo::Restarted)),
            (false, Some(InCustody), false, Some(Phase::Soaking)),
            (false, Some(InCustody), true, back(Undo::Quiesced { force: false, rest: Rest::Stuck })),
            (false, Some(Back), true, None),
            (false, Some(Archived), false, None),
            (false, None, true, None),
        ] {
            assert_eq!(shown_by_disk(held, originals, on_old), expected, "{held} {originals:?} {on_old}");
        }
    }
}
