//! What is done first at every start: finish or undo what was under way, through the same engine.

use super::Agent;
use crate::conduct;

impl Agent {
    /// Finishes or undoes every open bump, lets go of data that nobody works on, removes what a dead agent left behind.
    pub async fn recover(&self) {
        self.board.set_doing("recovering", "looking for what was under way".to_owned());
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
        self.settle_journal().await;
        conduct::recover(self).await;
        self.settle_left_over().await;
        if let Err(error) = self.store.clean_half_made() {
            tracing::warn!("half-made versions could not be removed: {error}");
        }
        self.journal.confirm();
    }
}
