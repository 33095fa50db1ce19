//! The workers that have a copy beside a running server, until the server is stopped.
//!
//! Each holds a read transaction on its user's database. None outlives the agent, and a copy that was only begun is worth nothing:
//! it is thrown away and made anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{StateError, nonsense, seed_dir};
use crate::domain::{BumpId, Place, SeedReport};
use crate::worker::{self, Answer, Seeded, Standby, Task, TaskErrorKind, WorkerError};

/// The workers that stand by, by bump.
#[derive(Debug, Clone, Default)]
pub struct Seedings(Arc<Mutex<HashMap<BumpId, Standby>>>);

impl Seedings {
    /// See [`super::Vault::seed`].
    pub async fn begin(&self, place: &Place, bump: BumpId, deadline: Duration) -> Result<Option<String>, StateError> {
        #[cfg(feature = "simulation")]
        if crate::simulated::is_on() {
            return Ok(Some("nothing runs beside anything in the simulation".to_owned()));
        }
        self.end(bump).await;
        let task = Task::SeedLive { userdata: place.userdata(), dest: seed_dir(place, bump) };
        match worker::begin(&place.account, &task, deadline).await {
            Ok((Answer::Seeded(Seeded::Live(live)), standby)) => {
                tracing::info!(
                    T3PIN_USER = %place.account.user, T3PIN_BUMP = %bump,
                    "{} bytes copied beside the running server in {} ms ({:?}) and checked in {} ms", live.bytes, live.copied_ms, live.method, live.checked_ms
                );
                self.all().insert(bump, standby);
                Ok(None)
            }
            Ok((Answer::Seeded(Seeded::Later { why }), standby)) => {
                standby.end().await;
                Ok(Some(why))
            }
            Ok((_, standby)) => {
                standby.end().await;
                Err(nonsense(place))
            }
            // Something is wrong that a second copy, with the server stopped, would only find again.
            Err(WorkerError::Task(error)) if !matches!(error.kind, TaskErrorKind::Theirs | TaskErrorKind::Other) => {
                Err(WorkerError::Task(error).into())
            }
            Err(error) => Ok(Some(error.to_string())),
        }
    }

    /// With the server stopped: the finished copy; `None` when there is none, or it turned out to be worth nothing.
    pub async fn finish(&self, place: &Place, bump: BumpId, deadline: Duration) -> Result<Option<SeedReport>, StateError> {
        let taken = self.all().remove(&bump);
        let Some(mut standby) = taken else { return Ok(None) };
        let answer = standby.ask(&Task::Finish, deadline).await;
        standby.end().await;
        let why = match answer {
            Ok(Answer::Seed(seed)) => return Ok(Some(seed)),
            Ok(_) => "it answered something else than was asked".to_owned(),
            Err(WorkerError::Task(error)) if !matches!(error.kind, TaskErrorKind::Theirs | TaskErrorKind::Other) => {
                return Err(WorkerError::Task(error).into());
            }
            Err(error) => error.to_string(),
        };
        tracing::warn!(
            T3PIN_USER = %place.account.user, T3PIN_BUMP = %bump,
            "all data is copied anew while the server is stopped, which takes longer: {why}"
        );
        Ok(None)
    }

    /// Ends the bump's worker, if there is one.
    pub async fn end(&self, bump: BumpId) {
        let taken = self.all().remove(&bump);
        if let Some(standby) = taken {
            standby.end().await;
        }
    }

    /// Which processes have users' databases open for us.
    pub fn pids(&self) -> Vec<u32> {
        self.all().values().filter_map(Standby::pid).collect()
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<BumpId, Standby>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
