//! Reading everything again that snapshots need, each frame once however many of them share it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::StateError;
use super::pack::{FRAME_PAGES, Pack, PackId, PageHash};
use super::put::Damage;
use super::recipe::Recipe;
use super::shelf::Shelf;
use crate::domain::StateEntry;
use crate::worker::files::Deadline;

/// What a snapshot is to be made of.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// What it is to hold.
    pub entries: &'a [StateEntry],
    /// How.
    pub recipe: &'a Recipe,
    /// See [`Recipe::pages_digest`].
    pub pages_digest: &'a str,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// For each subject, in order: `None` when it is whole, else what is wrong, for people.
    pub wrong: Vec<Option<String>>,
    /// The damaged pages.
    pub damage: Damage,
}

/// Reads and hashes every page that the subjects need. `progress` is told bytes done and bytes in all, as stored.
pub fn check(
    shelf: &Shelf,
    subjects: &[Subject<'_>],
    until: Deadline,
    mut progress: impl FnMut(u64, u64),
) -> Result<Found, StateError> {
    let needed = needed(subjects);
    let mut packs: BTreeMap<PackId, Pack> = BTreeMap::new();
    let mut unusable: BTreeMap<PackId, String> = BTreeMap::new();
    for id in needed.keys() {
        match super::fetch::open_as(shelf, *id) {
            Ok(pack) => drop(packs.insert(*id, pack)),
            Err(StateError::Mismatch { why, .. }) => drop(unusable.insert(*id, why)),
            Err(error) => return Err(error),
        }
    }
    let all = packs.values().map(Pack::bytes).sum();
    let (mut done, mut damage) = (0, Damage::new());
    for (id, pack) in &packs {
        let pages = needed.get(id).map(Vec::as_slice).unwrap_or_default();
        for frame in 0..pack.frames() {
            until.check().map_err(shelf.store.failed("reading", super::pack::file_name(id.number)))?;
            let begin = frame * FRAME_PAGES;
            let wanted = |page: usize| pages.get(page).copied().unwrap_or(false);
            if (begin..begin + FRAME_PAGES).any(wanted) {
                pack.check_frame(frame, |page| {
                    damage.entry(id.number).or_default().extend(u32::try_from(page));
                });
            }
        }
        done += pack.bytes();
        progress(done, all);
    }
    let hashes = packs.iter().map(|(id, pack)| (*id, pack.hashes())).collect();
    let wrong = subjects.iter().map(|subject| judge(subject, &hashes, &unusable, &damage)).collect();
    Ok(Found { wrong, damage })
}

/// For every pack, which of its pages the subjects need.
fn needed(subjects: &[Subject<'_>]) -> BTreeMap<PackId, Vec<bool>> {
    let mut needed: BTreeMap<PackId, Vec<bool>> = BTreeMap::new();
    for recipe in subjects.iter().map(|subject| subject.recipe) {
        for run in recipe.files.iter().flatten() {
            let Some(id) = recipe.packs.get(run.pack as usize) else { continue };
            let pages = needed.entry(*id).or_default();
            let (first, end) = (run.first as usize, run.first as usize + run.count as usize);
            if pages.len() < end {
                pages.resize(end, false);
            }
            pages.iter_mut().take(end).skip(first).for_each(|page| *page = true);
        }
    }
    needed
}

fn judge(
    subject: &Subject<'_>,
    hashes: &BTreeMap<PackId, &[PageHash]>,
    unusable: &BTreeMap<PackId, String>,
    damage: &Damage,
) -> Option<String> {
    let recipe = subject.recipe;
    if let Some(why) = recipe.packs.iter().find_map(|id| unusable.get(id)) {
        return Some(why.clone());
    }
    let Some(files) = recipe.files(subject.entries) else {
        return Some("its recipe does not fit what it is to hold".to_owned());
    };
    let is_bad = |run: &&super::recipe::Run| {
        let bad: Option<&BTreeSet<u32>> = recipe.packs.get(run.pack as usize).and_then(|id| damage.get(&id.number));
        bad.is_some_and(|bad| bad.range(run.first..run.first.saturating_add(run.count)).next().is_some())
    };
    let hit: Vec<&str> =
        files.iter().filter(|(_, runs)| runs.iter().any(|run| is_bad(&run))).map(|(entry, _)| entry.path.as_str()).collect();
    if !hit.is_empty() {
        return Some(format!("the disk lost or changed pages of {}", hit.join(", ")));
    }
    let whole = recipe.pages_digest(hashes).is_some_and(|digest| digest == subject.pages_digest);
    (!whole).then(|| "its recipe leads to other pages than were put there".to_owned())
}
