//! Who may what, for every route that changes something and every kind of caller. The routes are read from where they are made,
//! so that one without a rule here fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::Arc;

use hyper::service::Service;

use super::limits::Limits;
use super::routes;
use crate::api::canned::CannedHost;
use crate::api::types::{Caller, Inside, RunOutcome};

/// Where routes are made.
const SOURCES: [&str; 2] = [include_str!("routes.rs"), include_str!("archive_routes.rs")];

/// Who a route is for.
enum Rule {
    /// Root and group t3pin.
    Privileged(&'static str),
    /// Those, and users for themselves: the body with `USER` in place of whom it is about.
    OneSelf(&'static str),
    /// Everybody; what they may see of it is the handler's to decide, who is told the caller.
    Shown(&'static str),
}

const RULES: [(&str, Rule); 18] = [
    ("/v1/enforce", Rule::Privileged("")),
    ("/v1/rollback", Rule::Privileged(r#"{"user":"USER"}"#)),
    ("/v1/enroll", Rule::Privileged(r#"{"user":"USER"}"#)),
    ("/v1/unenroll", Rule::Privileged(r#"{"user":"USER"}"#)),
    ("/v1/freeze", Rule::Privileged("{}")),
    ("/v1/thaw", Rule::Privileged("")),
    ("/v1/quarantine/clear", Rule::Privileged(r#"{"version":"0.0.26"}"#)),
    ("/v1/quarantine/retry", Rule::Privileged(r#"{"version":"0.0.26","user":"USER"}"#)),
    ("/v1/snapshots/prune", Rule::Privileged(r#"{"user":"USER"}"#)),
    ("/v1/snapshots/restore", Rule::Privileged(r#"{"user":"USER","id":"b000001"}"#)),
    ("/v1/versions/remove", Rule::Privileged(r#"{"version":"0.0.26"}"#)),
    ("/v1/versions/verify", Rule::Privileged("{}")),
    ("/v1/mint", Rule::OneSelf(r#"{"user":"USER"}"#)),
    ("/v1/reissue", Rule::OneSelf(r#"{"user":"USER","kept":["l1"]}"#)),
    ("/v1/now", Rule::OneSelf(r#"{"user":"USER"}"#)),
    ("/v1/defer", Rule::OneSelf(r#"{"user":"USER","until_ms":5}"#)),
    ("/v1/snapshots/verify", Rule::Shown(r#"{"user":"USER"}"#)),
    ("/v1/snapshots/export", Rule::Shown(r#"{"user":"USER","id":"b000001"}"#)),
];

/// Kinds of callers. `CannedHost` knows uid 1000 as bob; 4000 has no name.
const BOB: Caller = Caller { uid: 1000, pid: 1, privileged: false };
const NAMELESS: Caller = Caller { uid: 4000, pid: 1, privileged: false };
const MEMBER: Caller = Caller { uid: 1001, pid: 1, privileged: true };
const ROOT: Caller = Caller { uid: 0, pid: 1, privileged: true };

/// The paths of all routes that are made with `method`.
fn made(method: &str) -> BTreeSet<String> {
    let routes = SOURCES.iter().flat_map(|source| source.split(".route(\"").skip(1));
    let made = routes.filter_map(|text| {
        let (path, rest) = text.split_once('"')?;
        rest.split(')').next()?.contains(&format!("{method}(")).then(|| path.to_owned())
    });
    made.collect()
}

/// The status code, and what the handler was asked.
fn ask(caller: Caller, method: &str, path: &str, body: &str) -> (u16, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let host = Arc::new(CannedHost::ending(RunOutcome::Done));
        let router = routes::router(Arc::clone(&host), Limits::default());
        let body = axum::body::Body::from(body.to_owned());
        let mut request = hyper::Request::builder().method(method).uri(path).body(body).unwrap();
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(Inside(None));
        let response = hyper_util::service::TowerToHyperService::new(router).call(request).await.unwrap();
        (response.status().as_u16(), host.asked.lock().unwrap().clone())
    })
}

#[test]
fn every_route_that_changes_something_has_a_rule_and_no_rule_is_for_nothing() {
    let ruled: BTreeSet<String> = RULES.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(made("post"), ruled);
    assert!(made("get").len() > 5, "the routes are found");
    for method in ["put", "delete", "patch", "any", "on"] {
        assert_eq!(made(method), BTreeSet::new(), "a kind of route that these tests do not know");
    }
    let all: usize = SOURCES.iter().map(|source| source.matches(".route(").count()).sum();
    assert_eq!(all, made("get").len() + made("post").len(), "a route that is made in another way");
}

#[test]
fn no_call_passes_that_should_not_and_every_call_that_should() {
    for (path, rule) in &RULES {
        let (body, unprivileged): (&str, &[(Caller, &str, bool)]) = match rule {
            Rule::Privileged(body) => (body, &[(BOB, "bob", false), (BOB, "alice", false), (NAMELESS, "bob", false)]),
            Rule::OneSelf(body) => (
                body,
                &[
                    (BOB, "bob", true),
                    (BOB, "alice", false),
                    (BOB, "root", false),
                    (NAMELESS, "bob", false),
                    (NAMELESS, "root", false),
                ],
            ),
            Rule::Shown(body) => (body, &[(BOB, "bob", true), (BOB, "alice", true), (NAMELESS, "bob", true)]),
        };
        let privileged = [(MEMBER, "alice", true), (MEMBER, "bob", true), (ROOT, "alice", true), (ROOT, "bob", true)];
        for (caller, whose, passes) in unprivileged.iter().copied().chain(privileged) {
            let (code, asked) = ask(caller, "POST", path, &body.replace("USER", whose));
            if passes {
                assert!(code == 200 && asked.len() == 1, "{path} for {whose} by {caller:?}: {code} {asked:?}");
            } else {
                assert!(code == 403 && asked.is_empty(), "{path} for {whose} by {caller:?}: {code} {asked:?}");
            }
        }
    }
}

#[test]
fn looking_changes_nothing_and_changing_is_not_done_by_looking() {
    for (path, _) in &RULES {
        for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH"] {
            let (code, asked) = ask(ROOT, method, path, "");
            assert!(matches!(code, 404 | 405) && asked.is_empty(), "{method} {path}: {code} {asked:?}");
        }
    }
}
