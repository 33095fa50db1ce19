//! What is done first at every start: finish or undo what was under way, through the same engine.

use super::Agent;
use crate::conduct;
use crate::kill_point::{self, Point};

impl Agent {
    /// Finishes or undoes every open bump, tries again what was stuck, lets go of data that nobody works on, removes what a dead agent left behind.
    pub async fn recover(&self) {
        self.board.set_doing("recovering", "looking for what was under way".to_owned());
        self.release_left_over().await;
        kill_point::reach(None, Point::Amid("recovery-begun"));
        self.settle_journal().await;
        let stuck = self.stuck();
        Box::pin(conduct::recover(self)).await;
        self.retry(stuck).await;
        kill_point::reach(None, Point::Amid("recovery-left-over"));
        self.settle_left_over().await;
        if let Err(error) = self.store.clean_half_made() {
            tracing::warn!("half-made versions could not be removed: {error}");
        }
        kill_point::reach(None, Point::Amid("recovery-done"));
        self.journal.confirm();
        self.leave_missing_evidence().await;
    }

    /// Lets go of servers that a dead agent has left standing still, and ends its sandboxes.
    pub async fn release_left_over(&self) {
        match crate::systemd::release_frozen().await {
            Ok(released) => released.iter().for_each(|user| {
                tracing::warn!(T3PIN_USER = %user, "{user}'s server was standing still when the last agent ended; it goes on");
            }),
            Err(error) => tracing::error!("what the last agent has frozen could not be looked for: {error}"),
        }
        for prefix in [crate::versions::UNIT_PREFIX, crate::health::UNIT_PREFIX] {
            if let Err(error) = self.systemd.stop_left_over(prefix).await {
                tracing::warn!("sandboxes of the last agent could not be stopped: {error}");
            }
        }
    }
}
