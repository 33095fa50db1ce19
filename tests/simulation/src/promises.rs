//! The promises of DESIGN section 2, each as something to be seen on the host from outside. Nothing here asks the product.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use t3pin::engine::{Blame, Bump};

use crate::disk::{Disk, Ino, Kind};
use crate::ledger::Book;
use crate::machine::{Inner, User};
use crate::t3::{Database, Flaw, level};

/// What a file of root's holds that no trap of a user's may change.
pub const PRECIOUS: &[u8] = b"nobody but root";

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which, by its number in DESIGN.
    pub promise: u8,
    /// What was seen.
    pub what: String,
}

/// The data of a user as it lay: path in `userdata/`, content.
pub type Kept = BTreeMap<String, Rc<Vec<u8>>>;

/// What is remembered of a user's data.
#[derive(Debug, Default)]
pub struct Memory {
    /// What the last server left when it ended, and which version it was.
    pub left: Option<(String, Kept)>,
    /// What earlier versions left before a later one began, oldest first: each is what a rollback brings back.
    pub before: Vec<(String, Kept)>,
    /// Retention may have removed what is the last of these by now: it comes back as it was, or is refused.
    pub may_be_gone: bool,
    /// What was there when it was rolled back.
    pub rolled_back: Vec<Kept>,
}

/// Pages that were found in archives: unpacking the same pack again would take most of the time.
pub type ArchiveCache = BTreeMap<*const Vec<u8>, (Rc<Vec<u8>>, Pages)>;

/// Pages of users' files.
type Pages = BTreeSet<Vec<u8>>;

/// Files that SQLite makes anew by itself.
const REBUILT: &str = "state.sqlite-shm";
const ENTRIES: [&str; 6] =
    ["state.sqlite", "state.sqlite-wal", "state.sqlite-journal", "environment-id", "settings.json", "keybindings.json"];

/// The user's data as it lies in `dir`.
pub fn kept(disk: &Disk, dir: Ino) -> Kept {
    let mut kept = Kept::new();
    let file = |dir: Ino, name: &str| {
        let ino = disk.find(dir, name.as_ref()).ok()?;
        let (kind, inside, _) = disk.look(ino).ok()?;
        (kind == Kind::File).then(|| inside.data.clone())
    };
    for name in ENTRIES {
        if let Some(content) = file(dir, name) {
            kept.insert(name.to_owned(), content);
        }
    }
    if let Ok(secrets) = disk.find(dir, "secrets".as_ref())
        && let Ok(names) = disk.names(secrets)
    {
        for name in names.keys().filter_map(|name| name.to_str()) {
            if let Some(content) = file(secrets, name) {
                kept.insert(format!("secrets/{name}"), content);
            }
        }
    }
    kept
}

/// Promise 1: "Nothing is lost. At every instant, through any crash, full disk or kill, the user's data as it was before the bump
/// exists whole [...]. What B wrote is salvaged, not deleted."
///
/// While no server runs, what the last one left is somewhere; what an earlier version left before the present one began is in
/// place, in custody or in the archive; and what was there when it was rolled back is in salvage.
pub fn nothing_is_lost(disk: &Disk, users: &[User], archive: &mut ArchiveCache) -> Result<(), Broken> {
    for user in users.iter().filter(|user| !user.trapped) {
        let name = user.name();
        let mut places: Vec<Kept> = disk.at(&user.userdata()).map(|dir| kept(disk, dir)).into_iter().collect();
        let mut aside: Vec<Kept> = Vec::new();
        let custody = format!("/.t3pin/{name}");
        for bump in names(disk, &custody) {
            for part in names(disk, &format!("{custody}/{bump}")) {
                let Some(dir) = disk.at(&format!("{custody}/{bump}/{part}")) else { continue };
                match part.as_str() {
                    "original" => places.push(kept(disk, dir)),
                    part if part.starts_with("salvage") => aside.extend(set_aside(disk, dir)),
                    _ => {}
                }
            }
        }
        let lost = |what: String| Err(Broken { promise: 1, what });
        if let (None, Some((version, left))) = (&user.unit.server, &user.memory.left) {
            let missing = missing(left, places.iter().chain(&aside));
            if !missing.is_empty() && !archived(disk, name, left, archive) {
                return lost(format!("of what {version} of {name} left, {missing:?} is nowhere whole"));
            }
        }
        if let Some((version, before)) = user.memory.before.last().filter(|_| !user.memory.may_be_gone) {
            let missing = missing(before, places.iter());
            if !missing.is_empty() && !archived(disk, name, before, archive) {
                return lost(format!("of what {name} had with {version} before the bump, {missing:?} is nowhere whole"));
            }
        }
        for left in &user.memory.rolled_back {
            let missing = missing(left, aside.iter());
            if !missing.is_empty() {
                return lost(format!("of what the new version of {name} wrote, {missing:?} was not salvaged"));
            }
        }
    }
    Ok(())
}

