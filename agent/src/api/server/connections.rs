//! From the listener to requests: accept, identify, bound, serve.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::super::types::{ApiError, Caller, Inside};
use super::Handler;
use super::gate::Gate;
use super::limits::Limits;
use super::pace::Pace;
use super::peer::Peers;
use super::routes;
use crate::host::session::unit_of_caller;

/// How long to wait after a failed `accept` (out of file descriptors, as a rule) before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How long somebody who is turned away may take to hear why, and how many may be hearing it at a time.
const FAREWELL: Duration = Duration::from_millis(250);
const FAREWELLS: usize = 32;

/// As [`super::serve`], with `limits`.
pub async fn serve<H: Handler>(listener: UnixListener, handler: Arc<H>, limits: Limits) -> io::Result<()> {
    let (gate, pace, peers) = (Gate::new(limits), Pace::new(limits), Peers::default());
    let router = routes::router(handler, limits);
    // Dropping a set ends its connections, so nothing outlives the future.
    let (mut open, mut refused) = (JoinSet::new(), JoinSet::new());
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let Ok(credentials) = stream.peer_cred() else { continue };
                    match gate.admit(credentials.uid()) {
                        Ok(admission) => {
                            let (router, pace, peers) = (router.clone(), pace.clone(), peers.clone());
                            open.spawn(async move {
                                let _admission = admission;
                                let talk = async {
                                    let caller = peers.identify(credentials).await;
                                    converse(stream, caller, router, pace, limits).await;
                                };
                                let _ = tokio::time::timeout(limits.life, talk).await;
                            });
                        }
                        Err(why) if refused.len() < FAREWELLS => {
                            refused.spawn(turn_away(stream, why));
                        }
                        // A flood: those beyond count are hung up on.
                        Err(_) => {}
                    }
                }
                Err(error) => {
                    tracing::warn!("a connection to the socket could not be accepted, trying again: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = open.join_next() => {}
            Some(_) = refused.join_next() => {}
        }
    }
}

/// Serves one connection until either side is done. Its errors are the client's affair.
async fn converse(stream: UnixStream, caller: Caller, router: Router, pace: Pace, limits: Limits) {
    let routes = TowerToHyperService::new(router);
    let inside = Inside(unit_of_caller(&stream));
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(inside.clone());
        let (wait, answer) = (pace.wait(caller.uid, Instant::now()), routes.call(request));
        async move {
            tokio::time::sleep(wait).await;
            answer.await
        }
    });
    let ended = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(limits.head)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = ended {
        tracing::debug!(uid = caller.uid, pid = caller.pid, "connection ended: {error}");
    }
}

/// Tells a caller for whom there is no room why. Waits a moment for their request, since HTTP clients take an answer that
/// comes before the question for a broken connection, and for them to hang up, since closing on unread bytes loses the answer.
async fn turn_away(mut stream: UnixStream, why: String) {
    let error = ApiError { kind: "busy".to_owned(), error: why };
    let body = serde_json::to_string(&error).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let telling = async {
        let mut unread = [0; 4096];
        let _question = stream.read(&mut unread).await?;
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(FAREWELL, telling).await;
}
