//! Whether something else than t3pin manages a user's server: found before anything of theirs is touched, in their files as the
//! user, and among the processes from outside.

use std::time::Duration;

use super::Agent;
use crate::domain::{OwnService, Place, Rivals};
use crate::host::user_service;
use crate::worker::{self, Answer, Task};

/// A look into the user's files may take this long.
const DEADLINE: Duration = Duration::from_secs(5);

impl Agent {
    /// All signs of other managers of `place`'s server, which has the control group `control_group` (empty while it does not run);
    /// `None` when there are none. An error says what could not be looked at.
    pub async fn rivals(&self, place: &Place, control_group: &str) -> Result<Option<Rivals>, String> {
        let task = Task::OwnService { home: place.account.home.clone(), base_dir: place.base_dir.clone() };
        let service: OwnService = match worker::run(&place.account, &task, DEADLINE).await {
            Ok(Answer::OwnService(service)) => service,
            Ok(_) => return Err("the worker answered something else than was asked".to_owned()),
            Err(error) => return Err(error.to_string()),
        };
        let uid = place.account.uid;
        let running = tokio::task::spawn_blocking(move || user_service::running(uid)).await;
        let runs = running.map_err(|error| error.to_string())?.map_err(|error| format!("listing processes: {error}"))?;
        let servers = self.vault.stray_servers(place, control_group).await.map_err(|error| error.to_string())?;
        let rivals = Rivals { service, runs, servers };
        Ok((!rivals.is_empty()).then_some(rivals))
    }
}
