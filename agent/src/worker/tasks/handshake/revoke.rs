//! Taking back what a probe made: its session and its pairing link.
//!
//! Runs after the verdict and never changes it. A session is the probe's when it carries this probe's user agent; those
//! that an earlier probe had to leave behind (killed in between) go too.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::mint::{Cli, first_json, is_plain_id};
use crate::domain::StepOutcome;
use crate::worker::protocol::MintedLink;

/// Begins the user agent of every probe.
pub const AGENT_PREFIX: &str = "t3pin-probe/";

/// A probe's session older than this belongs to no probe under way.
const FORGOTTEN: SignedDuration = SignedDuration::from_mins(30);

/// Sessions revoked at most in one go; each costs a run of the CLI.
const MOST: usize = 4;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    session_id: String,
    issued_at: Option<String>,
    client: Option<Client>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Client {
    user_agent: Option<String>,
}

/// Revokes the sessions that probes made: this one's (`agent`) and forgotten ones.
pub async fn sessions(cli: &Cli<'_>, agent: &str) -> Result<(), StepOutcome> {
    let ended = cli.run(&["auth", "session", "list"], &["--json"]).await?;
    let listed: Vec<Listed> = first_json(&ended.stdout).unwrap_or_default();
    for id in ours(&listed, agent, Timestamp::now()) {
        cli.run(&["auth", "session", "revoke", id], &[]).await?;
    }
    Ok(())
}

/// Revokes a pairing link that was not used. Revoking a used one is fine (T3-CONTRACT section 1).
pub async fn link(cli: &Cli<'_>, link: &MintedLink) -> Result<(), StepOutcome> {
    cli.run(&["auth", "pairing", "revoke", &link.id], &[]).await.map(|_| ())
}

fn ours<'a>(listed: &'a [Listed], agent: &str, now: Timestamp) -> Vec<&'a str> {
    let is_ours = |session: &&Listed| {
        let Some(seen) = session.client.as_ref().and_then(|client| client.user_agent.as_deref()) else { return false };
        let issued = session.issued_at.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        let forgotten = || issued.is_some_and(|issued| now.duration_since(issued) > FORGOTTEN);
        seen == agent || (seen.starts_with(AGENT_PREFIX) && forgotten())
    };
    let mut ids: Vec<_> = listed.iter().filter(is_ours).collect();
    // This probe's own first.
    ids.sort_by_key(|session| session.client.as_ref().and_then(|c| c.user_agent.as_deref()) != Some(agent));
    ids.iter().map(|session| session.session_id.as_str()).filter(|id| is_plain_id(id)).take(MOST).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn only_sessions_of_probes_are_revoked() {
        let listed: Vec<Listed> = serde_json::from_str(
            r#"[{"sessionId":"user","issuedAt":"2026-01-01T00:00:00.000Z","client":{"userAgent":"Mozilla/5.0 t3pin-probe/1"}},
                {"sessionId":"other-probe-now","issuedAt":"2026-01-01T01:59:00.000Z","client":{"userAgent":"t3pin-probe/1 (b)"}},
                {"sessionId":"forgotten","issuedAt":"2026-01-01T00:00:00.000Z","client":{"userAgent":"t3pin-probe/1 (c)"}},
                {"sessionId":"mine","issuedAt":"2026-01-01T02:00:00.000Z","client":{"userAgent":"t3pin-probe/1 (a)"}},
                {"sessionId":"--help","issuedAt":"2026-01-01T02:00:00.000Z","client":{"userAgent":"t3pin-probe/1 (a)"}},
                {"sessionId":"bare"}]"#,
        )
        .unwrap();
        let now = "2026-01-01T02:00:01Z".parse().unwrap();
        assert_eq!(ours(&listed, "t3pin-probe/1 (a)", now), ["mine", "forgotten"]);
    }
}
