//! The environment descriptor: who answers (T3-CONTRACT section 3).

use serde::Deserialize;

use super::http::Reply;
use crate::domain::Descriptor;

/// Where it is; needs no login.
pub const PATH: &str = "/.well-known/t3/environment";

/// Longest environment id taken; real ones are UUIDs (36).
const MAX_ID: usize = 128;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    server_version: Option<serde_json::Value>,
    environment_id: String,
}

/// Reads the descriptor out of an answer, or says what is wrong with it. Unknown paths answer 200 with the web page, so
/// the status alone says nothing.
pub fn read(reply: &Reply) -> Result<Descriptor, String> {
    if reply.status != 200 {
        return Err(format!("{PATH} answers {}", reply.status));
    }
    let raw: Raw =
        serde_json::from_slice(&reply.body).map_err(|_| format!("{PATH} answers 200 with something that is no descriptor"))?;
    if !is_plain(&raw.environment_id) {
        return Err(format!("{PATH} names no usable environment id"));
    }
    let server_version = raw.server_version.as_ref().and_then(serde_json::Value::as_str).and_then(|text| text.parse().ok());
    Ok(Descriptor { server_version, environment_id: raw.environment_id })
}

/// Whether an environment id is one that can be compared and shown.
pub fn is_plain(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn of(body: &str) -> Result<Descriptor, String> {
        read(&Reply { status: 200, cookies: Vec::new(), body: body.as_bytes().to_vec() })
    }

    #[test]
    fn a_real_descriptor_is_read() {
        let body = r#"{"environmentId":"6f1c-2","label":"h","platform":{"os":"linux","arch":"x64"},"serverVersion":"0.0.24","capabilities":{"repositoryIdentity":true}}"#;
        let descriptor = of(body).unwrap();
        assert_eq!(descriptor.environment_id, "6f1c-2");
        assert_eq!(descriptor.server_version, "0.0.24".parse().ok());
    }

    #[test]
    fn a_version_that_is_none_is_not_believed() {
        for version in ["\"latest\"", "7", "null", "\"0.0.24+x\""] {
            let descriptor = of(&format!(r#"{{"environmentId":"a","serverVersion":{version}}}"#)).unwrap();
            assert_eq!(descriptor.server_version, None);
        }
    }

    #[test]
    fn the_web_page_and_hostile_ids_are_no_descriptor() {
        let long = format!(r#"{{"environmentId":"{}"}}"#, "a".repeat(129));
        for body in ["<!doctype html>", "{}", r#"{"environmentId":""}"#, r#"{"environmentId":"a\nb"}"#, long.as_str()] {
            assert!(of(body).is_err(), "{body}");
        }
    }
}
