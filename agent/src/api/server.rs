//! Serving the socket: who may call what, and what nobody can make it do.
//!
//! Promises: a caller is who the kernel said at connect (SO_PEERCRED), never who a request says; what changes the host
//! is for root and group `t3pin` only, but for what users may say about their own bump; every answer that is not 2xx is an [`ApiError`] in JSON; and no caller, however slow,
//! endless or numerous, keeps others from being answered ([`Limits`]).

mod archive_routes;
mod connections;
mod gate;
mod limits;
mod pace;
mod peer;
mod refusal;
mod request;
mod routes;

use std::future::Future;
use std::sync::Arc;

use tokio::net::UnixListener;

use self::limits::Limits;
use super::archive_types::{ArchiveOrder, ArchiveStatus, KeptStatus};
use super::explanation::Explanation;
use super::types::{
    ApiError, BumpSummary, Caller, ClearRequest, DeferRequest, DoctorReport, EnrollRequest, FreezeRequest, Inside, MintRequest,
    Minted, PlanReport, ReissueRequest, Reissued, RetryRequest, RollbackRequest, RunReport, StatusReport, Told, UnenrollRequest,
    VersionStatus,
};
use crate::domain::{KeptId, UserName, Version};

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
    /// The story of the bump or of the user that is called `what`; only what `caller` may see.
    fn explain(&self, caller: Caller, what: UserName) -> impl Future<Output = Result<Explanation, ApiError>> + Send;
    /// Installed versions.
    fn versions(&self) -> impl Future<Output = Result<Vec<VersionStatus>, ApiError>> + Send;
    /// Starts enforcing the pin. Privileged.
    fn enforce(&self, caller: Caller, inside: Inside) -> impl Future<Output = Result<RunReport, ApiError>> + Send;
    /// Starts a rollback. Privileged.
    fn rollback(&self, caller: Caller, request: RollbackRequest) -> impl Future<Output = Result<RunReport, ApiError>> + Send;
    /// Starts enrolling a user. Privileged.
    fn enroll(&self, caller: Caller, request: EnrollRequest) -> impl Future<Output = Result<RunReport, ApiError>> + Send;
    /// Starts letting go of a user. Privileged.
    fn unenroll(&self, caller: Caller, request: UnenrollRequest) -> impl Future<Output = Result<RunReport, ApiError>> + Send;
    /// The user with this uid.
    fn user_of(&self, uid: u32) -> impl Future<Output = Option<UserName>> + Send;
    /// Starts `user`'s bump as soon as nothing is in flight, with `force` at once. Privileged, or `user` themselves.
    fn now(
        &self,
        caller: Caller,
        inside: Inside,
        user: UserName,
        force: bool,
    ) -> impl Future<Output = Result<RunReport, ApiError>> + Send;
    /// Notes that `user` is not to be bumped before a time, or takes that back. Privileged, or `user` themselves. A request
    /// that goes beyond what users may say about themselves is the handler's to refuse.
    fn defer(&self, caller: Caller, user: UserName, request: DeferRequest)
    -> impl Future<Output = Result<Told, ApiError>> + Send;
    /// Has a pairing credential minted for `user`'s server. Privileged, or `user` themselves. Takes as long as t3 does, some seconds.
    fn mint(&self, caller: Caller, user: UserName, request: MintRequest)
    -> impl Future<Output = Result<Minted, ApiError>> + Send;
    /// Has new pairing links made for those of `user`'s devices that have to pair again. Privileged, or `user` themselves. Takes as
    /// long as t3 does, some seconds for each.
    fn reissue(
        &self,
        caller: Caller,
        user: UserName,
        request: ReissueRequest,
    ) -> impl Future<Output = Result<Reissued, ApiError>> + Send;
    /// Follows a run: `not-found` unless privileged or asked for by `caller`.
    fn run(&self, caller: Caller, id: u64) -> impl Future<Output = Result<RunReport, ApiError>> + Send;
    /// Sets the freeze. Privileged.
    fn freeze(&self, request: FreezeRequest) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// Lifts the freeze. Privileged.
    fn thaw(&self) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// What is kept of users, filtered by what `caller` may see.
    fn snapshots(
        &self,
        caller: Caller,
        user: Option<UserName>,
    ) -> impl Future<Output = Result<Vec<ArchiveStatus>, ApiError>> + Send;
    /// One of it, with its files, if `caller` may see it.
    fn snapshot(&self, caller: Caller, user: UserName, id: KeptId) -> impl Future<Output = Result<KeptStatus, ApiError>> + Send;
    /// Has something done with what is kept. Verifying and exporting is for everybody, for what `caller` may see.
    fn archive(&self, caller: Caller, order: ArchiveOrder) -> impl Future<Output = Result<RunReport, ApiError>> + Send;
    /// Some bytes of what the export with that run made, from `offset` on; none at its end. Only for who began it.
    fn export(&self, caller: Caller, run: u64, offset: u64) -> impl Future<Output = Result<Vec<u8>, ApiError>> + Send;
    /// Starts removing an installed version. Privileged.
    fn remove_version(&self, caller: Caller, version: Version) -> impl Future<Output = Result<RunReport, ApiError>> + Send;
    /// Starts reading an installed version, or all of them, from end to end. Privileged.
    fn verify_versions(
        &self,
        caller: Caller,
        version: Option<Version>,
    ) -> impl Future<Output = Result<RunReport, ApiError>> + Send;
    /// Looks whether everything is there that the next bump will need. Privileged.
    fn doctor(&self) -> impl Future<Output = DoctorReport> + Send;
    /// Tries a quarantined version once more, with one user. Privileged.
    fn retry_version(
        &self,
        caller: Caller,
        inside: Inside,
        request: RetryRequest,
    ) -> impl Future<Output = Result<RunReport, ApiError>> + Send;
    /// Lets a quarantined version be tried again. Privileged.
    fn clear_quarantine(&self, request: ClearRequest) -> impl Future<Output = Result<(), ApiError>> + Send;
}

/// Serves `listener` until the future is dropped; open connections end with it. A failing `accept` is logged and tried
/// again, so this does not return by itself.
pub async fn serve<H: Handler>(listener: UnixListener, handler: Arc<H>) -> std::io::Result<()> {
    connections::serve(listener, handler, Limits::default()).await
}

#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod tests;
