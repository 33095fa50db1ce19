//! Whether the disks have room for a whole rollout, told before anybody is touched.

use super::Agent;
use crate::engine::rollout::{Decision, HostView, decide};
use crate::host::instances;
use crate::journal::JournalError;
use crate::state::StateError;

impl Agent {
    /// When there is no room for all the bumps that are to come by `view`, nobody is touched; that is noted, and tried again by itself.
    /// Returns why.
    pub async fn hold_back_without_room(&self, mut view: HostView) -> Result<Option<String>, JournalError> {
        view.cramped = None;
        view.cramped = self.cramped(&view).await;
        self.board.set_cramped(view.cramped.clone());
        let Some(why) = view.cramped.clone() else { return Ok(None) };
        let halted = self.note_halt(&view)?;
        self.journal.set_unfinished(halted)?;
        Ok(Some(why))
    }

    /// Why there is no room for all the bumps that are to come by `view`; `None` when there is. Each bump's own preflight looks
    /// again, at what is true then; a single one needs no look beside that. What else is wrong with somebody's data is told when it is their turn.
    pub async fn cramped(&self, view: &HostView) -> Option<String> {
        let comes = |decision| matches!(decision, Decision::Bump(_) | Decision::Defer(_));
        let users = view.instances.iter().filter(|instance| comes(decide(view, instance))).map(|instance| &instance.user);
        let places: Vec<_> =
            users.filter_map(|user| instances::of(&self.env, user).ok()).map(|instance| instance.place).collect();
        let many = places.len();
        if many < 2 {
            return None;
        }
        match self.vault.preflight_all(places).await {
            Err(error @ StateError::NoSpace { .. }) => Some(format!(
                "the data of all {many} who are to be bumped has no room beside itself until they are settled: {error}"
            )),
            _ => None,
        }
    }
}
