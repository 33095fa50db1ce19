//! The site's reverse proxy: does it hand this user the cookie?
//!
//! The proxy is not the version's: whatever keeps it from answering is inconclusive.

use std::time::{Duration, Instant};

use reqwest::header::{HeaderName, HeaderValue, SET_COOKIE};
use reqwest::redirect::Policy;

use super::exchange::cookie;
use crate::domain::StepOutcome;
use crate::worker::tasks::trouble::{failed, inconclusive};

/// A proxy that signs people in has t3 mint a credential, and exchanges it, before it answers: so many times what one request may take.
const TIMES: u32 = 5;
/// But no longer than this, however long one request may take.
const AT_MOST: Duration = Duration::from_secs(60);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// Has the proxy at `url` asked, for `user`, for the cookie called `name`, until it answers or the time for it is over. `timeout` is what one
/// request to a server may take.
pub async fn dispatch(url: &str, header: &str, user: &str, name: &str, timeout: Duration) -> Result<(), StepOutcome> {
    let until = Instant::now() + (timeout * TIMES).min(AT_MOST);
    loop {
        let answer = ask(url, header, user, name, until.saturating_duration_since(Instant::now()).max(timeout)).await;
        if !matches!(answer, Err(StepOutcome::Inconclusive { .. })) || Instant::now() + PAUSE + timeout > until {
            return answer;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// `GET url` with `header: user`, following no redirect; expects the cookie called `name`.
async fn ask(url: &str, header: &str, user: &str, name: &str, timeout: Duration) -> Result<(), StepOutcome> {
    // Fails when a provider is installed already, which is as good.
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = reqwest::Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .timeout(timeout)
        .user_agent(concat!("t3pin-probe/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| inconclusive(format!("the reverse proxy could not be asked: {error}")))?;
    let (Ok(header), Ok(value)) = (header.parse::<HeaderName>(), HeaderValue::from_str(user)) else {
        return Err(inconclusive(format!("\"{header}\" is no header name; see `dispatch_header` under [health]")));
    };
    let reply = client.get(url).header(header, value).send().await.map_err(|error| {
        // What it comes down to ("Connection refused"); what lies above that speaks of the client's own doings.
        let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
        let cause = causes.last().map_or_else(|| error.to_string(), ToString::to_string);
        inconclusive(format!("the reverse proxy did not answer: {cause} ({url})"))
    })?;
    let status = reply.status();
    let cookies: Vec<String> =
        reply.headers().get_all(SET_COOKIE).iter().filter_map(|line| line.to_str().ok()).map(str::to_owned).collect();
    if status.is_server_error() {
        return Err(inconclusive(format!("the reverse proxy answers {status}")));
    }
    if !status.is_success() && !status.is_redirection() {
        return Err(failed(format!("the reverse proxy answers {status}")));
    }
    match cookie(&cookies, name) {
        Some(_) => Ok(()),
        None => Err(failed(format!("the reverse proxy answers {status} without a cookie named {name}"))),
    }
}
