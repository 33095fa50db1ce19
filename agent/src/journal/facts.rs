//! What the agent remembers besides bumps: the last good pin, the freeze, the quarantine.

use std::collections::BTreeMap;

use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::{Journal, JournalError, reading, writing};
use crate::domain::{UnixMs, Version};

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
        Ok(self.value("freeze")?.map(|text| serde_json::from_str(&text)).transpose()?)
    }

    /// Sets or lifts the freeze.
    pub fn set_freeze(&self, freeze: Option<&Freeze>) -> Result<(), JournalError> {
        self.put("freeze", freeze.map(serde_json::to_string).transpose()?.as_deref())
    }

    /// When the pin was last enforced by order; 0 when never.
    pub fn enforced_ms(&self) -> Result<UnixMs, JournalError> {
        Ok(self.value("enforced-ms")?.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// Remembers an order to enforce.
    pub fn set_enforced_ms(&self, now_ms: UnixMs) -> Result<(), JournalError> {
        self.put("enforced-ms", Some(&now_ms.to_string()))
    }

    /// All quarantined versions.
    pub fn quarantine(&self) -> Result<Vec<Quarantine>, JournalError> {
        let connection = self.lock();
        let mut statement =
            connection.prepare_cached("SELECT version, reason, since_ms FROM quarantine ORDER BY since_ms").map_err(reading)?;
        let rows = statement
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)))
            .map_err(reading)?
            .collect::<Result<Vec<_>, _>>()
            .map_err(reading)?;
        Ok(rows
            .into_iter()
            .filter_map(|(version, reason, since_ms)| Some(Quarantine { version: version.parse().ok()?, reason, since_ms }))
            .collect())
    }

    /// Quarantines a version; the first reason stays.
    pub fn add_quarantine(&self, version: &Version, reason: &str, now_ms: UnixMs) -> Result<(), JournalError> {
        self.lock()
            .execute(
                "INSERT OR IGNORE INTO quarantine (version, reason, since_ms) VALUES (?1, ?2, ?3)",
                params![version.to_string(), reason, now_ms],
            )
            .map(drop)
            .map_err(writing)
    }

    /// Lets a version be tried again; returns whether it was quarantined.
    pub fn clear_quarantine(&self, version: &Version, now_ms: UnixMs) -> Result<bool, JournalError> {
        let mut connection = self.lock();
        let transaction = connection.transaction().map_err(writing)?;
        let removed = transaction.execute("DELETE FROM quarantine WHERE version = ?1", [version.to_string()]).map_err(writing)?;
        transaction
            .execute("INSERT OR REPLACE INTO cleared (version, at_ms) VALUES (?1, ?2)", params![version.to_string(), now_ms])
            .map_err(writing)?;
        transaction.commit().map_err(writing)?;
        Ok(removed > 0)
    }

    /// When each version was last cleared.
    pub fn cleared(&self) -> Result<BTreeMap<Version, UnixMs>, JournalError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("SELECT version, at_ms FROM cleared").map_err(reading)?;
        let rows = statement
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))
            .map_err(reading)?
            .collect::<Result<Vec<_>, _>>()
            .map_err(reading)?;
        Ok(rows.into_iter().filter_map(|(version, at_ms)| Some((version.parse().ok()?, at_ms))).collect())
    }
}
