//! Exchanging a credential for a session cookie, and seeing that the cookie is worth something.

use std::time::Duration;

use serde::Deserialize;

use super::http::{NoReply, Peer, Reply};
use crate::domain::StepOutcome;
use crate::worker::protocol::MintedLink;
use crate::worker::tasks::redact::excerpt;
use crate::worker::tasks::trouble::{failed, inconclusive};

/// Where a server says who is logged in, and the name of its cookie.
const SESSION_PATH: &str = "/api/auth/session";

/// The cookie's name where the server does not say (T3-CONTRACT section 2).
const USUAL_COOKIE: &str = "t3_session";

/// Requests before a server that does not answer, or answers 5xx, is given up.
const TRIES: u32 = 3;

/// Pause between them.
const PAUSE: Duration = Duration::from_millis(300);

/// What an operator gets to read of an answer's body, in characters.
const BODY: usize = 200;

/// A session as a browser would hold it.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// The endpoint that gave it.
    pub endpoint: String,
    /// The cookie's name.
    pub name: String,
    value: String,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({}, {}=***)", self.endpoint, self.name)
    }
}

/// Why there is no session.
#[derive(Debug, PartialEq, Eq)]
pub enum NoSession {
    /// The step's outcome.
    Outcome(StepOutcome),
    /// An earlier request was not answered and may have used the credential up: try with a new one.
    Spent,
}

#[derive(Deserialize)]
struct SessionAnswer {
    authenticated: bool,
    auth: Option<AuthAnswer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthAnswer {
    session_cookie_name: Option<String>,
}

/// The name of the session cookie, as the server itself reports it.
pub async fn cookie_name(peer: &Peer) -> String {
    let reported = async {
        let reply = peer.get(SESSION_PATH, None).await.ok()?;
        serde_json::from_slice::<SessionAnswer>(&reply.body).ok()?.auth?.session_cookie_name
    };
    reported.await.filter(|name| is_cookie_name(name)).unwrap_or_else(|| USUAL_COOKIE.to_owned())
}

/// Exchanges `link` at the first of `endpoints` that the server knows (404 and 405 mean: the next one).
pub async fn exchange(peer: &Peer, endpoints: &[String], link: &MintedLink, name: &str) -> Result<Session, NoSession> {
    let body = serde_json::json!({ "credential": link.credential }).to_string();
    for endpoint in endpoints {
        let reply = post(peer, endpoint, &body).await?;
        match reply.status {
            404 | 405 => {}
            200..=299 => {
                return match cookie(&reply.cookies, name) {
                    Some(value) => Ok(Session { endpoint: endpoint.clone(), name: name.to_owned(), value }),
                    None => Err(NoSession::Outcome(failed(format!(
                        "POST {endpoint} answers {} without a cookie named {name}",
                        reply.status
                    )))),
                };
            }
            status => {
                let said = excerpt(&reply.body, BODY);
                let said = if said.is_empty() { "nothing more".to_owned() } else { said };
                return Err(NoSession::Outcome(failed(format!(
                    "POST {endpoint} answers {status} to a fresh credential, and says {said}"
                ))));
            }
        }
    }
    Err(NoSession::Outcome(StepOutcome::Failed {
        reason: format!(
            "the pairing API has moved: none of {} exists; when you know the new path, add it to `pair_endpoints` under \
             [health] in /etc/t3pin/agent.toml",
            endpoints.join(", ")
        ),
        contract_moved: true,
    }))
}

/// One exchange, repeated when it is not answered or the server stumbles.
async fn post(peer: &Peer, endpoint: &str, body: &str) -> Result<Reply, NoSession> {
    let mut unanswered = false;
    let mut last = Err(NoReply::Refused);
    for attempt in 1..=TRIES {
        if attempt > 1 {
            tokio::time::sleep(PAUSE).await;
        }
        last = peer.post(endpoint, body.to_owned()).await;
        match &last {
            Ok(reply) if reply.status >= 500 => {}
            Ok(reply) if reply.status == 401 && unanswered => return Err(NoSession::Spent),
            Ok(_) => break,
            Err(NoReply::Timeout(_) | NoReply::Broken(_)) => unanswered = true,
            Err(NoReply::Refused | NoReply::Host(_)) => {}
        }
    }
    last.map_err(|why| NoSession::Outcome(silence(&why, &format!("POST {endpoint}"))))
}

/// Whether the server takes the cookie for a login.
pub async fn authenticated(peer: &Peer, session: &Session) -> Result<(), StepOutcome> {
    let cookie = format!("{}={}", session.name, session.value);
    let mut outcome = failed("not asked");
    for attempt in 1..=TRIES {
        if attempt > 1 {
            tokio::time::sleep(PAUSE).await;
        }
        outcome = match peer.get(SESSION_PATH, Some(&cookie)).await {
            Ok(reply) => match serde_json::from_slice::<SessionAnswer>(&reply.body) {
                Ok(answer) if reply.status == 200 && answer.authenticated => return Ok(()),
                Ok(_) if reply.status == 200 => {
                    return Err(failed(format!("GET {SESSION_PATH} does not take the cookie that the server has just given")));
                }
                _ => failed(format!("GET {SESSION_PATH} answers {}: {}", reply.status, excerpt(&reply.body, BODY))),
            },
            Err(why) => silence(&why, &format!("GET {SESSION_PATH}")),
        };
    }
    Err(outcome)
}

/// The value of the cookie called `name`, if it is set to something that is not empty.
pub fn cookie(lines: &[String], name: &str) -> Option<String> {
    let values = lines.iter().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let mut values = values.map(|rest| rest.split(';').next().unwrap_or_default().trim());
    values.find(|value| !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic())).map(str::to_owned)
}

fn silence(why: &NoReply, request: &str) -> StepOutcome {
    match why {
        NoReply::Host(_) => inconclusive(format!("{request}: {why}")),
        _ => failed(format!("{request}: {why}, tried {TRIES} times")),
    }
}

/// Whether `name` is a token (RFC 6265) of reasonable length.
fn is_cookie_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_cookie_with_a_value_counts() {
        let lines = |line: &str| vec!["other=1".to_owned(), line.to_owned()];
        assert_eq!(cookie(&lines("t3_session=a.b; Path=/; HttpOnly"), "t3_session"), Some("a.b".to_owned()));
        for line in ["t3_session=; Path=/", "t3_session_3773=a", "xt3_session=a", "t3_session", "t3_session=a b"] {
            assert_eq!(cookie(&lines(line), "t3_session"), None, "{line}");
        }
    }

    #[test]
    fn a_session_never_shows_its_cookie() {
        let session = Session { endpoint: "/x".to_owned(), name: "t3_session".to_owned(), value: "secret".to_owned() };
        assert!(!format!("{session:?}").contains("secret"));
    }
}