/// Promise 1: "the user's data as it was before the bump [...] is what comes back on rollback." Promise 2: "B never opens the
/// original. The new version runs on a copy". Promise 3: "No instance ever runs version A on data that B migrated."
///
/// Looked at whenever a server opens a database: `found` in `userdata/`, which holds `kept`. Of snapshots, `keep` are kept.
pub fn opens(
    disk: &Disk,
    memory: &mut Memory,
    opened: &BTreeMap<Ino, String>,
    version: &str,
    found: Option<Ino>,
    kept: &Kept,
    keep: usize,
) -> Result<(), Broken> {
    let broken = |promise, what| Err(Broken { promise, what });
    let rows = |kept: &Kept| {
        let mut database = Database::parse(kept.get("state.sqlite")?)?;
        kept.get("state.sqlite-wal").is_none_or(|log| database.replay(log)).then_some(database.rows)
    };
    if let Some(by) = found.and_then(|ino| opened.get(&ino))
        && by != version
    {
        return broken(2, format!("{version} opens the very database that {by} has worked on"));
    }
    if let Some(content) = found.and_then(|ino| disk.look(ino).ok()).map(|(_, inside, _)| inside.data.clone())
        && let Some(database) = Database::parse(&content)
        && (database.level > level(version) || level(&database.by) > level(version))
    {
        return broken(3, format!("{version} runs on data that {} has migrated to {}", database.by, database.level));
    }
    let Some((last, left)) = memory.left.take() else { return Ok(()) };
    if last == version {
        let same = differs(&left, kept);
        memory.left = Some((last, left));
        return same.map_or(Ok(()), |path| broken(1, format!("{version} finds another {path} than it left")));
    }
    if let Some((_, before)) = memory.before.pop_if(|(before, _)| before == version) {
        memory.rolled_back.push(left);
        if keep < 2 {
            memory.may_be_gone = true;
        }
        return match differs(&before, kept) {
            Some(path) => broken(1, format!("a rollback to {version} brought back another {path} than there was")),
            None => Ok(()),
        };
    }
    if level(version) < level(&last) {
        return broken(3, format!("{version} runs on what {last} left"));
    }
    let same = rows(&left) == rows(kept) || rows(&left).is_none();
    let others = left.keys().find(|path| !path.starts_with("state.sqlite") && left.get(*path) != kept.get(*path)).cloned();
    memory.may_be_gone = false;
    memory.before.push((last.clone(), left));
    match others {
        Some(path) => broken(1, format!("{version} got another {path} than {last} left")),
        None if !same => broken(1, format!("{version} got a copy that does not hold what {last} left")),
        None => Ok(()),
    }
}

