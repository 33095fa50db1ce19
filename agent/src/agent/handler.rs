//! What the socket's routes do.

use std::sync::Arc;

use super::desk::{Desk, Order};
use super::reissue::forewarning;
use super::runs::Run;
use super::status::may_see;
use super::{Agent, now_ms};
use crate::api::archive_types::{ArchiveOrder, ArchiveStatus, KeptStatus};
use crate::api::explanation::Explanation;
use crate::api::server::Handler;
use crate::api::types::{
    ApiError, BumpSummary, Caller, ClearRequest, DeferRequest, DoctorReport, EnrollRequest, FreezeRequest, Inside, MintRequest,
    Minted, PlanReport, PlanStep, ReissueRequest, Reissued, RetryRequest, RollbackRequest, RunReport, StatusReport, Told,
    UnenrollRequest, VersionStatus,
};
use crate::domain::{KeptId, UserName, Version};
use crate::engine::rollout::{Decision, decide, order};
use crate::host::accounts;
use crate::journal::Freeze;

/// The agent's side of the socket.
#[derive(Debug)]
pub struct Doors {
    agent: Arc<Agent>,
    desk: Desk,
}

impl Doors {
    /// Doors to `agent`, which puts orders on `desk`.
    pub fn new(agent: Arc<Agent>, desk: Desk) -> Self {
        Self { agent, desk }
    }

    fn order(&self, caller: Caller, make: impl FnOnce(Run) -> Order) -> Result<RunReport, ApiError> {
        let run = self.agent.runs.begin(caller);
        match self.desk.try_send(make(run.clone())) {
            Ok(()) => Ok(run.report()),
            Err(_) => Err(error("busy", "too many orders wait already; ask again when some are done (t3pin status)")),
        }
    }
}

impl Handler for Doors {
    async fn status(&self, caller: Caller) -> StatusReport {
        self.agent.status(caller).await
    }

    async fn plan(&self, caller: Caller) -> Result<PlanReport, ApiError> {
        let now = self.agent.pins.look(&self.agent.journal);
        let Some(pin) = now.good else {
            let why = now.error.map_or("nothing is pinned".to_owned(), |error| error.to_string());
            return Ok(PlanReport { steps: vec![], blocked: Some(why) });
        };
        let view = self.agent.survey(&pin, None).await.map_err(internal)?;
        let mut steps = vec![];
        let mut installs = vec![];
        for instance in order(&view).into_iter().filter(|instance| may_see(caller, &instance.user)) {
            let (action, reason) = match decide(&view, instance) {
                Decision::Keep(reason) => ("keep", reason),
                Decision::Bump(reason) => ("bump", reason),
                Decision::Defer(reason) => ("defer", reason),
                Decision::HoldBack(reason) => ("hold-back", reason),
                Decision::Refuse(reason) => ("refuse", reason),
            };
            let comes = matches!(action, "bump" | "defer");
            let open = self.agent.journal.open_bump(&instance.user).map_err(internal)?;
            let reason = match open.as_ref().and_then(forewarning) {
                Some(cost) => format!("{reason}; {cost}"),
                None => reason,
            };
            if comes && !view.installed.contains(&instance.wanted) && !installs.contains(&instance.wanted) {
                installs.push(instance.wanted.clone());
            }
            steps.push(PlanStep {
                action: action.to_owned(),
                user: Some(instance.user.clone()),
                from: instance.bound.clone(),
                to: Some(instance.wanted.clone()),
                reason,
            });
        }
        let install = |version| PlanStep {
            action: "install".to_owned(),
            user: None,
            from: None,
            to: Some(version),
            reason: "not installed yet".to_owned(),
        };
        let steps = installs.into_iter().map(install).chain(steps).collect();
        let mut blocked = now.error.map(|error| error.to_string());
        if blocked.is_none() {
            blocked = match &view.frozen {
                Some(reason) => Some(format!("frozen: {reason}")),
                None => self.agent.cramped(&view).await,
            };
        }
        Ok(PlanReport { steps, blocked })
    }

