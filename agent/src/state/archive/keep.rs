//! From custody to a snapshot, and from a snapshot to files again.

use super::super::custody::Manifest;
use super::super::secure::refuse_changed_whole;
use super::super::snapshot::{self, Kept};
use super::super::vault_dirs::{own_uid, private_dir};
use super::super::{StateError, Vault};
use super::check::{Subject, check};
use super::put::{Damage, Put, put};
use super::recipe::Recipe;
use super::shelf::{DRAFT, Shelf};
use super::{fetch, raw};
use crate::domain::{EntryKind, StateEntry, copied_entries};
use crate::worker::files::{Deadline, Dir, hash_file, remove_tree};

/// Makes the snapshot of what lies in custody's `original`, having seen before and after that it is what was taken, and reads it back.
/// When this returns it is whole on disk, so that the original may go. One that is there already is kept when it holds the
/// same and is whole, else exchanged.
pub fn make(vault: &Vault, shelf: &Shelf, manifest: &Manifest, original: &Dir, until: Deadline) -> Result<Kept, StateError> {
    refuse_changed_whole(original, manifest)?;
    let put = put_whole(shelf, original, manifest.uid, until)?;
    refuse_changed_whole(original, manifest)?;
    let mut snapshot = snapshot::to_be(vault, manifest);
    let there = snapshot::load(shelf, snapshot.id).ok().flatten();
    if let Some(there) = there
        && there.snapshot.entries == put.entries
        && there.snapshot.version == snapshot.version
        && verify(shelf, std::slice::from_ref(&there), until, |_, _| ())?.iter().all(Option::is_none)
    {
        return Ok(there);
    }
    snapshot.bytes = put.entries.iter().map(|entry| entry.bytes).sum();
    snapshot.entries = put.entries;
    let kept = Kept {
        uid: Some(manifest.uid),
        environment_id: manifest.environment_id.clone(),
        pages_digest: Some(put.pages_digest),
        with_attachments: manifest.with_attachments,
        snapshot,
    };
    publish(shelf, &kept, &put.recipe)?;
    kept.note_verified(shelf, None);
    Ok(kept)
}

/// Puts it and reads it back. Pages that it would share with earlier snapshots and that turn out to be damaged are stored anew.
fn put_whole(shelf: &Shelf, original: &Dir, owner: u32, until: Deadline) -> Result<Put, StateError> {
    let mut avoid = Damage::new();
    loop {
        let put = put(shelf, original, &copied_entries(), owner, &avoid, until)?;
        let subject = Subject { entries: &put.entries, recipe: &put.recipe, pages_digest: &put.pages_digest };
        let found = check(shelf, &[subject], until, |_, _| ())?;
        let Some(wrong) = found.wrong.into_iter().flatten().next() else { return Ok(put) };
        let fresh = found.damage.iter().any(|(pack, pages)| avoid.get(pack).is_none_or(|known| !pages.is_subset(known)));
        if !avoid.is_empty() || !fresh {
            let why = format!("what was just written cannot be read back ({wrong}); the original is kept where it is");
            return Err(StateError::Mismatch { path: shelf.store.path().to_owned(), why });
        }
        tracing::warn!(
            T3PIN_USER = %shelf.user,
            "earlier snapshots of {} are damaged ({wrong}); the new one is not built on them. See t3pin snapshots verify", shelf.user
        );
        avoid = found.damage;
    }
}

/// Gives the snapshot its name, atomically, in place of one that is there.
fn publish(shelf: &Shelf, kept: &Kept, recipe: &Recipe) -> Result<(), StateError> {
    let name = kept.snapshot.id.to_string();
    let draft = format!("{name}{DRAFT}");
    remove_tree(&shelf.dir, &draft)?;
    let dir = private_dir(&shelf.dir, &draft)?;
    recipe.write(&dir)?;
    kept.write(&dir)?;
    if shelf.dir.stat(&name)?.is_some() {
        shelf.dir.exchange(&draft, &name)?;
        shelf.dir.sync()?;
        remove_tree(&shelf.dir, &draft)?;
    } else {
        shelf.dir.move_to(&draft, &shelf.dir, &name)?;
        shelf.dir.sync()?;
    }
    Ok(())
}

/// Reads everything that the snapshots hold, and notes with each what was found: `None` when it is whole, else what is wrong.
/// `progress` is told bytes done and bytes in all.
pub fn verify(
    shelf: &Shelf,
    all: &[Kept],
    until: Deadline,
    mut progress: impl FnMut(u64, u64),
) -> Result<Vec<Option<String>>, StateError> {
    let recipes: Vec<Result<Recipe, String>> = all.iter().map(|kept| recipe(shelf, kept).map_err(|e| e.to_string())).collect();
    let packed = |kept: &Kept| kept.pages_digest.is_some();
    let subjects: Vec<Subject<'_>> = all
        .iter()
        .zip(&recipes)
        .filter(|(kept, _)| packed(kept))
        .filter_map(|(kept, recipe)| {
            let (entries, pages_digest) = (&kept.snapshot.entries, kept.pages_digest.as_deref()?);
            Some(Subject { entries, recipe: recipe.as_ref().ok()?, pages_digest })
        })
        .collect();
    let mut found = check(shelf, &subjects, until, &mut progress)?.wrong.into_iter();
    let mut results = Vec::new();
    for (kept, recipe) in all.iter().zip(&recipes) {
        let wrong = match recipe {
            Ok(_) if packed(kept) => found.next().flatten(),
            Err(why) if packed(kept) => Some(why.clone()),
            _ => match raw::verify(shelf, kept, until) {
                Ok(()) => None,
                Err(error @ (StateError::Mismatch { .. } | StateError::BadPath { .. })) => Some(error.to_string()),
                Err(error) => return Err(error),
            },
        };
        kept.note_verified(shelf, wrong.as_deref());
        results.push(wrong);
    }
    Ok(results)
}

/// Makes those files of a snapshot again that `wanted` wants, in the empty directory `to` (root's, 0600 and 0700, not synced), and
/// reads them back: [`StateError::Mismatch`] unless every one is what was taken, byte for byte.
pub fn unpack(
    shelf: &Shelf,
    kept: &Kept,
    wanted: impl Fn(&StateEntry) -> bool,
    to: &Dir,
    until: Deadline,
) -> Result<(), StateError> {
    if kept.pages_digest.is_some() {
        fetch::fetch(shelf, &kept.snapshot.entries, &recipe(shelf, kept)?, &wanted, to, until)?;
    } else {
        raw::fetch(shelf, kept, &wanted, to, until)?;
    }
    for entry in kept.snapshot.entries.iter().filter(|entry| entry.kind == EntryKind::File && wanted(entry)) {
        let (holder, name) = to.holder(&entry.path)?;
        if hash_file(&holder, name, own_uid(), until)? != (entry.bytes, entry.blake3.clone()) {
            let why = format!(
                "{} does not have the content that was taken: the disk lost or changed it; it is not restored",
                entry.path
            );
            return Err(StateError::Mismatch { path: kept.snapshot.path.clone(), why });
        }
    }
    Ok(())
}

/// How a packed snapshot is made.
pub fn recipe(shelf: &Shelf, kept: &Kept) -> Result<Recipe, StateError> {
    let dir = kept.dir(shelf)?;
    let missing = || StateError::Mismatch { path: dir.path().join(super::recipe::RECIPE), why: "is missing".to_owned() };
    Recipe::read(&dir)?.ok_or_else(missing)
}
