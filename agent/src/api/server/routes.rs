//! The routes of `/v1`, and who may use them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};

use super::super::explanation::Explanation;
use super::super::metrics;
use super::super::types::{
    Acknowledged, ApiError, BumpSummary, Caller, ClearRequest, DeferRequest, DoctorReport, EnrollRequest, FreezeRequest, Inside,
    InstanceStatus, MintRequest, NowRequest, PlanReport, ReissueRequest, RetryRequest, RollbackRequest, RunReport, StatusReport,
    Told, UnenrollRequest, VersionStatus,
};
use super::Handler;
use super::limits::Limits;
use super::refusal::Refusal;
use super::request::{body, parsed, query};
use crate::domain::UserName;

/// How many bumps `GET /v1/history` tells when nothing is said, and at most.
const HISTORY: (usize, usize) = (50, 1000);

/// How often a long poll looks whether the run has moved.
const POLL_PERIOD: Duration = Duration::from_millis(100);

/// What every route needs.
pub(super) struct Desk<H> {
    pub(super) handler: Arc<H>,
    pub(super) limits: Limits,
}

impl<H> Clone for Desk<H> {
    fn clone(&self) -> Self {
        Self { handler: Arc::clone(&self.handler), limits: self.limits }
    }
}

pub(super) type Answer<T> = Result<Json<T>, Refusal>;

/// All routes. Requests must carry their [`Caller`] as an extension.
pub fn router<H: Handler>(handler: Arc<H>, limits: Limits) -> Router {
    Router::new()
        .route("/v1/status", get(status::<H>))
        .route("/v1/plan", get(plan::<H>))
        .route("/v1/doctor", get(doctor::<H>))
        .route("/v1/history", get(history::<H>))
        .route("/v1/explain/{what}", get(explain::<H>))
        .route("/v1/versions", get(versions::<H>))
        .route("/v1/instances", get(instances::<H>))
        .route("/v1/instances/{user}", get(instance::<H>))
        .route("/v1/runs/{id}", get(run::<H>))
        .route("/metrics", get(prometheus::<H>))
        .route("/v1/enforce", post(enforce::<H>))
        .route("/v1/rollback", post(rollback::<H>))
        .route("/v1/enroll", post(enroll::<H>))
        .route("/v1/unenroll", post(unenroll::<H>))
        .route("/v1/now", post(now::<H>))
        .route("/v1/defer", post(defer::<H>))
        .route("/v1/mint", post(mint::<H>))
        .route("/v1/reissue", post(reissue::<H>))
        .route("/v1/freeze", post(freeze::<H>))
        .route("/v1/thaw", post(thaw::<H>))
        .route("/v1/quarantine/clear", post(clear_quarantine::<H>))
        .route("/v1/quarantine/retry", post(retry_version::<H>))
        .merge(super::archive_routes::routes())
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Desk { handler, limits })
}

async fn status<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<StatusReport> {
    query(&request, [])?;
    Ok(Json(desk.handler.status(caller).await))
}

async fn plan<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<PlanReport> {
    query(&request, [])?;
    Ok(Json(desk.handler.plan(caller).await?))
}

async fn doctor<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<DoctorReport> {
    allow(caller, &request, "have the whole host looked at")?;
    query(&request, [])?;
    Ok(Json(desk.handler.doctor().await))
}

async fn history<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<Vec<BumpSummary>> {
    let [user, limit] = query(&request, ["user", "limit"])?;
    let user = user.map(|text| parsed::<UserName>("user", &text)).transpose()?;
    let limit = limit.map(|text| parsed::<usize>("limit", &text)).transpose()?.unwrap_or(HISTORY.0).min(HISTORY.1);
    Ok(Json(desk.handler.history(caller, user, limit).await?))
}

/// The name of a bump has the form of a user's name, too.
async fn explain<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    what: Result<Path<String>, PathRejection>,
    request: Request,
) -> Answer<Explanation> {
    query(&request, [])?;
    let what: UserName = parsed("user or bump", &segment(what)?)?;
    Ok(Json(desk.handler.explain(caller, what).await?))
}

/// Which versions are there is everybody's to know, who else runs them is not.
async fn versions<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<Vec<VersionStatus>> {
    query(&request, [])?;
    let mut versions = desk.handler.versions().await?;
    if !caller.privileged {
        let visible = desk.handler.status(caller).await.instances;
        for version in &mut versions {
            version.users.retain(|user| visible.iter().any(|instance| instance.user == *user));
        }
    }
    Ok(Json(versions))
}

