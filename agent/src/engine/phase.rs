//! Where a bump stands: its phases, the steps of its rollback, where it rests and how it ends.

use serde::{Deserialize, Serialize};
use strum::{EnumDiscriminants, VariantArray};

/// The phases of DESIGN section 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, EnumDiscriminants)]
#[strum_discriminants(derive(VariantArray), name(PhaseName), vis(pub(self)), doc = "The phases without what is inside them.")]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Nothing was done yet; waits for the rollout.
    Planned,
    /// The new version on a copy, in the sandbox.
    Rehearsed,
    /// Rehearsed well; waits for its turn, or for the user to be idle.
    Ready,
    /// The probe on the running old version.
    Baselined,
    /// Copied beside the running server.
    Seeded,
    /// Frozen, looked at again, held, stopped.
    Quiesced,
    /// The copy brought up to the last write, original in custody.
    Secured,
    /// Copy in place, binding to the new version.
    Switched,
    /// Let go and started.
    Started,
    /// Probed from outside.
    Verified,
    /// In use, and watched.
    Soaking,
    /// Custody becomes an archived snapshot.
    Settled,
    /// On the way back.
    RollingBack(Undo),
    /// Could neither be finished nor undone; both copies are in place.
    Stuck,
    /// Tidying up before the end.
    Closing(Outcome),
    /// Over.
    Closed(Outcome),
}

impl Phase {
    /// Every phase there is, in the order of a bump. A new one does not compile until it is in here.
    pub fn all() -> Vec<Phase> {
        let outcomes = |phase: fn(Outcome) -> Phase| Outcome::VARIANTS.iter().copied().map(phase).collect();
        let of = |name: &PhaseName| match name {
            PhaseName::Planned => vec![Phase::Planned],
            PhaseName::Rehearsed => vec![Phase::Rehearsed],
            PhaseName::Ready => vec![Phase::Ready],
            PhaseName::Baselined => vec![Phase::Baselined],
            PhaseName::Seeded => vec![Phase::Seeded],
            PhaseName::Quiesced => vec![Phase::Quiesced],
            PhaseName::Secured => vec![Phase::Secured],
            PhaseName::Switched => vec![Phase::Switched],
            PhaseName::Started => vec![Phase::Started],
            PhaseName::Verified => vec![Phase::Verified],
            PhaseName::Soaking => vec![Phase::Soaking],
            PhaseName::Settled => vec![Phase::Settled],
            PhaseName::RollingBack => Undo::all().into_iter().map(Phase::RollingBack).collect(),
            PhaseName::Stuck => vec![Phase::Stuck],
            PhaseName::Closing => outcomes(Phase::Closing),
            PhaseName::Closed => outcomes(Phase::Closed),
        };
        PhaseName::VARIANTS.iter().flat_map(of).collect()
    }
}

/// The steps of a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, EnumDiscriminants)]
#[strum_discriminants(derive(VariantArray), name(UndoName), vis(pub(self)), doc = "The steps without what is inside them.")]
#[serde(rename_all = "kebab-case")]
pub enum Undo {
    /// Asked for by a person: as careful with activity as a bump.
    Quiesced {
        /// Even when active.
        force: bool,
        /// Where it goes on when the instance is busy.
        rest: Rest,
    },
    /// The new version stopped.
    Stopped,
    /// The original back, binding to the old version.
    Restored,
    /// The old version started.
    Restarted,
    /// The old version probed.
    Rechecked,
}

impl Undo {
    fn all() -> Vec<Undo> {
        let of = |name: &UndoName| match name {
            UndoName::Quiesced => {
                let both = |rest: &Rest| [false, true].map(|force| Undo::Quiesced { force, rest: *rest });
                Rest::VARIANTS.iter().flat_map(both).collect()
            }
            UndoName::Stopped => vec![Undo::Stopped],
            UndoName::Restored => vec![Undo::Restored],
            UndoName::Restarted => vec![Undo::Restarted],
            UndoName::Rechecked => vec![Undo::Rechecked],
        };
        UndoName::VARIANTS.iter().flat_map(of).collect()
    }
}

/// Where a bump rests when nothing is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, VariantArray)]
#[serde(rename_all = "kebab-case")]
pub enum Rest {
    /// In its soak.
    Soaking,
    /// Done.
    Done,
    /// Stuck.
    Stuck,
}

/// How a bump ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, VariantArray)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The instance runs the new version.
    Done,
    /// The instance runs the old version on the old data.
    RolledBack,
    /// The rehearsal failed; the user was not touched.
    Refused,
    /// Called off; the user was not touched.
    Cancelled,
}
