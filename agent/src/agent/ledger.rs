//! The journal as [`conduct`](crate::conduct) knows it.

use crate::conduct::Ledger;
use crate::domain::{UnixMs, UserName, Version};
use crate::engine::{Bump, Event};
use crate::journal::{Journal, JournalError};

impl Ledger for Journal {
    type Error = JournalError;

    fn record(&self, bump: &Bump, event: Option<&Event>, now_ms: UnixMs) -> Result<(), JournalError> {
        self.record(bump, event, now_ms)
    }

    fn is_complete(&self) -> bool {
        self.finding().is_none()
    }

    fn add_quarantine(&self, version: &Version, reason: &str, now_ms: UnixMs) -> Result<(), JournalError> {
        self.add_quarantine(version, reason, now_ms)
    }

    fn vindicate(&self, version: &Version, planned_ms: UnixMs, now_ms: UnixMs) -> Result<(), JournalError> {
        if self.vindicate(version, planned_ms, now_ms)? {
            tracing::info!(T3PIN_VERSION = %version, "{version} has soaked well here: it is no longer quarantined, and the others may get it");
        }
        Ok(())
    }

    fn open_bumps(&self) -> Result<Vec<Bump>, JournalError> {
        self.open_bumps()
    }

    fn open_bump(&self, user: &UserName) -> Result<Option<Bump>, JournalError> {
        self.open_bump(user)
    }
}
