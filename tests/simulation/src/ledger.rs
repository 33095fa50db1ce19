//! The ledger, by the rules that the product's own has: what a call that returned `Ok` wrote is there after any crash; of one that
//! failed, all is or nothing is.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use t3pin::conduct::Ledger;
use t3pin::domain::{AttendedTry, BumpId, UnixMs, UserName, Version};
use t3pin::engine::attended::lifts;
use t3pin::engine::bump::cue::{Cue, weigh};
use t3pin::engine::{Bump, Event, Phase, step};

use crate::machine::Machine;
use crate::promises;

/// What is written down.
#[derive(Debug, Default)]
pub struct Book {
    bumps: BTreeMap<BumpId, Bump>,
    /// In the order in which they ended.
    ended: Vec<BumpId>,
    quarantine: BTreeMap<String, String>,
    /// Since when each of them is.
    quarantined_ms: BTreeMap<String, UnixMs>,
    /// When versions were allowed again.
    pub cleared: BTreeMap<Version, UnixMs>,
    /// Who may try a quarantined version once more.
    pub attended: BTreeMap<Version, AttendedTry>,
    last_id: u32,
    /// Every phase with every cue that was seen to lead on from it, or to keep it.
    pub visited: BTreeSet<(Phase, Cue)>,
    /// When the pin was last enforced.
    pub enforced_ms: UnixMs,
    /// The operator's freeze.
    pub frozen: bool,
}

impl Book {
    /// All bumps.
    pub fn all(&self) -> impl Iterator<Item = &Bump> {
        self.bumps.values()
    }

    /// One bump.
    pub fn get(&self, id: BumpId) -> Option<&Bump> {
        self.bumps.get(&id)
    }

    /// The bumps that are over, the last one first.
    pub fn ended(&self) -> impl Iterator<Item = &Bump> {
        self.ended.iter().rev().filter_map(|id| self.bumps.get(id)).filter(|bump| bump.is_closed())
    }

    /// The quarantine: version and reason.
    pub fn quarantine(&self) -> &BTreeMap<String, String> {
        &self.quarantine
    }

    /// Lets a version out of quarantine.
    pub fn clear(&mut self, version: &Version, now_ms: UnixMs) {
        self.quarantine.remove(&version.to_string());
        self.attended.remove(version);
        self.cleared.insert(version.clone(), now_ms);
    }

    /// A name that no bump has had.
    pub fn new_id(&mut self) -> BumpId {
        self.last_id += 1;
        BumpId(self.last_id)
    }

    fn put(&mut self, bump: &Bump) {
        self.bumps.insert(bump.id, bump.clone());
        if bump.is_closed() {
            self.ended.retain(|id| *id != bump.id);
            self.ended.push(bump.id);
        }
    }

    /// Notes by which cue a bump got where it is, when that is how it got there.
    fn visit(&mut self, bump: &Bump, event: Option<&Event>, now_ms: UnixMs) {
        if let Some((before, event)) = self.bumps.get(&bump.id).zip(event)
            && step(before.clone(), now_ms, event.clone()).0 == *bump
        {
            self.visited.insert((before.phase, weigh(before, now_ms, event).0));
        }
    }
}

/// The ledger as the agent has it.
#[derive(Debug)]
pub struct Books(pub Rc<Machine>);

impl Books {
    fn write(&self, what: impl FnOnce() -> String, fill: impl FnOnce(&mut Book)) -> Result<(), String> {
        match self.0.ledger_call(what) {
            Some(written) => {
                if written {
                    self.0.with(|inner| fill(&mut inner.book));
                }
                Err("the journal could not be written".to_owned())
            }
            None => {
                self.0.with(|inner| fill(&mut inner.book));
                Ok(())
            }
        }
    }
}

impl Ledger for Books {
    type Error = String;

    fn record(&self, bump: &Bump, event: Option<&Event>, now_ms: UnixMs) -> Result<(), String> {
        let words = || {
            format!(
                "record {} {:?} by {}",
                bump.id,
                bump.phase,
                event.map_or_else(String::new, |e| format!("{e:?}").chars().take(150).collect())
            )
        };
        let result = self.write(words, |book| {
            book.visit(bump, event, now_ms);
            book.put(bump);
        });
        self.0.with(|inner| {
            inner.check();
            // On the way there a trap may have been taken along, and is put back; what is handed over must be the user's own.
            let handed_over =
                matches!(bump.phase, Phase::Switched | Phase::Started | Phase::Verified | Phase::Soaking | Phase::Settled);
            let fooled = if handed_over { promises::root_was_not_fooled(inner) } else { Ok(()) };
            for result in [promises::verdicts_are_just(inner), promises::nobody_is_held_at_rest(inner), fooled] {
                if let Err(broken) = result {
                    inner.broke(broken.promise, broken.what);
                }
            }
        });
        result
    }

    fn add_quarantine(&self, version: &Version, reason: &str, now_ms: UnixMs) -> Result<(), String> {
        self.write(
            || format!("quarantine {version}: {reason}"),
            |book| {
                book.quarantine.entry(version.to_string()).or_insert_with(|| {
                    book.quarantined_ms.insert(version.to_string(), now_ms);
                    reason.to_owned()
                });
            },
        )
    }

    fn vindicate(&self, version: &Version, planned_ms: UnixMs, now_ms: UnixMs) -> Result<(), String> {
        let lifted = self.0.with(|inner| {
            let book = &inner.book;
            let since = book.quarantined_ms.get(&version.to_string()).copied().unwrap_or(0);
            book.quarantine.contains_key(&version.to_string()) && lifts(planned_ms, since)
        });
        if !lifted {
            return Ok(());
        }
        self.write(|| format!("{version} is no longer quarantined"), |book| book.clear(version, now_ms))
    }

    fn open_bumps(&self) -> Result<Vec<Bump>, String> {
        Ok(self.0.with(|inner| inner.book.all().filter(|bump| !bump.is_closed()).cloned().collect()))
    }

    fn open_bump(&self, user: &UserName) -> Result<Option<Bump>, String> {
        Ok(self.open_bumps()?.into_iter().find(|bump| bump.instance.user() == user))
    }
}
