//! What the agent remembers besides bumps: the last good pin, the freeze, the quarantine and what was said about it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FREEZE, Journal, JournalError};
use crate::domain::{AttendedTry, UnixMs, Version};
use crate::engine::attended::lifts;

/// Keys of quarantined versions begin with this.
const QUARANTINE: &str = "quarantine/";
/// Keys of versions that were cleared begin with this.
const CLEARED: &str = "cleared/";
/// Keys of versions that may be tried once more begin with this.
const ATTENDED: &str = "attended/";

/// Key of the tries that nobody asked for.
const TRIES: &str = "rollout-tries";

/// How often a rollout that had stopped was tried again unasked since the last order to enforce.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutTries {
    /// How often.
    pub count: u32,
    /// When last.
    pub at_ms: UnixMs,
}

/// The operator's stop switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// Since when.
    pub since_ms: UnixMs,
    /// Why.
    pub reason: Option<String>,
}

/// A version that failed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// Which.
    pub version: Version,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since_ms: UnixMs,
}

impl Journal {
    /// The last pin file that was good, as JSON.
    pub fn good_pin(&self) -> Result<Option<String>, JournalError> {
        self.value("good-pin")
    }

    /// Remembers a good pin file.
    pub fn set_good_pin(&self, json: &str) -> Result<(), JournalError> {
        self.put("good-pin", Some(json))
    }

    /// The pin as it was last enforced by order, as JSON.
    pub fn enforced_pin(&self) -> Result<Option<String>, JournalError> {
        self.value("enforced-pin")
    }

    /// Remembers the pin that is enforced by order.
    pub fn set_enforced_pin(&self, json: &str) -> Result<(), JournalError> {
        self.put("enforced-pin", Some(json))
    }

    /// Whether the pin that was enforced by order is not reached everywhere yet, so that somebody has to look again.
    pub fn unfinished(&self) -> Result<bool, JournalError> {
        Ok(self.value("unfinished")?.is_some())
    }

    /// Remembers it; writes only when it changes.
    pub fn set_unfinished(&self, unfinished: bool) -> Result<(), JournalError> {
        if self.unfinished()? == unfinished { Ok(()) } else { self.put("unfinished", unfinished.then_some("yes")) }
    }

    /// The freeze, if there is one.
    pub fn freeze(&self) -> Result<Option<Freeze>, JournalError> {
        Ok(self.value(FREEZE)?.map(|text| serde_json::from_str(&text)).transpose()?)
    }

    /// Sets or lifts the freeze.
    pub fn set_freeze(&self, freeze: Option<&Freeze>) -> Result<(), JournalError> {
        self.put(FREEZE, freeze.map(serde_json::to_string).transpose()?.as_deref())
    }

    /// When the pin was last enforced by order; 0 when never.
    pub fn enforced_ms(&self) -> Result<UnixMs, JournalError> {
        Ok(self.value("enforced-ms")?.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// Remembers an order to enforce.
    pub fn set_enforced_ms(&self, now_ms: UnixMs) -> Result<(), JournalError> {
        self.put("enforced-ms", Some(&now_ms.to_string()))
    }

    /// The tries since the last order to enforce that nobody asked for.
    pub fn rollout_tries(&self) -> Result<RolloutTries, JournalError> {
        Ok(self.value(TRIES)?.map(|text| serde_json::from_str(&text)).transpose()?.unwrap_or_default())
    }

    /// Remembers them; writes only when they change.
    pub fn set_rollout_tries(&self, tries: RolloutTries) -> Result<(), JournalError> {
        if self.rollout_tries()? == tries {
            return Ok(());
        }
        let text = if tries == RolloutTries::default() { None } else { Some(serde_json::to_string(&tries)?) };
        self.put(TRIES, text.as_deref())
    }

    /// All quarantined versions, the first one first.
    pub fn quarantine(&self) -> Result<Vec<Quarantine>, JournalError> {
        let inner = self.lock();
        let mut all: Vec<Quarantine> = below(&inner.facts, QUARANTINE)
            .map(|(version, value)| {
                // Whatever it says: that it is there is what counts.
                let unread = |_| Why { reason: value.clone(), since_ms: 0 };
                let Why { reason, since_ms } = serde_json::from_str(value).unwrap_or_else(unread);
                Quarantine { version, reason, since_ms }
            })
            .collect();
        all.sort_by_key(|quarantine| quarantine.since_ms);
        Ok(all)
    }

    /// Quarantines a version; the first reason stays.
    pub fn add_quarantine(&self, version: &Version, reason: &str, now_ms: UnixMs) -> Result<(), JournalError> {
        let key = format!("{QUARANTINE}{version}");
        if self.value(&key)?.is_some() {
            return Ok(());
        }
        self.put(&key, Some(&serde_json::to_string(&Why { reason: reason.to_owned(), since_ms: now_ms })?))
    }

    /// Lets a version be tried again; returns whether it was quarantined.
    pub fn clear_quarantine(&self, version: &Version, now_ms: UnixMs) -> Result<bool, JournalError> {
        let key = format!("{QUARANTINE}{version}");
        let removed = self.value(&key)?.is_some();
        let (cleared, attended) = (format!("{CLEARED}{version}"), format!("{ATTENDED}{version}"));
        self.put_all(&[(&key, None), (&cleared, Some(&now_ms.to_string())), (&attended, None)])?;
        Ok(removed)
    }

    /// A bump to `version` that was planned at `planned_ms` has soaked well: lifts the quarantine, if that speaks for it, lets
    /// whoever failed before be tried again, and has everybody looked at. Returns whether it did. May be repeated.
    pub fn vindicate(&self, version: &Version, planned_ms: UnixMs, now_ms: UnixMs) -> Result<bool, JournalError> {
        let quarantined = self.quarantine()?.into_iter().find(|quarantine| quarantine.version == *version);
        match quarantined {
            Some(quarantine) if lifts(planned_ms, quarantine.since_ms) => {
                self.set_unfinished(true)?;
                self.clear_quarantine(version, now_ms)
            }
            _ => Ok(false),
        }
    }

    /// Lets one user try a quarantined version once more.
    pub fn attend(&self, version: &Version, word: &AttendedTry) -> Result<(), JournalError> {
        self.put(&format!("{ATTENDED}{version}"), Some(&serde_json::to_string(word)?))
    }

    /// Who may try which version once more, or has tried it. What cannot be read allows nothing.
    pub fn attended(&self) -> Result<BTreeMap<Version, AttendedTry>, JournalError> {
        let inner = self.lock();
        Ok(below(&inner.facts, ATTENDED)
            .filter_map(|(version, said)| Some((version, serde_json::from_str(said).ok()?)))
            .collect())
    }

    /// When each version was last cleared.
    pub fn cleared(&self) -> Result<BTreeMap<Version, UnixMs>, JournalError> {
        let inner = self.lock();
        Ok(below(&inner.facts, CLEARED).filter_map(|(version, at_ms)| Some((version, at_ms.parse().ok()?))).collect())
    }
}

#[derive(Serialize, Deserialize)]
struct Why {
    reason: String,
    since_ms: UnixMs,
}

/// The facts about versions whose keys begin with `prefix`.
fn below<'f>(facts: &'f BTreeMap<String, String>, prefix: &'static str) -> impl Iterator<Item = (Version, &'f String)> {
    facts.iter().filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?.parse().ok()?, value)))
}