/// Promise 4: "Nobody's work is interrupted. An active instance is not restarted, and 'cannot tell' counts as active."
///
/// Looked at whenever the agent stops a unit.
pub fn may_be_stopped(user: &User) -> Result<(), Broken> {
    let in_use = user.unit.server.as_ref().is_some_and(|server| server.answers && server.handed_over);
    let broken = |what: &str| Err(Broken { promise: 4, what: format!("the server of {} was stopped {what}", user.name()) });
    match (in_use && !user.forced, user.turn, user.untold) {
        (true, true, _) => broken("in the middle of a turn"),
        (true, false, true) => broken("although it could not be told whether it was at work"),
        _ => Ok(()),
    }
}

/// Promise 5: "Health is seen from outside, by the real pairing handshake; and a check that the old version failed too does not
/// condemn the new one."
///
/// Nobody is handed a version with which nobody can pair, and no version is condemned that has no flaw.
pub fn verdicts_are_just(inner: &Inner) -> Result<(), Broken> {
    let broken = |what| Err(Broken { promise: 5, what });
    for bump in inner.book.all() {
        let flaw = inner.stage.flaw_of(&bump.to.to_string(), false);
        let shown = matches!(flaw, Flaw::Crashes | Flaw::Hangs | Flaw::PairingMoved | Flaw::WrongVersion | Flaw::Corrupts);
        let handed_over = matches!(bump.phase, t3pin::engine::Phase::Soaking | t3pin::engine::Phase::Settled);
        if shown && handed_over {
            return broken(format!("{} was handed {}, which {flaw:?}", bump.instance.user(), bump.to));
        }
    }
    for version in inner.book.quarantine().keys() {
        if inner.stage.flaw_of(version, false) == Flaw::None && !inner.misleading {
            return broken(format!("{version} is quarantined and has no flaw"));
        }
    }
    Ok(())
}

/// Promise 6: "One bad user, one bad build, no spreading. First failure stops the rollout; others keep running what they run; the
/// build is quarantined."
///
/// Looked at whenever the agent begins to do something for `bump`: nothing is begun with a version that is in quarantine, or for
/// which another bump has failed, until somebody has cleared it; but with the one user with whom an operator has it tried once more.
pub fn nothing_spreads(book: &Book, bump: &Bump) -> Result<(), Broken> {
    use t3pin::engine::Phase::{Baselined, Closed, Quiesced, Rehearsed, Seeded};
    if !matches!(bump.phase, Rehearsed | Baselined | Seeded | Quiesced) {
        return Ok(());
    }
    let failed = book.all().find(|other| {
        let condemned = other.fault.as_ref().is_some_and(|fault| fault.blame == Blame::Version);
        other.id != bump.id && other.to == bump.to && condemned && matches!(other.phase, Closed(_))
    });
    let named = book.attended.get(&bump.to).filter(|word| word.user == *bump.instance.user());
    let tried = |since| {
        let since_then = |other: &&Bump| other.ended_ms.is_some_and(|ended| ended >= since);
        book.ended().filter(since_then).any(|other| other.to == bump.to && other.instance.user() == bump.instance.user())
    };
    if named.is_some_and(|word| !tried(word.at_ms)) {
        return Ok(());
    }
    let cleared = book.cleared.contains_key(&bump.to);
    match (book.quarantine().contains_key(&bump.to.to_string()), failed.filter(|_| !cleared)) {
        (true, _) => Err(Broken { promise: 6, what: format!("{} goes on with {}, which is quarantined", bump.id, bump.to) }),
        (false, Some(other)) => {
            Err(Broken { promise: 6, what: format!("{} goes on with {}, with which {} failed", bump.id, bump.to, other.id) })
        }
        (false, None) => Ok(()),
    }
}

