//! The client side: all that `cli` knows of the agent.
//!
//! One connection per request, no pool, no TLS, no proxy: small and quick to start. Answers are bounded in size and time,
//! because `--socket` may name a socket of anybody.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::types::ApiError;

/// Where the agent's socket is when nobody says otherwise (DESIGN section 3).
pub const DEFAULT_SOCKET: &str = "/run/t3pin/t3pin.sock";

/// The longest answer that is read.
const MAX_ANSWER: usize = 32 * 1024 * 1024;

/// How long an answer may take. Long, since systemd keeps callers waiting on the socket while the agent starts and recovers.
const PATIENCE: Duration = Duration::from_secs(60);

/// Speaks to the agent behind one socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers on the socket.
    #[error("{0}")]
    Unreachable(String),
    /// The agent answered that it will not.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// The answer makes no sense: not an agent, or one of another version.
    #[error("{0}")]
    Garbled(String),
}

impl Client {
    /// A client of the agent behind `socket`. Connects when asked something.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Asks for `path` (with its query).
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Sends `what` to `path`.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, what: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(what).map_err(|e| ClientError::Garbled(format!("the request cannot be written: {e}")))?;
        self.ask(Method::POST, path, body.into()).await
    }

    /// Asks for `path` and takes the answer as it is: what an export consists of is no JSON.
    pub async fn bytes(&self, path: &str) -> Result<Bytes, ClientError> {
        self.ask_plainly(Method::GET, path, Bytes::new()).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        let answer = self.ask_plainly(method, path, body).await?;
        serde_json::from_slice(&answer).map_err(|error| self.garbled(StatusCode::OK, &error.to_string()))
    }

    async fn ask_plainly(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let asking = async {
            let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
            self.exchange(stream, method, path, body).await
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Unreachable(format!(
                "the agent at {} took the call but did not answer within {} s; see journalctl -u t3pin",
                self.socket.display(),
                PATIENCE.as_secs()
            ))),
        }
    }

    async fn exchange(&self, stream: UnixStream, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "t3pin")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| ClientError::Garbled(format!("the request cannot be written: {error}")))?;
        let lost = |error: hyper::Error| {
            let socket = self.socket.display();
            ClientError::Unreachable(format!("the agent at {socket} hung up ({error}); see journalctl -u t3pin"))
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        // Driven beside the request, not spawned: when this future is dropped, so is the connection.
        let talking = async move {
            let response = sender.send_request(request).await.map_err(lost)?;
            self.read(response).await
        };
        tokio::pin!(talking);
        tokio::select! {
            answer = &mut talking => answer,
            _ = connection => talking.await,
        }
    }

    async fn read(&self, response: Response<hyper::body::Incoming>) -> Result<Bytes, ClientError> {
        let status = response.status();
        let reading = Limited::new(response.into_body(), MAX_ANSWER).collect();
        let bytes = reading.await.map_err(|error| self.garbled(status, &error.to_string()))?.to_bytes();
        if status.is_success() {
            return Ok(bytes);
        }
        Err(match serde_json::from_slice::<ApiError>(&bytes) {
            Ok(error) => ClientError::Refused(error),
            Err(error) => self.garbled(status, &error.to_string()),
        })
    }

    fn garbled(&self, status: StatusCode, why: &str) -> ClientError {
        let socket = self.socket.display();
        ClientError::Garbled(format!("{socket} does not answer as a t3pin agent of this version does: HTTP {status}, {why}"))
    }

    /// One line on why there is no agent, and what to do.
    fn unreachable(&self, error: &io::Error) -> ClientError {
        let socket = self.socket.display();
        ClientError::Unreachable(match error.kind() {
            io::ErrorKind::NotFound => {
                format!("no agent: there is no socket at {socket}; start it with: systemctl start t3pin.socket t3pin.service")
            }
            io::ErrorKind::ConnectionRefused => {
                format!("no agent: nobody listens on {socket}; start it with: systemctl start t3pin.socket t3pin.service")
            }
            io::ErrorKind::PermissionDenied => format!("no agent: this user may not open {socket}"),
            _ => format!("no agent: {socket} cannot be opened: {error}"),
        })
    }
}
