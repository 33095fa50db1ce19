//! The site's reverse proxy, which signs people in: what it shows counts, and what keeps it from showing anything condemns nobody.

use crate::common::{GOOD, OLD, Site};

/// Signs in whom the header names, as a site would: mints for them with `t3pin mint`, exchanges that with their server, and answers with the
/// cookie and a redirect. `/root/proxy-mode` says which endpoints it knows; with `dies` it ends as soon as it meets another server than 0.0.24.
const PROXY: &str = r#"
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const mode = () => readFileSync("/root/proxy-mode", "utf8").trim();
const endpoints = () => (mode() === "old" ? ["bootstrap"] : ["browser-session", "bootstrap"]);

function mint(user) {
  return new Promise((done, failed) => {
    execFile("t3pin", ["mint", "--json", user], (problem, out) => (problem ? failed(problem) : done(JSON.parse(out).credential)));
  });
}

async function signIn(user) {
  const port = readFileSync(`/etc/t3-serve/${user}.env`, "utf8").match(/^T3_PORT=(\d+)/m)[1];
  const at = `http://127.0.0.1:${port}`;
  const { serverVersion } = await (await fetch(`${at}/.well-known/t3/environment`)).json();
  if (mode() === "dies" && serverVersion !== "0.0.24") process.exit(0);
  const credential = await mint(user);
  for (const endpoint of endpoints()) {
    const headers = { "content-type": "application/json" };
    const answer = await fetch(`${at}/api/auth/${endpoint}`, { method: "POST", headers, body: JSON.stringify({ credential }) });
    if (answer.status !== 404) return answer.headers.getSetCookie();
  }
  return [];
}

createServer(async (request, response) => {
  try {
    const cookies = await signIn(request.headers["x-authentik-username"]);
    response.writeHead(302, { location: "/", "set-cookie": cookies }).end();
  } catch (problem) {
    console.error(problem);
    response.writeHead(502).end();
  }
}).listen(3780, "127.0.0.1");
"#;

/// Has the proxy run, knowing the endpoints that `mode` says.
fn proxy(site: &Site, mode: &str) {
    site.sh("systemctl stop proxy");
    site.write("/root/proxy-mode", mode);
    site.ok("systemd-run --quiet --collect --unit=proxy node /root/proxy.mjs");
    site.until("the proxy listens", |site| site.sh("curl --silent --output /dev/null http://127.0.0.1:3780/").code == 0);
}

fn through_proxy(site: &Site, retry_after: &str) {
    site.settings(&format!(
        "[health]\ndispatch_url = \"http://127.0.0.1:3780/\"\nrequest_timeout = \"1s\"\n[drain]\nretry_after = \"{retry_after}\"\n"
    ));
}

#[test]
fn a_reverse_proxy_has_to_sign_people_in_as_before_and_one_that_is_away_condemns_nobody() {
    let site = Site::with(&["alice"]);
    site.write("/root/proxy.mjs", PROXY);
    through_proxy(&site, "1h");
    site.pin(GOOD);
    let (before, work) = (site.runs(&["alice"]), site.work("alice"));

    // Away from the beginning: what could only be rolled back again is not begun.
    let away = site.enforce_to(5);
    assert!(
        away.stdout.contains("the reverse proxy did not answer: Connection refused") && away.stdout.contains("was not touched"),
        "{away}"
    );
    assert_eq!(site.runs(&["alice"]), before, "her server was stopped: {away}");
    assert_eq!(site.status()["quarantine"], serde_json::json!([]), "{away}");

    // It knows only where the old version exchanges credentials: with the new one nobody gets in any more.
    proxy(&site, "old");
    let condemned = site.enforce_to(4);
    assert!(condemned.stdout.contains("without a cookie named t3_session"), "{condemned}");
    let status = site.status();
    assert_eq!(status["quarantine"][0]["version"], GOOD, "{status:#}");
    site.is_whole("alice", OLD, "30");
    assert_eq!(site.work("alice"), work);

    // It goes away in the middle.
    site.ok(&format!("t3pin versions clear {GOOD}"));
    proxy(&site, "dies");
    through_proxy(&site, "2s");
    let unclear = site.enforce_to(4);
    assert!(unclear.stdout.contains("the reverse proxy did not answer"), "{unclear}");
    assert_eq!(site.status()["quarantine"], serde_json::json!([]), "{unclear}");
    site.is_whole("alice", OLD, "30");
    let before = site.runs(&["alice"]);
    site.until("it is tried again, and the proxy is still away", |site| {
        let journal = site.journal();
        let again = journal.split_once("a rollout that had stopped is tried again (try ");
        again.is_some_and(|(_, after)| after.contains("was not touched"))
    });
    assert_eq!(site.runs(&["alice"]), before, "tried again at her cost");

    // It knows both by now.
    proxy(&site, "both");
    site.await_state("alice", "settled");
    site.is_whole("alice", GOOD, "31");
    assert_eq!(site.work("alice"), work);
}