/// Promise 7: "It always ends somewhere sane. After any crash, restart or reboot the agent finishes or undoes what was under way
/// without being asked, and if it truly cannot, says `stuck` loudly and leaves both copies in place."
///
/// Looked at when all that was broken is whole again and the agent has had its rounds.
pub fn ended_sanely(inner: &Inner) -> Result<(), Broken> {
    let broken = |what| Err(Broken { promise: 7, what });
    for bump in inner.book.all() {
        if bump.is_under_way() {
            return broken(format!("{} is still {:?}", bump.id, bump.phase));
        }
    }
    for user in inner.users.iter().filter(|user| !user.trapped && !user.deleted) {
        let name = user.name();
        let stuck =
            inner.book.all().any(|bump| bump.instance.user().as_str() == name && bump.phase == t3pin::engine::Phase::Stuck);
        if user.unit.frozen {
            return broken(format!("the server of {name} stands still"));
        }
        if stuck {
            continue;
        }
        if inner.disk.at(&format!("/var/lib/t3pin/holds/{name}")).is_some() {
            return broken(format!("the data of {name} is held for nobody"));
        }
        match (&user.unit.server, inner.binding(name)) {
            (Some(server), Some(bound)) if server.version == bound => {}
            (Some(server), bound) => return broken(format!("{name} runs {} and is bound to {bound:?}", server.version)),
            (None, _) => return broken(format!("nothing serves {name}, and nobody says so")),
        }
    }
    Ok(())
}

/// Promise 7, too: a server whose user's bump rests can be started, after a crash or a reboot as well.
///
/// Looked at whenever a bump has been written down.
pub fn nobody_is_held_at_rest(inner: &Inner) -> Result<(), Broken> {
    use t3pin::engine::Phase::{Ready, Soaking};
    for bump in inner.book.all().filter(|bump| matches!(bump.phase, Ready | Soaking)) {
        let name = bump.instance.user();
        if inner.disk.at(&format!("/var/lib/t3pin/holds/{name}")).is_some() {
            let what = format!("{} rests in {:?}, and the server of {name} is held", bump.id, bump.phase);
            return Err(Broken { promise: 7, what });
        }
    }
    Ok(())
}

/// Promise 8: "Root trusts nothing a user owns. Paths, databases, servers and CLI output of users are hostile input."
///
/// What a trap leads to is as it was, and what lies in custody is the user's own plain files. Looked at whenever a bump goes on with what was
/// taken into custody, and at the end.
pub fn root_was_not_fooled(inner: &Inner) -> Result<(), Broken> {
    let broken = |what: String| Err(Broken { promise: 8, what });
    let precious = inner.disk.at("/etc/precious").and_then(|ino| inner.disk.look(ino).ok());
    match precious {
        Some((Kind::File, inside, _)) if inside.owner == (0, 0) && inside.mode == 0o644 && *inside.data == PRECIOUS => {}
        other => return broken(format!("a file of root's was changed through a user's trap: {other:?}")),
    }
    for user in &inner.users {
        let custody = format!("/.t3pin/{}", user.name());
        for bump in names(&inner.disk, &custody) {
            let original = format!("{custody}/{bump}/original");
            for name in names(&inner.disk, &original) {
                let Some((kind, inside, links)) =
                    inner.disk.at(&format!("{original}/{name}")).and_then(|ino| inner.disk.look(ino).ok())
                else {
                    continue;
                };
                let plain = kind != Kind::Link && inside.owner.0 == user.account.uid && (kind == Kind::Directory || links == 1);
                if !plain {
                    return broken(format!("custody of {} took in {name}, which is not the user's own", user.name()));
                }
            }
        }
    }
    Ok(())
}

fn names(disk: &Disk, path: &str) -> Vec<String> {
    let names = disk.at(path).and_then(|dir| disk.names(dir).ok());
    names.into_iter().flat_map(|names| names.keys().filter_map(|name| name.to_str().map(str::to_owned))).collect()
}

/// The files of `wanted` that are in none of `places`.
fn missing<'p>(wanted: &Kept, places: impl Iterator<Item = &'p Kept> + Clone) -> Vec<String> {
    let there = |path: &str, content: &Rc<Vec<u8>>| places.clone().any(|place| place.get(path) == Some(content));
    wanted.iter().filter(|(path, content)| !there(path, content)).map(|(path, _)| path.clone()).collect()
}

