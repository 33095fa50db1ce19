//! What a probe of a running server found, and what it means.

use serde::{Deserialize, Serialize};

use super::Version;

/// The steps of the pairing handshake, in the order they are tried (DESIGN section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeStep {
    /// The unit is active, and neither its main process nor its count of restarts changed during the probe.
    Unit,
    /// `GET /.well-known/t3/environment` answers.
    Environment,
    /// The descriptor names the expected version.
    Version,
    /// The descriptor names the expected environment id.
    Identity,
    /// The instance's own CLI mints a pairing credential.
    Mint,
    /// One of the pair endpoints exchanges it for a session cookie.
    Exchange,
    /// `GET /api/auth/session` with that cookie says authenticated.
    Session,
    /// The site's reverse proxy hands out the cookie.
    Dispatch,
}

/// How one step went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum StepOutcome {
    /// As it should be.
    Passed,
    /// The server, or its CLI, did something wrong.
    Failed {
        /// What, for the operator; credentials and cookies are blanked.
        reason: String,
        /// Every configured pair endpoint answered 404: the pairing API has moved again.
        contract_moved: bool,
    },
    /// The environment kept us from knowing (no disk, no memory, proxy down, deadline while the host is overloaded).
    Inconclusive {
        /// What was in the way.
        reason: String,
    },
}

/// One step with its outcome and time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Which step.
    pub step: ProbeStep,
    /// How it went.
    pub outcome: StepOutcome,
    /// How long it took, retries included, in ms.
    pub ms: u64,
}

/// The environment descriptor of a running server (T3-CONTRACT section 3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// `serverVersion`; `None` when it is not a version.
    pub server_version: Option<Version>,
    /// `environmentId`.
    pub environment_id: String,
}

/// All that one probe saw. Steps after the first that did not pass were not tried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// The steps tried, in order.
    pub steps: Vec<StepRecord>,
    /// The descriptor, when it could be read.
    pub descriptor: Option<Descriptor>,
    /// The pair endpoint that worked.
    pub endpoint: Option<String>,
    /// How long the whole probe took, in ms.
    pub ms: u64,
}

impl ProbeReport {
    /// Whether `step` was tried and passed.
    pub fn passed(&self, step: ProbeStep) -> bool {
        self.steps.iter().any(|record| record.step == step && record.outcome == StepOutcome::Passed)
    }

    /// The first step that did not pass.
    pub fn first_problem(&self) -> Option<&StepRecord> {
        self.steps.iter().find(|record| record.outcome != StepOutcome::Passed)
    }
}

/// What a probe means for a version. Never made from one report alone: see `engine::judge`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything that the old version passed, the new one passes.
    Healthy,
    /// The version is at fault.
    Unhealthy {
        /// What is wrong, for the operator.
        reason: String,
    },
    /// The environment is at fault, or the old version failed the same way.
    Inconclusive {
        /// What was in the way.
        reason: String,
    },
}
