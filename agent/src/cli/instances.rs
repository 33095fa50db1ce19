//! `t3pin instances`.

use clap::Args;

use super::answer::Answer;
use super::exit::Exit;
use super::render::{table, version_or_dash};
use crate::api::client::{Client, ClientError};
use crate::api::types::InstanceStatus;

/// List the instances of this host
#[derive(Debug, Args)]
pub struct Instances {}

impl Instances {
    /// Asks and shows.
    pub async fn run(self, client: &Client) -> Result<Answer, ClientError> {
        let instances: Vec<InstanceStatus> = client.get("/v1/instances").await?;
        Answer::new(&instances, shown(&instances), Exit::Done)
    }
}

pub(super) fn shown(instances: &[InstanceStatus]) -> String {
    if instances.is_empty() {
        return "No instance that you may see. Make one with: t3pin enroll USER\n".to_owned();
    }
    let row = |instance: &InstanceStatus| {
        [
            instance.user.to_string(),
            instance.unit.clone(),
            instance.port.map_or_else(|| "-".to_owned(), |port| port.to_string()),
            version_or_dash(instance.bound_version.as_ref()),
            version_or_dash(instance.running_version.as_ref()),
            instance.state.clone(),
        ]
    };
    table(["USER", "UNIT", "PORT", "BOUND", "RUNS", "STATE"], &instances.iter().map(row).collect::<Vec<_>>())
}