async fn instances<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<Vec<InstanceStatus>> {
    query(&request, [])?;
    Ok(Json(desk.handler.status(caller).await.instances))
}

async fn instance<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    user: Result<Path<String>, PathRejection>,
    request: Request,
) -> Answer<InstanceStatus> {
    query(&request, [])?;
    let user: UserName = parsed("user", &segment(user)?)?;
    let found = desk.handler.status(caller).await.instances.into_iter().find(|instance| instance.user == user);
    found.map(Json).ok_or_else(|| Refusal::not_found(format!("there is no instance of {user} here that you may see")))
}

/// With `?wait_ms=N`, answers when the run has ended or has another number of progress lines than `seen` (default: than now),
/// or after N ms, whichever is first.
async fn run<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Answer<RunReport> {
    let [wait, seen] = query(&request, ["wait_ms", "seen"])?;
    let id = parsed::<u64>("run", &segment(id)?)?;
    let wait = wait.map(|text| parsed::<u64>("wait_ms", &text)).transpose()?.unwrap_or(0);
    let seen = seen.map(|text| parsed::<usize>("seen", &text)).transpose()?;
    let until = Instant::now() + Duration::from_millis(wait).min(desk.limits.poll_time);
    let mut report = desk.handler.run(caller, id).await?;
    let seen = seen.unwrap_or(report.progress.len());
    while !report.done && report.progress.len() == seen && Instant::now() < until {
        tokio::time::sleep(POLL_PERIOD.min(until.saturating_duration_since(Instant::now()))).await;
        report = desk.handler.run(caller, id).await?;
    }
    Ok(Json(report))
}

async fn prometheus<H: Handler>(State(desk): State<Desk<H>>, Extension(caller): Extension<Caller>) -> Response {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let text = metrics::exposition(&desk.handler.status(caller).await, now_ms);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn enforce<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    Extension(inside): Extension<Inside>,
    request: Request,
) -> Answer<RunReport> {
    allow(caller, &request, "enforce the pin")?;
    let Nothing {} = body(request, desk.limits).await?;
    whole(async move { desk.handler.enforce(caller, inside).await }).await
}

async fn rollback<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<RunReport> {
    allow(caller, &request, "roll back")?;
    let what: RollbackRequest = body(request, desk.limits).await?;
    whole(async move { desk.handler.rollback(caller, what).await }).await
}

async fn enroll<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<RunReport> {
    allow(caller, &request, "enroll users")?;
    let whom: EnrollRequest = body(request, desk.limits).await?;
    whole(async move { desk.handler.enroll(caller, whom).await }).await
}

async fn unenroll<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<RunReport> {
    allow(caller, &request, "let go of users")?;
    let whom: UnenrollRequest = body(request, desk.limits).await?;
    whole(async move { desk.handler.unenroll(caller, whom).await }).await
}

async fn now<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    Extension(inside): Extension<Inside>,
    request: Request,
) -> Answer<RunReport> {
    let what: NowRequest = body(request, desk.limits).await?;
    let user = whose(&desk, caller, what.user, "ask for the bump of").await?;
    whole(async move { desk.handler.now(caller, inside, user, what.force).await }).await
}

async fn defer<H: Handler>(State(desk): State<Desk<H>>, Extension(caller): Extension<Caller>, request: Request) -> Answer<Told> {
    let mut what: DeferRequest = body(request, desk.limits).await?;
    let user = whose(&desk, caller, what.user.take(), "put off the bump of").await?;
    whole(async move { desk.handler.defer(caller, user, what).await }).await
}

/// The answer is a secret: nothing on its way may keep it.
async fn mint<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    let mut what: MintRequest = body(request, desk.limits).await?;
    let user = whose(&desk, caller, what.user.take(), "mint a pairing credential of").await?;
    let minted = whole(async move { desk.handler.mint(caller, user, what).await }).await?;
    Ok(([(header::CACHE_CONTROL, "no-store")], minted).into_response())
}

/// As [`mint`], for several.
async fn reissue<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    let mut what: ReissueRequest = body(request, desk.limits).await?;
    let user = whose(&desk, caller, what.user.take(), "mint pairing credentials of").await?;
    let reissued = whole(async move { desk.handler.reissue(caller, user, what).await }).await?;
    Ok(([(header::CACHE_CONTROL, "no-store")], reissued).into_response())
}

