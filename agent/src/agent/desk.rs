//! The one task that changes things: orders from the socket and looks that are due, one after the other.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Agent;
use super::runs::Run;
use crate::api::types::{EnrollRequest, RollbackRequest};
use crate::domain::UserName;

/// How many orders may wait.
const WAITING: usize = 64;

/// Something that was asked for.
#[derive(Debug)]
pub enum Order {
    /// Enforce the pin; the instance from inside of which it was asked, if any.
    Enforce(Option<UserName>, Run),
    /// Bump a user as soon as nothing is in flight; the instance from inside of which it was asked, if any.
    Now(UserName, Option<UserName>, Run),
    /// Roll back.
    Rollback(RollbackRequest, Run),
    /// Enroll a user.
    Enroll(EnrollRequest, Run),
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
    loop {
        let pause = agent.next_look();
        agent.rest();
        let order = match pause {
            Some(pause) => tokio::time::timeout(pause, orders.recv()).await,
            None => Ok(orders.recv().await),
        };
        match order {
            Ok(Some(Order::Enforce(calls, run))) => agent.enforce(calls.as_ref(), &run).await,
            Ok(Some(Order::Now(user, calls, run))) => agent.now(&user, calls.as_ref(), &run).await,
            Ok(Some(Order::Rollback(request, run))) => agent.rollback(&request, &run).await,
            Ok(Some(Order::Enroll(request, run))) => agent.enroll(&request, &run).await,
            Ok(Some(Order::Look)) | Err(_) => agent.watch().await,
            Ok(None) => return,
        }
    }
}

impl Agent {
    /// How long nothing has to be looked at; `None` while nothing waits and nothing soaks.
    fn next_look(&self) -> Option<Duration> {
        let open = self.journal.open_bumps().unwrap_or_default();
        let settings = self.settings();
        let soaking = open.iter().any(|bump| bump.phase == crate::engine::Phase::Soaking).then_some(settings.watch_interval);
        // A thaw puts an order to look on the desk itself.
        let frozen = self.journal.freeze().is_ok_and(|freeze| freeze.is_some());
        let waiting = (!frozen && self.journal.unfinished().unwrap_or(true)).then_some(settings.poll);
        soaking.into_iter().chain(waiting).min()
    }

    /// Notes on the board that nothing is under way, or what waits.
    fn rest(&self) {
        let open = self.journal.open_bumps().unwrap_or_default();
        let stuck: Vec<_> =
            open.iter().filter(|b| b.phase == crate::engine::Phase::Stuck).map(|b| b.instance.user().to_string()).collect();
        let waiting = open.iter().filter(|bump| bump.phase == crate::engine::Phase::Ready).count();
        let soaking = open.iter().filter(|bump| bump.phase == crate::engine::Phase::Soaking).count();
        if !stuck.is_empty() {
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
