//! `t3pin doctor`.

use clap::Args;

use super::answer::Answer;
use super::exit::Exit;
use super::render::{plain, table};
use crate::api::client::{Client, ClientError};
use crate::api::types::{DoctorReport, Finding, Health};

/// Look whether everything is there that the next bump will need; change nothing
///
/// Exits 6 when something is found that would keep a bump, an install or the nightly enforcement from being done. For root and group t3pin.
#[derive(Debug, Args)]
pub struct Doctor {}

impl Doctor {
    /// Asks and shows.
    pub async fn run(self, client: &Client) -> Result<Answer, ClientError> {
        let report: DoctorReport = client.get("/v1/doctor").await?;
        let sick = report.findings.iter().any(|finding| finding.health == Health::Problem);
        Answer::new(&report, shown(&report), if sick { Exit::Stuck } else { Exit::Done })
    }
}

pub(super) fn shown(report: &DoctorReport) -> String {
    let row = |finding: &Finding| {
        let health = match finding.health {
            Health::Ok => "ok",
            Health::Warning => "warning",
            Health::Problem => "PROBLEM",
        };
        [health.to_owned(), finding.check.clone(), finding.what.clone()]
    };
    let mut text = table(["", "CHECK", "FOUND"], &report.findings.iter().map(row).collect::<Vec<_>>());
    let todo: Vec<&Finding> = report.findings.iter().filter(|finding| finding.todo.is_some()).collect();
    if !todo.is_empty() {
        text.push_str("\nWhat to do:\n");
    }
    for finding in todo {
        text.push_str(&format!("  {}: {}\n", plain(&finding.check), plain(finding.todo.as_deref().unwrap_or_default())));
    }
    text
}