    async fn history(&self, caller: Caller, user: Option<UserName>, limit: usize) -> Result<Vec<BumpSummary>, ApiError> {
        let open = self.agent.journal.open_bumps().map_err(internal)?;
        let closed = self.agent.journal.closed_bumps(user.as_ref(), limit).map_err(internal)?;
        let wanted = |of: &UserName| user.as_ref().is_none_or(|user| user == of) && may_see(caller, of);
        let shown = open.iter().rev().filter(|bump| bump.begun_ms.is_some()).chain(&closed);
        Ok(shown.filter(|bump| wanted(bump.instance.user())).map(|bump| self.agent.summary_of(bump)).take(limit).collect())
    }

    async fn explain(&self, caller: Caller, what: UserName) -> Result<Explanation, ApiError> {
        self.agent.explain(caller, &what).await
    }

    async fn versions(&self) -> Result<Vec<VersionStatus>, ApiError> {
        let quarantine = self.agent.journal.quarantine().map_err(internal)?;
        let users = self.agent.users().await;
        let bound: Vec<_> = users.into_iter().filter_map(|user| Some((self.agent.store.binding(&user).ok()??, user))).collect();
        let installed = self.agent.store.list().map_err(internal)?;
        Ok(installed
            .into_iter()
            .map(|installed| VersionStatus {
                users: bound.iter().filter(|(version, _)| *version == installed.version).map(|(_, user)| user.clone()).collect(),
                quarantined: quarantine.iter().find(|q| q.version == installed.version).map(|q| q.reason.clone()),
                bytes: installed.bytes,
                sealed_ms: installed.sealed_ms,
                version: installed.version,
            })
            .collect())
    }

    async fn enforce(&self, caller: Caller, inside: Inside) -> Result<RunReport, ApiError> {
        self.order(caller, |run| Order::Enforce(inside.0, run))
    }

    async fn rollback(&self, caller: Caller, request: RollbackRequest) -> Result<RunReport, ApiError> {
        self.order(caller, |run| Order::Rollback(request, run))
    }

    async fn enroll(&self, caller: Caller, request: EnrollRequest) -> Result<RunReport, ApiError> {
        self.order(caller, |run| Order::Enroll(request, run))
    }

    async fn unenroll(&self, caller: Caller, request: UnenrollRequest) -> Result<RunReport, ApiError> {
        self.order(caller, |run| Order::Unenroll(request.user, run))
    }

    async fn user_of(&self, uid: u32) -> Option<UserName> {
        // The user database may be a directory server.
        tokio::task::spawn_blocking(move || accounts::name(uid).ok().flatten()).await.ok().flatten()
    }

    async fn now(&self, caller: Caller, inside: Inside, user: UserName, force: bool) -> Result<RunReport, ApiError> {
        self.agent.hasten(caller, &user, force)?;
        // Users have one order on the desk at most: however often they ask, they are in nobody's way.
        if let Some(open) = self.agent.runs.open_of(caller).filter(|_| !caller.privileged) {
            return Ok(open);
        }
        self.order(caller, |run| Order::Now(user, inside.0, run))
    }

    async fn defer(&self, caller: Caller, user: UserName, request: DeferRequest) -> Result<Told, ApiError> {
        self.agent.defer(caller, &user, request)
    }

    async fn mint(&self, caller: Caller, user: UserName, request: MintRequest) -> Result<Minted, ApiError> {
        self.agent.mint(caller, &user, &request).await
    }

    async fn reissue(&self, caller: Caller, user: UserName, request: ReissueRequest) -> Result<Reissued, ApiError> {
        self.agent.reissue(caller, &user, &request).await
    }

    async fn run(&self, caller: Caller, id: u64) -> Result<RunReport, ApiError> {
        self.agent.runs.get(caller, id).ok_or_else(|| {
            error("not-found", "no such run that you may follow; the agent may have been restarted (see t3pin status)")
        })
    }

