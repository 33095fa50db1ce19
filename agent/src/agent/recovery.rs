//! What is done first at every start: finish or undo what was under way, through the same engine.

use super::Agent;
use crate::engine::Event;

impl Agent {
    /// Finishes or undoes every open bump, lets go of data that nobody works on, removes what a dead agent left behind.
    /// Never gives up half-way: one user's trouble does not keep another's bump from being recovered.
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
        match self.journal.open_bumps() {
            Ok(open) => {
                for bump in open {
                    if bump.is_under_way() {
                        tracing::warn!(
                            T3PIN_USER = %bump.instance.user(), T3PIN_BUMP = %bump.id, T3PIN_VERSION = %bump.to, T3PIN_PHASE = ?bump.phase,
                            "{} was under way ({} -> {}, {:?}) when the last agent ended; recovering",
                            bump.instance.user(), bump.from, bump.to, bump.phase
                        );
                    }
                    self.drive(bump, Event::AgentRestarted, &|_| ()).await;
                }
            }
            Err(error) => tracing::error!("{error}; what was under way cannot be recovered by itself"),
        }
        self.let_go().await;
        if let Err(error) = self.store.clean_half_made() {
            tracing::warn!("half-made versions could not be removed: {error}");
        }
    }

    /// Data that is held although no open bump works on it would keep a server from ever starting again.
    async fn let_go(&self) {
        let held = match self.vault.held() {
            Ok(held) => held,
            Err(error) => return tracing::error!("{error}"),
        };
        for (user, id) in held {
            match self.journal.open_bump(&user) {
                Ok(None) => {
                    tracing::warn!(T3PIN_USER = %user, T3PIN_BUMP = %id, "{user} was still held for {id}, which is over; letting go");
                    if let Err(error) = self.vault.release(&user) {
                        tracing::error!(T3PIN_USER = %user, "{error}");
                    }
                }
                Ok(Some(_)) => {}
                Err(error) => tracing::error!(T3PIN_USER = %user, "{error}"),
            }
        }
    }
}