/// What lies in a salvage directory: when more than once something was set aside, the later ones have a number behind their names.
fn set_aside(disk: &Disk, dir: Ino) -> Vec<Kept> {
    let mut all = vec![kept(disk, dir)];
    let Ok(names) = disk.names(dir) else { return all };
    for name in names.keys().filter_map(|name| name.to_str()) {
        let Some((plain, _)) = name.rsplit_once('.').filter(|(_, n)| n.parse::<u32>().is_ok()) else { continue };
        let Some((kind, inside, _)) = disk.find(dir, name.as_ref()).ok().and_then(|ino| disk.look(ino).ok()) else { continue };
        if kind == Kind::File {
            all.push([(plain.to_owned(), inside.data.clone())].into());
        } else if let Some(below) = disk.find(dir, name.as_ref()).ok().and_then(|ino| disk.names(ino).ok()) {
            let files = below.iter().filter_map(|(name, ino)| Some((name.to_str()?, disk.look(*ino).ok()?.1.data.clone())));
            all.push(files.map(|(name, data)| (format!("{plain}/{name}"), data)).collect());
        }
    }
    all
}

/// The first path of `then` that is not the same `now`, or of `now` that was not there; but for what SQLite rebuilds.
fn differs(then: &Kept, now: &Kept) -> Option<String> {
    then.keys().chain(now.keys()).find(|path| *path != REBUILT && then.get(*path) != now.get(*path)).cloned()
}

/// Whether the archive has a snapshot with all these files.
fn archived(disk: &Disk, user: &str, wanted: &Kept, cache: &mut ArchiveCache) -> bool {
    let shelf = format!("/var/lib/t3pin/snapshots/{user}");
    let mut packs: Vec<*const Vec<u8>> = Vec::new();
    for pack in names(disk, &format!("{shelf}/store")).iter().filter(|name| name.starts_with('p')) {
        if let Some(content) = disk.content(&format!("{shelf}/store/{pack}")) {
            let address = Rc::as_ptr(&content);
            packs.push(address);
            cache.entry(address).or_insert_with(|| (content.clone(), unpack(&content).unwrap_or_default()));
        }
    }
    let in_pages = |content: &[u8]| {
        content.chunks(4096).all(|chunk| {
            let mut page = chunk.to_vec();
            page.resize(4096, 0);
            packs.iter().any(|pack| cache[pack].1.contains(&page))
        })
    };
    names(disk, &shelf).iter().filter(|name| name.starts_with('b') && name.len() == 7).any(|snapshot| {
        let dir = format!("{shelf}/{snapshot}");
        let Some(manifest) = disk.content(&format!("{dir}/manifest.json")) else { return false };
        let Ok(manifest) = serde_json::from_slice::<serde_json::Value>(&manifest) else { return false };
        let Some(entries) = manifest["entries"].as_array() else { return false };
        let listed = |path: &str, bytes: usize| {
            entries.iter().any(|entry| entry["path"] == path && entry["bytes"].as_u64() == Some(bytes as u64))
        };
        wanted.iter().all(|(path, content)| listed(path, content.len()) && in_pages(content))
    })
}

/// The pages of a pack: compressed frames, whose lengths are at its end.
fn unpack(pack: &[u8]) -> Option<Pages> {
    let footer = pack.len().checked_sub(48)?;
    let number = |at: usize| Some(u32::from_le_bytes(pack.get(at..at + 4)?.try_into().ok()?) as usize);
    let (frames, count) = (number(footer)?, number(footer + 4)?);
    let index = footer.checked_sub(frames * 4 + count * 16)?;
    let (mut at, mut pages) = (0, BTreeSet::new());
    for frame in 0..frames {
        let length = number(index + frame * 4)?;
        let content = zstd::bulk::decompress(pack.get(at..at + length)?, 64 * 4096).ok()?;
        pages.extend(content.chunks(4096).map(<[u8]>::to_vec));
        at += length;
    }
    Some(pages)
}
