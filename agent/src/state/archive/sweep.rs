//! Giving back the room of pages that no snapshot needs any more: the new pack first, then the recipes, then the old pack goes.

use std::collections::BTreeMap;

use super::super::StateError;
use super::pack::{self, FRAME_PAGES, PAGE, Pack, PackId, PackWriter};
use super::recipe::{Recipe, Run, extend};
use super::shelf::Shelf;
use crate::worker::files::{Deadline, Dir};

/// A pack is written anew when less than this part of it is needed, as a fraction.
const NEEDED: (usize, usize) = (2, 3);

/// Removes packs that none of `recipes` needs, and writes those anew that are needed in a small part only; the recipes concerned are
/// exchanged in their snapshots' directories. After a crash anywhere all recipes lead to packs that are there. A pack that
/// cannot be read whole is left as it is.
pub fn sweep(shelf: &Shelf, mut recipes: Vec<(Dir, Recipe)>, until: Deadline) -> Result<(), StateError> {
    for number in shelf.packs()? {
        let name = pack::file_name(number);
        let users = || recipes.iter().filter(|(_, recipe)| recipe.packs.iter().any(|id| id.number == number));
        if users().next().is_none() {
            shelf.store.unlink(&name)?;
            continue;
        }
        let Ok(old) = Pack::open(&shelf.store, number) else { continue };
        let needed = needed(&old, users().map(|(_, recipe)| recipe));
        let count = needed.iter().filter(|needed| **needed).count();
        if count * NEEDED.1 >= needed.len() * NEEDED.0 {
            continue;
        }
        until.check().map_err(shelf.store.failed("tidying up", &name))?;
        let Some((new, places)) = rewrite(shelf, &old, &needed)? else { continue };
        for (dir, recipe) in recipes.iter_mut().filter(|(_, recipe)| recipe.packs.contains(&old.id)) {
            *recipe = moved(recipe, old.id, new, &places);
            recipe.write(dir)?;
        }
        shelf.store.unlink(&name)?;
    }
    Ok(shelf.store.sync()?)
}

fn needed<'a>(pack: &Pack, recipes: impl Iterator<Item = &'a Recipe>) -> Vec<bool> {
    let mut needed = vec![false; pack.hashes().len()];
    for recipe in recipes {
        for run in recipe.files.iter().flatten() {
            if recipe.packs.get(run.pack as usize) == Some(&pack.id) {
                let pages = needed.iter_mut().skip(run.first as usize).take(run.count as usize);
                pages.for_each(|page| *page = true);
            }
        }
    }
    needed
}

/// The needed pages of `old` as a new pack, read back and compared, and where each went. `None` when `old` is damaged.
fn rewrite(shelf: &Shelf, old: &Pack, needed: &[bool]) -> Result<Option<(PackId, Vec<u32>)>, StateError> {
    let failed = || shelf.store.failed("writing", "a pack");
    let mut writer = PackWriter::new(shelf.draft_pack()?).map_err(failed())?;
    let mut places = vec![0; needed.len()];
    for frame in 0..old.frames() {
        let first = frame * FRAME_PAGES;
        if !needed.iter().skip(first).take(FRAME_PAGES).any(|needed| *needed) {
            continue;
        }
        let Ok(content) = old.frame(frame) else { return Ok(None) };
        for (at, page) in (first..).zip(content.chunks(PAGE)) {
            if let (Some(true), Some(hash), Some(place)) = (needed.get(at), old.hashes().get(at), places.get_mut(at)) {
                if pack::page_hash(page) != *hash {
                    return Ok(None);
                }
                *place = writer.push(page, *hash).map_err(failed())?;
            }
        }
    }
    writer.finish().map_err(failed())?;
    let new = shelf.keep_pack()?;
    let mut bad = false;
    (0..new.frames()).for_each(|frame| new.check_frame(frame, |_| bad = true));
    if bad {
        shelf.store.unlink(pack::file_name(new.id.number))?;
        let why = "was written anew and does not read back as it was written; the old one is kept".to_owned();
        return Err(StateError::Mismatch { path: shelf.store.path().join(pack::file_name(old.id.number)), why });
    }
    Ok(Some((new.id, places)))
}

/// `recipe` with the pages of `old` taken from `new`.
fn moved(recipe: &Recipe, old: PackId, new: PackId, places: &[u32]) -> Recipe {
    let mut next = Recipe::default();
    let mut slots = BTreeMap::new();
    for (at, id) in (0u32..).zip(&recipe.packs) {
        slots.insert(at, next.slot(if *id == old { new } else { *id }));
    }
    for runs in &recipe.files {
        let mut changed: Vec<Run> = Vec::new();
        for run in runs {
            let slot = slots.get(&run.pack).copied().unwrap_or(u32::MAX);
            if recipe.packs.get(run.pack as usize) == Some(&old) {
                for page in run.first..run.first.saturating_add(run.count) {
                    extend(&mut changed, slot, places.get(page as usize).copied().unwrap_or(u32::MAX));
                }
            } else {
                changed.push(Run { pack: slot, ..*run });
            }
        }
        next.files.push(changed);
    }
    next
}
