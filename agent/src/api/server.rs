//! Serving the socket.

use std::future::Future;
use std::sync::Arc;

use super::types::{
    ApiError, BumpSummary, Caller, ClearRequest, EnrollRequest, FreezeRequest, PlanReport, RollbackRequest, RunReport,
    StatusReport, VersionStatus,
};
use crate::domain::UserName;

/// What `agent` does for the socket. Implementations answer quickly: long work becomes a run.
///
/// The server has already refused callers who may not (see each route), so implementations need not ask again, except
/// where they are told to filter by `caller`.
pub trait Handler: Send + Sync + 'static {
    /// The host's state; instances filtered by what `caller` may see.
    fn status(&self, caller: Caller) -> impl Future<Output = StatusReport> + Send;
    /// What enforcing would do; changes nothing.
    fn plan(&self, caller: Caller) -> impl Future<Output = Result<PlanReport, ApiError>> + Send;
    /// Bumps that ended, newest first, filtered by what `caller` may see.
    fn history(
        &self,
        caller: Caller,
        user: Option<UserName>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<BumpSummary>, ApiError>> + Send;
    /// Installed versions.
    fn versions(&self) -> impl Future<Output = Result<Vec<VersionStatus>, ApiError>> + Send;
    /// Starts enforcing the pin. Privileged.
    fn enforce(&self) -> impl Future<Output = Result<RunReport, ApiError>> + Send;
    /// Starts a rollback. Privileged.
    fn rollback(&self, request: RollbackRequest) -> impl Future<Output = Result<RunReport, ApiError>> + Send;
    /// Starts enrolling a user. Privileged.
    fn enroll(&self, request: EnrollRequest) -> impl Future<Output = Result<RunReport, ApiError>> + Send;
    /// Follows a run. Privileged.
    fn run(&self, id: u64) -> impl Future<Output = Result<RunReport, ApiError>> + Send;
    /// Sets the freeze. Privileged.
    fn freeze(&self, request: FreezeRequest) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// Lifts the freeze. Privileged.
    fn thaw(&self) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// Lets a quarantined version be tried again. Privileged.
    fn clear_quarantine(&self, request: ClearRequest) -> impl Future<Output = Result<(), ApiError>> + Send;
}

/// Serves `listener` until the future is dropped.
pub async fn serve<H: Handler>(listener: tokio::net::UnixListener, handler: Arc<H>) -> std::io::Result<()> {
    let _ = (listener, handler);
    unimplemented!()
}
