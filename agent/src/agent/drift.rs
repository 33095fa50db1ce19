//! What is not as t3pin left it, for the status: told, never mended unasked.

use super::Agent;
use crate::api::types::DriftStatus;
use crate::domain::{UserName, Version};
use crate::engine::{Bump, Phase};
use crate::host::global_t3;

/// The kind, and the state, of a server that runs and that nobody can reach.
pub const UNREACHABLE: &str = "unreachable";

impl Agent {
    /// What is wrong with one instance. While a bump is under way its phases say what is; in the soak another version than the
    /// bound one is the soak's to judge.
    pub fn drift_of(
        &self,
        user: &UserName,
        open: Option<&Bump>,
        bound: Option<&Version>,
        running: Option<&Version>,
    ) -> Vec<DriftStatus> {
        if open.is_some_and(|open| !matches!(open.phase, Phase::Planned | Phase::Ready)) {
            return vec![];
        }
        let seen = self.rounds.seen(user);
        let version = bound.zip(running).filter(|(bound, running)| bound != running).map(|(bound, running)| {
            format!(
                "{running} answers, though {user} is bound to {bound}: somebody has changed the binding or the unit under the server. Nothing is \
                 done about it; look at `systemctl cat {}` before restarting it",
                user.unit()
            )
        });
        [(UNREACHABLE, seen.unreachable), ("crashing", seen.crashing), ("running-version", version)]
            .into_iter()
            .filter_map(|(kind, what)| Some(drift(kind, what?)))
            .collect()
    }

    /// What is wrong with what all instances stand on.
    pub fn host_drift(&self) -> Vec<DriftStatus> {
        let sealed = self.rounds.changed_versions().into_iter().map(|(version, differences)| {
            let what = format!(
                "t3 {version} was changed after it was sealed ({}). Move its users to another version and `t3pin versions remove {version}`; it is installed \
                 anew when it is wanted",
                differences.join(", ")
            );
            drift("sealed-version", what)
        });
        let global = global_t3().map(|path| {
            let path = path.display();
            let what = format!(
                "{path} comes first for whoever has not /usr/lib/t3pin/bin in front of their PATH (sudo, cron, scripts): run by somebody with a server, it \
                 moves that server's data to its own version. Remove it, or make it a link to /usr/lib/t3pin/bin/t3"
            );
            drift("global-t3", what)
        });
        sealed.chain(global).collect()
    }
}

fn drift(kind: &str, what: String) -> DriftStatus {
    DriftStatus { kind: kind.to_owned(), what }
}
