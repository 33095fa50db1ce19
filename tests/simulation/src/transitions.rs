//! The transitions of the engine's table (docs/phases.md): every phase with every cue that leads on from it or keeps it.

use std::collections::BTreeSet;

use strum::VariantArray;
use t3pin::engine::Phase;
use t3pin::engine::bump::cue::Cue;
use t3pin::engine::bump::{Course, course};

/// All of them.
pub fn all() -> BTreeSet<(Phase, Cue)> {
    let pairs = Phase::all().into_iter().flat_map(|phase| Cue::VARIANTS.iter().map(move |cue| (phase, *cue)));
    pairs.filter(|(phase, cue)| !matches!(course(*phase, *cue), Course::Ignore(_))).collect()
}
