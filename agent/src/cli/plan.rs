//! `t3pin plan`.

use clap::Args;

use super::answer::Answer;
use super::exit::Exit;
use super::render::{plain, table, version_or_dash};
use crate::api::client::{Client, ClientError};
use crate::api::types::{PlanReport, PlanStep};

/// Show what `enforce` would do now and why; change nothing
#[derive(Debug, Args)]
pub struct Plan {}

impl Plan {
    /// Asks and shows.
    pub async fn run(self, client: &Client) -> Result<Answer, ClientError> {
        let report: PlanReport = client.get("/v1/plan").await?;
        Answer::new(&report, shown(&report), Exit::Done)
    }
}

pub(super) fn shown(report: &PlanReport) -> String {
    let blocked = report.blocked.as_deref().map_or_else(String::new, |why| format!("Nothing would be done: {}\n", plain(why)));
    let steps = if report.steps.is_empty() {
        "Nothing to do.\n".to_owned()
    } else {
        let row = |step: &PlanStep| {
            [
                step.action.clone(),
                step.user.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
                version_or_dash(step.from.as_ref()),
                version_or_dash(step.to.as_ref()),
                step.reason.clone(),
            ]
        };
        table(["ACTION", "USER", "FROM", "TO", "WHY"], &report.steps.iter().map(row).collect::<Vec<_>>())
    };
    match (blocked.is_empty(), report.steps.is_empty()) {
        (false, true) => blocked,
        (false, false) => format!("{blocked}\n{steps}"),
        (true, _) => steps,
    }
}
