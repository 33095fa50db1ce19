//! One HTTP request on a fresh connection: bounded in time, head and body.
//!
//! A request that arrives while t3 is starting may never be answered (T3-CONTRACT, "Seen with real t3"), so nothing here
//! keeps a connection, and every request has its own deadline.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, COOKIE, HOST, HeaderValue, SET_COOKIE, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::worker::tasks::trouble;

/// Bytes of an answer's head and of its body that are read at most.
pub const MAX_ANSWER: usize = 64 << 10;

/// Header lines of an answer that are read at most.
const MAX_HEADERS: usize = 64;

/// A server that is asked.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where it listens.
    pub address: SocketAddr,
    /// How long one request may take, connection included.
    pub timeout: Duration,
    /// `User-Agent:`, by which the probe's own session is found again.
    pub agent: String,
}

/// What a server answered.
#[derive(Debug)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// `Set-Cookie:` lines that are text.
    pub cookies: Vec<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoReply {
    /// This host cannot ask right now (descriptors, memory, network down).
    #[error("this host could not ask: {0}")]
    Host(String),
    /// Nobody listens.
    #[error("nobody answers: connection refused")]
    Refused,
    /// No answer in time.
    #[error("no answer within {0} ms")]
    Timeout(u128),
    /// What came back is no HTTP answer, or larger than allowed.
    #[error("the answer is unusable: {0}")]
    Broken(String),
}

impl Peer {
    /// `GET path`, with a `Cookie:` line if given.
    pub async fn get(&self, path: &str, cookie: Option<&str>) -> Result<Reply, NoReply> {
        let mut request = self.request(Method::GET, path, Bytes::new())?;
        if let Some(cookie) = cookie {
            let mut value = HeaderValue::from_str(cookie).map_err(|_| NoReply::Broken("the cookie is no header".to_owned()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(COOKIE, value);
        }
        self.ask(request).await
    }

    /// `POST path` with a JSON body.
    pub async fn post(&self, path: &str, json: String) -> Result<Reply, NoReply> {
        let mut request = self.request(Method::POST, path, Bytes::from(json))?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.ask(request).await
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, NoReply> {
        Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.to_string())
            .header(USER_AGENT, &self.agent)
            .header(hyper::header::ACCEPT, "application/json")
            .header(hyper::header::CONNECTION, "close")
            .body(Full::new(body))
            .map_err(|error| NoReply::Broken(format!("\"{path}\" cannot be asked for: {error}")))
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Result<Reply, NoReply> {
        tokio::time::timeout(self.timeout, self.converse(request))
            .await
            .unwrap_or(Err(NoReply::Timeout(self.timeout.as_millis())))
    }

    async fn converse(&self, request: Request<Full<Bytes>>) -> Result<Reply, NoReply> {
        let stream = TcpStream::connect(self.address).await.map_err(unreachable)?;
        exchange(stream, request).await
    }
}

/// One request and its answer over `stream`.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Reply, NoReply> {
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_ANSWER)
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        read(response).await
    };
    // The connection has to be driven for the answer to come; when it ends first, the answer tells how.
    let drive = async {
        connection.await.ok();
        std::future::pending().await
    };
    tokio::select! {
        biased;
        reply = answer => reply,
        never = drive => never,
    }
}

async fn read(response: Response<hyper::body::Incoming>) -> Result<Reply, NoReply> {
    let status = response.status().as_u16();
    let cookies =
        response.headers().get_all(SET_COOKIE).iter().filter_map(|line| line.to_str().ok()).map(str::to_owned).collect();
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| NoReply::Broken(error.to_string()))?
        .to_bytes()
        .to_vec();
    Ok(Reply { status, cookies, body })
}

/// See `crate::fuzzing`: what is made of a server that sends these bytes and then hangs up.
#[cfg(feature = "fuzzing")]
pub async fn fuzz_answer(bytes: &[u8]) -> Result<Reply, NoReply> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let peer = Peer { address: SocketAddr::from(([127, 0, 0, 1], 1)), timeout: Duration::from_secs(1), agent: "fuzz".to_owned() };
    let request = peer.request(Method::GET, "/", Bytes::new())?;
    let (mut theirs, ours) = tokio::io::duplex(4096);
    let server = async {
        // A whole request first, as a server would have it; a client that has hung up is none of its worries.
        theirs.read(&mut [0; 1024]).await.ok();
        theirs.write_all(bytes).await.ok();
        theirs.shutdown().await.ok();
        std::future::pending().await
    };
    tokio::select! {
        biased;
        reply = exchange(ours, request) => reply,
        never = server => never,
    }
}

fn unreachable(error: io::Error) -> NoReply {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => NoReply::Refused,
        _ if trouble::is_environment(&error) => NoReply::Host(error.to_string()),
        _ => NoReply::Broken(error.to_string()),
    }
}

fn broken(error: hyper::Error) -> NoReply {
    NoReply::Broken(error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::super::peer_for_tests::{Play, serve};
    use super::*;

    fn ask(play: Play) -> Result<Reply, NoReply> {
        let server = serve(move |_| play.clone());
        let peer = Peer { address: server.address(), timeout: Duration::from_millis(400), agent: "t".to_owned() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(peer.get("/", None))
    }

    #[test]
    fn an_honest_answer_comes_whole() {
        let reply = ask(Play::json(200, "{}").with_cookie("a=b; Path=/")).unwrap();
        assert_eq!((reply.status, reply.cookies, reply.body), (200, vec!["a=b; Path=/".to_owned()], b"{}".to_vec()));
    }

    #[test]
    fn an_endless_body_is_cut_off() {
        assert!(matches!(ask(Play::Endless("HTTP/1.1 200 OK\r\n\r\n", "x")), Err(NoReply::Broken(_))));
    }

    #[test]
    fn an_endless_head_is_cut_off() {
        assert!(matches!(ask(Play::Endless("HTTP/1.1 200 OK\r\n", "x: y\r\n")), Err(NoReply::Broken(_))));
        assert!(matches!(ask(Play::Endless("HTTP/1.1 200 OK\r\nx: ", "y")), Err(NoReply::Broken(_))));
    }

    #[test]
    fn a_server_that_promises_for_ever_runs_into_the_deadline() {
        let end = ask(Play::Endless("", "HTTP/1.1 100 Continue\r\n\r\n"));
        assert!(matches!(end, Err(NoReply::Timeout(_) | NoReply::Broken(_))), "{end:?}");
    }

    #[test]
    fn a_server_that_never_answers_runs_into_the_deadline() {
        assert_eq!(ask(Play::Silence).unwrap_err(), NoReply::Timeout(400));
    }

    #[test]
    fn a_server_that_hangs_up_or_talks_rubbish_is_broken() {
        assert!(matches!(ask(Play::Raw("")), Err(NoReply::Broken(_))));
        assert!(matches!(ask(Play::Raw("SSH-2.0-x\r\n")), Err(NoReply::Broken(_))));
        assert!(matches!(ask(Play::Raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx")), Err(NoReply::Broken(_))));
    }

    #[test]
    fn nobody_there_is_refused() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let peer = Peer { address: free, timeout: Duration::from_secs(1), agent: "t".to_owned() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(peer.get("/", None)).unwrap_err(), NoReply::Refused);
    }
}