    async fn freeze(&self, request: FreezeRequest) -> Result<(), ApiError> {
        let freeze = Freeze { since_ms: now_ms(), reason: request.reason };
        tracing::info!("version changes are frozen: {}", freeze.reason.as_deref().unwrap_or("no reason given"));
        self.agent.journal.set_freeze(Some(&freeze)).map_err(internal)?;
        self.desk.try_send(Order::Look).ok();
        Ok(())
    }

    async fn thaw(&self) -> Result<(), ApiError> {
        tracing::info!("version changes are no longer frozen");
        self.agent.journal.set_freeze(None).map_err(internal)?;
        self.desk.try_send(Order::Look).ok();
        Ok(())
    }

    async fn snapshots(&self, caller: Caller, user: Option<UserName>) -> Result<Vec<ArchiveStatus>, ApiError> {
        let mut all = self.agent.kept(caller, user).await?;
        all.iter_mut().flat_map(|one| &mut one.kept).for_each(|one| one.files.clear());
        Ok(all)
    }

    async fn snapshot(&self, caller: Caller, user: UserName, id: KeptId) -> Result<KeptStatus, ApiError> {
        let all = self.agent.kept(caller, Some(user.clone())).await?;
        let found = all.into_iter().flat_map(|one| one.kept).find(|one| one.id == id);
        found.ok_or_else(|| error("not-found", &format!("nothing called {id} of {user} is kept that you may see")))
    }

    async fn archive(&self, caller: Caller, order: ArchiveOrder) -> Result<RunReport, ApiError> {
        if let ArchiveOrder::Restore(request) = order {
            return self.order(caller, |run| Order::Restore(request, run));
        }
        // The rest keeps no server from anything: it need not wait for the desk.
        let (agent, run) = (Arc::clone(&self.agent), self.agent.runs.begin(caller));
        let report = run.report();
        tokio::spawn(async move {
            match order {
                ArchiveOrder::Verify(request) => agent.verify_kept(caller, request, run).await,
                ArchiveOrder::Prune(request) => agent.prune_kept(caller, request, run).await,
                ArchiveOrder::Export(request) => agent.export_kept(caller, request, run).await,
                ArchiveOrder::Restore(_) => {}
            }
        });
        Ok(report)
    }

    async fn export(&self, caller: Caller, run: u64, offset: u64) -> Result<Vec<u8>, ApiError> {
        let agent = Arc::clone(&self.agent);
        let read = tokio::task::spawn_blocking(move || agent.exports.read(run, caller.uid, offset)).await.map_err(internal)?;
        match read {
            Some(chunk) => chunk.map_err(internal),
            None => Err(error("not-found", "there is no such export of yours (any more); order it again")),
        }
    }

    async fn remove_version(&self, caller: Caller, version: Version) -> Result<RunReport, ApiError> {
        self.order(caller, |run| Order::RemoveVersion(version, run))
    }

    async fn verify_versions(&self, caller: Caller, version: Option<Version>) -> Result<RunReport, ApiError> {
        let (agent, run) = (Arc::clone(&self.agent), self.agent.runs.begin(caller));
        let report = run.report();
        tokio::spawn(async move { agent.verify_versions(version, &run).await });
        Ok(report)
    }

    async fn doctor(&self) -> DoctorReport {
        self.agent.doctor().await
    }

    async fn retry_version(&self, caller: Caller, inside: Inside, request: RetryRequest) -> Result<RunReport, ApiError> {
        self.order(caller, |run| Order::Retry(request, inside.0, run))
    }

    async fn clear_quarantine(&self, request: ClearRequest) -> Result<(), ApiError> {
        let version = request.version;
        self.agent.journal.clear_quarantine(&version, now_ms()).map_err(internal)?;
        tracing::info!(t3pin_version = %version, "{version} may be tried again");
        Ok(())
    }
}

pub(super) fn error(kind: &str, text: &str) -> ApiError {
    ApiError { kind: kind.to_owned(), error: text.to_owned() }
}

pub(super) fn internal(error: impl std::fmt::Display) -> ApiError {
    ApiError { kind: "internal".to_owned(), error: error.to_string() }
}
