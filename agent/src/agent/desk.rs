//! The one task that changes things: orders from the socket and looks that are due, one after the other.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use super::runs::Run;
use super::sights::NEAR_MS;
use super::{Agent, now_ms};
use crate::api::archive_types::KeptRequest;
use crate::api::types::{EnrollRequest, RetryRequest, RollbackRequest};
use crate::domain::{UserName, Version};

/// How many orders may wait.
const WAITING: usize = 64;

/// Something that was asked for.
#[derive(Debug)]
pub enum Order {
    /// Enforce the pin; the instance from inside of which it was asked, if any.
    Enforce(Option<UserName>, Run),
    /// Bump a user as soon as nothing is in flight; the instance from inside of which it was asked, if any.
    Now(UserName, Option<UserName>, Run),
    /// Try a quarantined version once more; the instance from inside of which it was asked, if any.
    Retry(RetryRequest, Option<UserName>, Run),
    /// Roll back.
    Rollback(RollbackRequest, Run),
    /// Bring a snapshot back.
    Restore(KeptRequest, Run),
    /// Remove an installed version.
    RemoveVersion(Version, Run),
    /// Enroll a user.
    Enroll(EnrollRequest, Run),
    /// No longer hold a user.
    Unenroll(UserName, Run),
    /// Look again at what waits (the freeze was lifted, a quarantine cleared).
    Look,
}

/// Where orders are put.
pub type Desk = mpsc::Sender<Order>;

/// A desk and its other side.
pub fn desk() -> (Desk, mpsc::Receiver<Order>) {
    mpsc::channel(WAITING)
}

/// Works until the process ends: recovery first, then whatever comes.
pub async fn work(agent: Arc<Agent>, mut orders: mpsc::Receiver<Order>) {
    agent.recover().await;
    // Whoever waits since before the last start is looked at first of all.
    agent.watch(true).await;
    // Recovery has said on the board what it did: that is over, whatever the look changed.
    let mut changed = true;
    let mut soaked = Instant::now();
    let mut soaks = false;
    let mut retry = None;
    let mut rounded = Instant::now();
    loop {
        if changed {
            agent.rest();
            soaks = agent.soaks();
            retry = agent.next_retry();
        }
        let interval = agent.settings().watch_interval;
        let (soak, round) = (soaks.then(|| soaked + interval), rounded + interval);
        let order = loop {
            let due = soak.into_iter().chain(agent.next_drain()).chain(retry).chain([round]).min();
            tokio::select! {
                order = next(&mut orders, due) => break order,
                // Somebody's look has come closer than was thought.
                () = agent.sights.stirred() => {}
            }
        };
        changed = true;
        match order {
            Ok(Some(Order::Enforce(calls, run))) => agent.enforce(calls.as_ref(), &run).await,
            Ok(Some(Order::Now(user, calls, run))) => agent.now(&user, calls.as_ref(), &run).await,
            Ok(Some(Order::Retry(request, calls, run))) => agent.retry_version(&request, calls.as_ref(), &run).await,
            Ok(Some(Order::Rollback(request, run))) => agent.rollback(&request, &run).await,
            Ok(Some(Order::Restore(request, run))) => agent.restore_snapshot(&request, &run).await,
            Ok(Some(Order::RemoveVersion(version, run))) => agent.remove_version_by_order(&version, &run).await,
            Ok(Some(Order::Enroll(request, run))) => agent.enroll(&request, &run).await,
            Ok(Some(Order::Unenroll(user, run))) => agent.unenroll(&user, &run).await,
            Ok(Some(Order::Look)) => {
                agent.sights.forget_all();
                agent.watch(true).await;
            }
            Err(_) => {
                let soak_due = soak.is_some_and(|due| due <= Instant::now());
                if soak_due {
                    soaked = Instant::now();
                }
                let retry_due = retry.is_some_and(|due| due <= Instant::now());
                if retry_due {
                    agent.retry_due().await;
                }
                if round <= Instant::now() {
                    rounded = Instant::now();
                    agent.round().await;
                }
                // What waits is looked at when that is due, not whenever a round is.
                let drain_due = agent.next_drain().is_some_and(|due| due <= Instant::now());
                changed = ((soak_due || drain_due) && agent.watch(soak_due).await) || retry_due;
            }
            Ok(None) => return,
        }
    }
}

/// The next order; `Err` when there was none until `due`.
async fn next(orders: &mut mpsc::Receiver<Order>, due: Option<Instant>) -> Result<Option<Order>, Elapsed> {
    match due {
        Some(due) => tokio::time::timeout_at(due, orders.recv()).await,
        None => Ok(orders.recv().await),
    }
}

impl Agent {
    /// Whether anybody is in their soak, or was left under way.
    fn soaks(&self) -> bool {
        let tended = |bump: &crate::engine::Bump| bump.phase == crate::engine::Phase::Soaking || bump.is_under_way();
        self.journal.open_bumps().map_or(true, |open| open.iter().any(tended))
    }

    /// When whoever waits has to be looked at again; `None` while nobody waits. A clock that was set is noticed soon.
    fn next_drain(&self) -> Option<Instant> {
        // A thaw puts an order to look on the desk itself.
        if self.journal.freeze().is_ok_and(|freeze| freeze.is_some()) || !self.journal.unfinished().unwrap_or(true) {
            return None;
        }
        let due = self.sights.next_due().into_iter().chain(self.halt.due_ms()).min();
        let left = due.map_or(NEAR_MS, |due| due.saturating_sub(now_ms()).clamp(0, NEAR_MS));
        Some(Instant::now() + Duration::from_millis(left.unsigned_abs()))
    }

    /// Notes on the board that nothing is under way, or what waits, or what could not be brought to an end.
    pub(super) fn rest(&self) {
        let open = self.journal.open_bumps().unwrap_or_default();
        let unfinished: Vec<_> =
            open.iter().filter(|bump| bump.is_under_way()).map(|bump| bump.instance.user().to_string()).collect();
        let stuck: Vec<_> =
            open.iter().filter(|b| b.phase == crate::engine::Phase::Stuck).map(|b| b.instance.user().to_string()).collect();
        let waiting = open.iter().filter(|bump| bump.phase == crate::engine::Phase::Ready).count();
        let soaking = open.iter().filter(|bump| bump.phase == crate::engine::Phase::Soaking).count();
        if !unfinished.is_empty() {
            let users = unfinished.join(", ");
            let doing = format!(
                "{users}: could neither be finished nor undone yet, and is tried again all the time; see journalctl -u t3pin"
            );
            self.board.set_doing("stuck", doing);
        } else if !stuck.is_empty() {
            self.board.set_doing("stuck", format!("stuck: {} need(s) a person; see t3pin status", stuck.join(", ")));
        } else if self.journal.freeze().is_ok_and(|freeze| freeze.is_some()) {
            self.board.set_doing("frozen", "frozen by the operator".to_owned());
        } else if waiting > 0 {
            self.board.set_doing("draining", format!("{waiting} bump(s) wait for their users to be idle, {soaking} in soak"));
        } else {
            self.board.set_doing("idle", if soaking > 0 { format!("idle, {soaking} in soak") } else { "idle".to_owned() });
        }
    }
}
