//! Reading what a caller sent, within bounds and with errors that say what is wrong.

use axum::extract::Request;
use axum::http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::limits::Limits;
use super::refusal::Refusal;

/// The request's body as `T`. An empty body counts as `{}`. Refuses what is too long, too slow, not JSON, or has fields
/// that `T` does not know (the types deny them).
pub async fn body<T: DeserializeOwned>(request: Request, limits: Limits) -> Result<T, Refusal> {
    let reading = Limited::new(request.into_body(), limits.body).collect();
    let bytes = match tokio::time::timeout(limits.body_time, reading).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() || is_length_limit(error.as_ref()) => {
            let said = format!("the request's body is longer than {} KiB, the most that is read", limits.body / 1024);
            return Err(Refusal::bad_request(StatusCode::PAYLOAD_TOO_LARGE, said));
        }
        Ok(Err(error)) => {
            return Err(Refusal::bad_request(StatusCode::BAD_REQUEST, format!("the request's body could not be read: {error}")));
        }
        Err(_) => {
            let said = format!("the request's body did not arrive within {} s", limits.body_time.as_secs());
            return Err(Refusal::bad_request(StatusCode::REQUEST_TIMEOUT, said));
        }
    };
    let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(text)
        .map_err(|error| Refusal::bad_request(StatusCode::BAD_REQUEST, format!("the request's body is not right: {error}")))
}

/// The `key=value` pairs of the request's query, of which only `allowed` may occur, each once.
pub fn query<const N: usize>(request: &Request, allowed: [&'static str; N]) -> Result<[Option<String>; N], Refusal> {
    let refuse = |why: String| Err(Refusal::bad_request(StatusCode::BAD_REQUEST, why));
    let mut values = [const { None }; N];
    let pairs = match axum::extract::Query::<Vec<(String, String)>>::try_from_uri(request.uri()) {
        Ok(pairs) => pairs.0,
        Err(error) => return refuse(format!("the query is not right: {error}")),
    };
    for (key, value) in pairs {
        let Some(at) = allowed.iter().position(|name| *name == key) else {
            let known = if N == 0 { "none are".to_owned() } else { format!("known are: {}", allowed.join(", ")) };
            return refuse(format!("unknown query parameter \"{}\" ({known})", shortened(&key)));
        };
        if values[at].replace(value).is_some() {
            return refuse(format!("query parameter \"{key}\" is given twice"));
        }
    }
    Ok(values)
}

/// `text` as a `T`, or a refusal that names `what` it should have been.
pub fn parsed<T: std::str::FromStr>(what: &str, text: &str) -> Result<T, Refusal>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| {
        Refusal::bad_request(StatusCode::BAD_REQUEST, format!("{what} \"{}\" is not right: {error}", shortened(text)))
    })
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

/// axum wraps body errors, so the length limit may be the cause of a cause.
fn is_length_limit(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<LengthLimitError>())
}
