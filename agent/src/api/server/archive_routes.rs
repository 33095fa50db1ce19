//! The routes about snapshots, exports and the removal of versions.
//!
//! Users see, verify and export what is theirs. Everything else is for the privileged.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};

use super::super::archive_types::{
    ArchiveOrder, ArchiveRequest, ArchiveStatus, KeptRequest, KeptStatus, RemoveRequest, VerifyVersionRequest,
};
use super::super::types::{Caller, RunReport};
use super::Handler;
use super::refusal::Refusal;
use super::request::{body, parsed, query};
use super::routes::{Answer, Desk, allow, segment, whole};
use crate::domain::{KeptId, UserName};

/// These routes.
pub fn routes<H: Handler>() -> Router<Desk<H>> {
    Router::new()
        .route("/v1/snapshots", get(list::<H>))
        .route("/v1/snapshots/{user}/{id}", get(show::<H>))
        .route("/v1/snapshots/verify", post(verify::<H>))
        .route("/v1/snapshots/prune", post(prune::<H>))
        .route("/v1/snapshots/export", post(export::<H>))
        .route("/v1/snapshots/restore", post(restore::<H>))
        .route("/v1/exports/{run}", get(chunk::<H>))
        .route("/v1/versions/remove", post(remove_version::<H>))
        .route("/v1/versions/verify", post(verify_versions::<H>))
}

async fn list<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<Vec<ArchiveStatus>> {
    let [user] = query(&request, ["user"])?;
    let user = user.map(|text| parsed::<UserName>("user", &text)).transpose()?;
    Ok(Json(desk.handler.snapshots(caller, user).await?))
}

async fn show<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Answer<KeptStatus> {
    query(&request, [])?;
    let (user, id) = match path {
        Ok(Path((user, id))) => (parsed::<UserName>("user", &user)?, parsed::<KeptId>("name", &id)?),
        Err(error) => return Err(Refusal::bad_request(axum::http::StatusCode::BAD_REQUEST, error.to_string())),
    };
    Ok(Json(desk.handler.snapshot(caller, user, id).await?))
}

async fn verify<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<RunReport> {
    let what: ArchiveRequest = body(request, desk.limits).await?;
    whole(async move { desk.handler.archive(caller, ArchiveOrder::Verify(what)).await }).await
}

async fn prune<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<RunReport> {
    allow(caller, &request, "prune snapshots")?;
    let what: ArchiveRequest = body(request, desk.limits).await?;
    whole(async move { desk.handler.archive(caller, ArchiveOrder::Prune(what)).await }).await
}

async fn export<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<RunReport> {
    let what: KeptRequest = body(request, desk.limits).await?;
    whole(async move { desk.handler.archive(caller, ArchiveOrder::Export(what)).await }).await
}

async fn restore<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<RunReport> {
    allow(caller, &request, "restore a snapshot")?;
    let what: KeptRequest = body(request, desk.limits).await?;
    whole(async move { desk.handler.archive(caller, ArchiveOrder::Restore(what)).await }).await
}

/// The bytes of an export from `offset` on, some of them; none at its end.
async fn chunk<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    run: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let [offset] = query(&request, ["offset"])?;
    let run = parsed::<u64>("run", &segment(run)?)?;
    let offset = offset.map(|text| parsed::<u64>("offset", &text)).transpose()?.unwrap_or(0);
    let bytes = desk.handler.export(caller, run, offset).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

async fn remove_version<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<RunReport> {
    allow(caller, &request, "remove a version")?;
    let what: RemoveRequest = body(request, desk.limits).await?;
    whole(async move { desk.handler.remove_version(caller, what.version).await }).await
}

async fn verify_versions<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<RunReport> {
    allow(caller, &request, "have versions read again")?;
    let what: VerifyVersionRequest = body(request, desk.limits).await?;
    whole(async move { desk.handler.verify_versions(caller, what.version).await }).await
}
