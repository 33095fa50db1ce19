//! `t3pin status [USER]`.

mod host;
pub(super) mod one;

use std::io::{self, IsTerminal};

use clap::Args;

use super::answer::Answer;
use super::exit::Exit;
use super::render::{fitted, now_ms};
use crate::api::client::{Client, ClientError};
use crate::api::types::{ApiError, InstanceStatus, StatusReport};
use crate::domain::UserName;

/// Show what runs, what is coming and why it waits
#[derive(Debug, Args)]
pub struct Status {
    /// Only this user's instance, in detail
    user: Option<UserName>,
}

impl Status {
    /// Asks, and exits 6 when something shown is stuck.
    pub async fn run(self, client: &Client) -> Result<Answer, ClientError> {
        let mut report: StatusReport = client.get("/v1/status").await?;
        if let Some(user) = &self.user {
            report.instances.retain(|instance| instance.user == *user);
            if report.instances.is_empty() {
                let error = format!("there is no instance of {user} here that you may see");
                return Err(ApiError { kind: "not-found".to_owned(), error }.into());
            }
        }
        let ordinary = !rustix::process::geteuid().is_root();
        let width =
            io::stdout().is_terminal().then(terminal_size::terminal_size).flatten().map(|(width, _)| usize::from(width.0));
        let text = shown(&report, self.user.is_some() || ordinary, now_ms(), width);
        Answer::new(&report, text, exit(&report))
    }
}

/// `report` for people: the host with a table of its instances or, when there is just one and `closely`, that one in detail.
/// The table is cut to `width` columns.
pub(super) fn shown(report: &StatusReport, closely: bool, now_ms: i64, width: Option<usize>) -> String {
    let head = host::shown(report, now_ms);
    let instances = match report.instances.as_slice() {
        [] => "No instance that you may see.\n".to_owned(),
        [instance] if closely => one::shown(instance, now_ms),
        many => {
            let (table, cut) = fitted(&host::instances(many, now_ms), width);
            let more = if cut { "\nWhat is cut off: t3pin status USER\n" } else { "" };
            format!("{table}{more}")
        }
    };
    format!("{head}\n{instances}")
}

/// 6 when something is stuck, or cannot be reached and is left alone.
pub(super) fn exit(report: &StatusReport) -> Exit {
    let needs_somebody = |instance: &InstanceStatus| matches!(instance.state.as_str(), "stuck" | "unreachable");
    let stuck = report.agent.state == "stuck" || report.instances.iter().any(needs_somebody);
    if stuck { Exit::Stuck } else { Exit::Done }
}