async fn freeze<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<Acknowledged> {
    allow(caller, &request, "freeze version changes")?;
    let why: FreezeRequest = body(request, desk.limits).await?;
    whole(async move { desk.handler.freeze(why).await.map(|()| Acknowledged { done: true }) }).await
}

async fn thaw<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<Acknowledged> {
    allow(caller, &request, "lift the freeze")?;
    let Nothing {} = body(request, desk.limits).await?;
    whole(async move { desk.handler.thaw().await.map(|()| Acknowledged { done: true }) }).await
}

async fn clear_quarantine<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<Acknowledged> {
    allow(caller, &request, "clear a quarantine")?;
    let which: ClearRequest = body(request, desk.limits).await?;
    whole(async move { desk.handler.clear_quarantine(which).await.map(|()| Acknowledged { done: true }) }).await
}

async fn retry_version<H: Handler>(
    State(desk): State<Desk<H>>,
    Extension(caller): Extension<Caller>,
    Extension(inside): Extension<Inside>,
    request: Request,
) -> Answer<RunReport> {
    allow(caller, &request, "try a quarantined version once more")?;
    let which: RetryRequest = body(request, desk.limits).await?;
    whole(async move { desk.handler.retry_version(caller, inside, which).await }).await
}

/// The variable part of a path, refused in our own form when it is not text.
pub(super) fn segment(path: Result<Path<String>, PathRejection>) -> Result<String, Refusal> {
    path.map(|Path(text)| text)
        .map_err(|error| Refusal::bad_request(StatusCode::BAD_REQUEST, format!("the path is not right: {error}")))
}

async fn unknown(method: Method, uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(128).collect();
    Refusal::not_found(format!("there is nothing at {method} {path}; this agent speaks /v1 (see t3pin(1)) and /metrics"))
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    let right = if method == Method::GET { "POST" } else { "GET" };
    let said = format!("{} does not take {method}, but {right}", uri.path());
    Refusal::bad_request(StatusCode::METHOD_NOT_ALLOWED, said)
}

/// The body of requests that have nothing to say.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Refuses `caller` unless privileged. What changes the host leaves a line in the log either way: who asked for what.
pub(super) fn allow(caller: Caller, request: &Request, what: &str) -> Result<(), Refusal> {
    let path = request.uri().path();
    if !caller.privileged {
        tracing::warn!(uid = caller.uid, pid = caller.pid, path, "refused: uid {} asked to {what} and may not", caller.uid);
        return Err(Refusal::forbidden(caller, what));
    }
    if request.method() == Method::POST {
        tracing::info!(uid = caller.uid, pid = caller.pid, path, "uid {} (pid {}) asks to {what}", caller.uid, caller.pid);
    }
    Ok(())
}

/// Whom `caller` speaks for: the privileged for `asked`, everybody for themselves, and nobody else for anybody.
async fn whose<H: Handler>(desk: &Desk<H>, caller: Caller, asked: Option<UserName>, what: &str) -> Result<UserName, Refusal> {
    let own = desk.handler.user_of(caller.uid).await;
    match (asked, own) {
        (Some(user), _) if caller.privileged => Ok(user),
        (Some(user), Some(own)) if user == own => Ok(user),
        (None, Some(own)) => Ok(own),
        (None, None) => Err(Refusal::bad_request(StatusCode::BAD_REQUEST, "say whose: this host does not know you by name")),
        (Some(user), _) => {
            tracing::warn!(uid = caller.uid, pid = caller.pid, "refused: uid {} asked to {what} {user} and may not", caller.uid);
            Err(Refusal::forbidden(caller, &format!("{what} {user}")))
        }
    }
}

/// Does `work` to its end even when the caller hangs up in the middle: what changes the host is not done by halves.
pub(super) async fn whole<T: Send + 'static>(work: impl Future<Output = Result<T, ApiError>> + Send + 'static) -> Answer<T> {
    match tokio::spawn(work).await {
        Ok(answer) => Ok(Json(answer?)),
        Err(error) => {
            tracing::error!("a request ended in a fault of the agent itself: {error}");
            Err(Refusal::internal("the agent failed at this by a fault of its own; its journal says more: journalctl -u t3pin"))
        }
    }
}
