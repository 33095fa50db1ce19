//! `t3pin history [USER]`.

use clap::Args;

use super::answer::Answer;
use super::exit::Exit;
use super::render::{ago, lasting, now_ms, plain, table};
use crate::api::client::{Client, ClientError};
use crate::api::types::BumpSummary;
use crate::domain::{UnixMs, UserName};

/// Show bumps that ended, newest first, with what was set aside and kept
#[derive(Debug, Args)]
pub struct History {
    /// Only this user's
    user: Option<UserName>,
    /// At most this many (the agent tells no more than 1000)
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

impl History {
    /// Asks and shows.
    pub async fn run(self, client: &Client) -> Result<Answer, ClientError> {
        // User names need no escaping in a query (see UserName).
        let user = self.user.map_or_else(String::new, |user| format!("&user={user}"));
        let bumps: Vec<BumpSummary> = client.get(&format!("/v1/history?limit={}{user}", self.limit)).await?;
        Answer::new(&bumps, shown(&bumps, now_ms()), Exit::Done)
    }
}

pub(super) fn shown(bumps: &[BumpSummary], now: UnixMs) -> String {
    if bumps.is_empty() {
        return "No bumps so far that you may see.\n".to_owned();
    }
    let row = |bump: &BumpSummary| {
        [
            bump.id.clone(),
            ago(now, bump.started_ms),
            bump.user.to_string(),
            format!("{} -> {}", bump.from, bump.to),
            bump.outcome.clone(),
            lasting(bump.seconds),
            bump.downtime_ms.map_or_else(|| "-".to_owned(), |ms| lasting(std::time::Duration::from_millis(ms).as_secs_f64())),
            bump.reason.clone().unwrap_or_default(),
        ]
    };
    let head = ["BUMP", "WHEN", "USER", "VERSIONS", "OUTCOME", "TOOK", "DOWN", "WHY"];
    let mut out = table(head, &bumps.iter().map(row).collect::<Vec<_>>());
    let kept: Vec<String> = bumps.iter().flat_map(kept).collect();
    if !kept.is_empty() {
        out.push('\n');
        out.push_str(&kept.concat());
    }
    out
}

/// What lies on disk because of `bump`.
fn kept(bump: &BumpSummary) -> Vec<String> {
    let places = [("salvage ", &bump.salvage), ("snapshot", &bump.snapshot)];
    places
        .into_iter()
        .filter_map(|(what, path)| Some(format!("{} {what}  {}\n", plain(&bump.id), plain(path.as_deref()?))))
        .collect()
}
