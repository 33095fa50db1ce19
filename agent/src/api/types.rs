//! What crosses the socket. Additions are compatible; names and meanings of what is here stay within `/v1`.

use serde::{Deserialize, Serialize, Serializer};

use crate::domain::{Deferral, PairingLabel, PairingTtl, RehearsalReport, UnixMs, UserName, Version};

/// Who calls, as the kernel says (SO_PEERCRED of the connection, unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// User id.
    pub uid: u32,
    /// Process id at the time of the connection; 0 when unknown.
    pub pid: i32,
    /// Root or a member of group `t3pin`: sees and changes everything.
    pub privileged: bool,
}

/// From inside whose instance the call comes, if from any: a terminal of their server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside(pub Option<UserName>);

/// `GET /v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusReport {
    /// The agent.
    pub agent: AgentStatus,
    /// The pin file.
    pub pin: PinStatus,
    /// The rollout, when there is one under way or one has ended badly.
    pub rollout: Option<RolloutStatus>,
    /// The operator's freeze.
    pub freeze: Option<FreezeStatus>,
    /// Versions that failed here.
    pub quarantine: Vec<QuarantineStatus>,
    /// Every time that the agent's journal was not as it was left and something of it was set aside, until that is removed.
    #[serde(default)]
    pub journal: Vec<JournalNotice>,
    /// What of the host is not as t3pin left it.
    #[serde(default)]
    pub drift: Vec<DriftStatus>,
    /// The instances that the caller may see: all for the privileged, else their own.
    pub instances: Vec<InstanceStatus>,
}

/// That the journal was damaged, replaced or gone, and what was done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JournalNotice {
    /// When it was found.
    pub at_ms: UnixMs,
    /// What was found.
    pub found: String,
    /// What was done.
    pub done: String,
    /// Where what was set aside lies. Removing this directory ends the notice.
    pub aside: String,
}

/// Something that is not as t3pin left it, or does not work, and is nothing of a bump's. It is told, and but for the restart of a
/// server that nobody can reach nothing is done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftStatus {
    /// `unreachable` (the unit runs and nobody can reach the server), `crashing`, `running-version` (another version answers than
    /// the binding says), `sealed-version` (an installed version was changed), `global-t3` (one that everybody's PATH leads to).
    pub kind: String,
    /// What it is and what to do, for people.
    pub what: String,
}

/// The agent itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgentStatus {
    /// `idle`, `installing`, `rehearsing`, `bumping`, `rolling-back`, `draining` (deferred bumps wait), `recovering`, `frozen`, `stuck`.
    pub state: String,
    /// What it does right now, for people.
    pub doing: String,
    /// Version of t3pin.
    pub version: String,
    /// Since when it runs.
    pub since_ms: UnixMs,
}

/// The pin file as last read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PinStatus {
    /// Path of the file.
    pub path: String,
    /// The version enforced: that of the file, or of the last good one while the file is wrong.
    pub version: Option<Version>,
    /// Whether the file as it is now is good.
    pub valid: bool,
    /// What is wrong with it: file, line, key, what is allowed.
    pub error: Option<String>,
}

/// A rollout: the bumps that one change of the pin needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RolloutStatus {
    /// Target version.
    pub version: Version,
    /// `installing`, `rehearsing`, `bumping`, `waiting`, `done`, `stopped`.
    pub state: String,
    /// Why it stopped, or what it waits for.
    pub reason: Option<String>,
    /// Users done.
    pub done: Vec<UserName>,
    /// Users still to come, in order.
    pub pending: Vec<UserName>,
    /// Users deferred.
    pub deferred: Vec<UserName>,
}

/// The operator's stop switch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FreezeStatus {
    /// Since when.
    pub since_ms: UnixMs,
    /// Why, as the operator said.
    pub reason: Option<String>,
}

/// A version that failed here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QuarantineStatus {
    /// Which.
    pub version: Version,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since_ms: UnixMs,
}

/// One instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Whose.
    pub user: UserName,
    /// `t3-serve@USER.service`.
    pub unit: String,
    /// TCP port.
    pub port: Option<u16>,
    /// The version its binding points to.
    pub bound_version: Option<Version>,
    /// The version that answers on its port.
    pub running_version: Option<Version>,
    /// The version it is to run.
    pub wanted_version: Option<Version>,
    /// `settled` (as wanted), `pending`, `deferred`, `bumping`, `soaking`, `rolling-back`, `held-back` (quarantine, freeze or
    /// a stopped rollout), `needs-decision`, `stuck`, `unbound`, `down`, `unreachable` (it runs, nobody can reach it, and no restart
    /// helps or may be made), `refused`.
    pub state: String,
    /// More on the state, for people.
    pub detail: Option<String>,
    /// Phase of the bump under way.
    pub phase: Option<String>,
    /// The deferral, when the bump is put off. On the wire it has `since` too: `since_ms` as RFC 3339, for people and dashboards.
    #[serde(serialize_with = "with_since")]
    pub deferral: Option<Deferral>,
    /// More on the wait for the wanted version, while there is one.
    #[serde(default)]
    pub wait: Option<WaitStatus>,
    /// The last bump that ended.
    pub last_bump: Option<BumpSummary>,
    /// The last rehearsal: of the bump under way or to come, else of the one that ended last.
    pub rehearsal: Option<RehearsalReport>,
    /// How many of the user's devices lost their pairing to changes of version and have not paired again (`t3pin reissue`).
    #[serde(default)]
    pub to_pair_again: u64,
    /// What of it is not as t3pin left it, or does not work.
    #[serde(default)]
    pub drift: Vec<DriftStatus>,
    /// Why a hand-over is less sure here than it should be: a turn that starts within its last milliseconds would not be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weaker: Option<String>,
}

/// How long an instance has been waiting for the wanted version, and what may come of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitStatus {
    /// Before this it does not go on, as far as that is known.
    pub earliest_ms: Option<UnixMs>,
    /// When operators were told that it has been waiting for too long.
    pub escalated_ms: Option<UnixMs>,
    /// Until when the user may put it off at most.
    pub user_limit_ms: UnixMs,
}

/// A deferral as it crosses the socket.
#[derive(Serialize)]
struct DatedDeferral<'a> {
    since: String,
    #[serde(flatten)]
    deferral: &'a Deferral,
}

fn with_since<S: Serializer>(deferral: &Option<Deferral>, serializer: S) -> Result<S::Ok, S::Error> {
    let dated = deferral.as_ref().map(|deferral| DatedDeferral {
        since: jiff::Timestamp::from_millisecond(deferral.since_ms).map_or_else(|_| String::new(), |at| at.to_string()),
        deferral,
    });
    dated.serialize(serializer)
}

/// One bump that ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BumpSummary {
    /// Its name.
    pub id: String,
    /// Whose.
    pub user: UserName,
    /// Version before.
    pub from: Version,
    /// Version aimed at.
    pub to: Version,
    /// `done`, `rolled-back`, `refused` (rehearsal failed), `cancelled`, `stuck`, `soaking`.
    pub outcome: String,
    /// Why, unless all went well.
    pub reason: Option<String>,
    /// When it began.
    pub started_ms: UnixMs,
    /// From its first effect on the user to its end, soak excluded, in seconds.
    pub seconds: f64,
    /// How long nobody answered, from the stop to the verified answer, in ms.
    pub downtime_ms: Option<u64>,
    /// For how long the server was frozen to be looked at before it was last stopped, in ms; absent when it was not.
    #[serde(default)]
    pub still_ms: Option<u64>,
    /// How many devices had to pair again because of it; absent before that is known, and where it was undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions_lost: Option<u64>,
    /// How many of them have not, as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_pair_again: Option<u64>,
    /// Where what the new version wrote was set aside.
    pub salvage: Option<String>,
    /// Where the snapshot from before lies.
    pub snapshot: Option<String>,
}

/// `GET /v1/plan`: what `enforce` would do now, and why.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanReport {
    /// Nothing of the host would be changed by anything but these, in this order.
    pub steps: Vec<PlanStep>,
    /// What keeps the plan as a whole from being done (bad pin, freeze, quarantine).
    pub blocked: Option<String>,
}

/// One line of the plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanStep {
    /// `install`, `bump`, `defer`, `keep`, `hold-back`, `refuse`.
    pub action: String,
    /// Whose instance, unless it is about a version.
    pub user: Option<UserName>,
    /// Version now.
    pub from: Option<Version>,
    /// Version then.
    pub to: Option<Version>,
    /// Why.
    pub reason: String,
}

/// `POST /v1/rollback`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// Whose; `None` for everybody.
    pub user: Option<UserName>,
    /// Also an active instance (work in flight is lost).
    #[serde(default)]
    pub force: bool,
}

/// `POST /v1/enroll`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// Whom.
    pub user: UserName,
    /// Port; allocated when absent.
    #[serde(default)]
    pub port: Option<u16>,
    /// The version that wrote the data there is; only needed when it cannot be found out.
    #[serde(default)]
    pub version: Option<Version>,
}

/// `POST /v1/defer`: not before a time; without one, what was said is taken back.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeferRequest {
    /// Whose bump; the caller's own when absent.
    #[serde(default)]
    pub user: Option<UserName>,
    /// Not before this.
    #[serde(default)]
    pub until_ms: Option<UnixMs>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// `POST /v1/now`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NowRequest {
    /// Whose bump; the caller's own when absent.
    #[serde(default)]
    pub user: Option<UserName>,
    /// Also an active instance (work in flight is lost).
    #[serde(default)]
    pub force: bool,
}

/// `POST /v1/mint`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MintRequest {
    /// For whose server; the caller's own when absent.
    #[serde(default)]
    pub user: Option<UserName>,
    /// For how many minutes it is good.
    #[serde(default)]
    pub ttl: PairingTtl,
    /// What it is called in the user's list.
    #[serde(default)]
    pub label: Option<PairingLabel>,
}

/// A one-time pairing credential, fresh from the t3 that serves. It is a secret: told to the caller, and to nobody else.
#[derive(Clone, Serialize, Deserialize)]
pub struct Minted {
    /// For whose server.
    pub user: UserName,
    /// The version that serves, and minted it.
    pub version: Version,
    /// Its name in the user's list, to revoke it by.
    pub id: String,
    /// The credential.
    pub credential: String,
    /// Until when it is good, RFC 3339; absent when t3 did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

impl std::fmt::Debug for Minted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Minted")
            .field("user", &self.user)
            .field("id", &self.id)
            .field("credential", &"***")
            .finish_non_exhaustive()
    }
}

/// `POST /v1/reissue`: new pairing links for the devices that have to pair again. Links that were handed out before and are not used
/// yet are revoked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReissueRequest {
    /// Whose devices; the caller's own when absent.
    #[serde(default)]
    pub user: Option<UserName>,
    /// For how many minutes each is good.
    #[serde(default)]
    pub ttl: PairingTtl,
    /// Links from earlier answers to the same question, by their names: they stay good. Many devices take more than one answer.
    #[serde(default)]
    pub kept: Vec<String>,
}

/// Who has to pair again, and with what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reissued {
    /// Whose devices.
    pub user: UserName,
    /// The version that serves, and minted the links; absent when there was nothing to mint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// How many devices lost their pairing to changes of version.
    pub lost: u64,
    /// How many of them have paired again.
    pub paired_again: u64,
    /// How many lost it besides, of which nothing more is known: too many to remember one by one.
    pub unlisted: u64,
    /// One new link for each device, as far as this answer goes.
    pub links: Vec<ReissuedLink>,
    /// How many more are to be had by asking again, with those of this answer among `kept`.
    pub left: u64,
}

/// A new pairing link for one device. The credential is a secret: told to the caller, and to nobody else.
#[derive(Clone, Serialize, Deserialize)]
pub struct ReissuedLink {
    /// What its user knows the device by.
    pub device: String,
    /// When it was last connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_connected_ms: Option<UnixMs>,
    /// The link's name in the user's list, to revoke it by.
    pub id: String,
    /// The credential.
    pub credential: String,
    /// Until when it is good.
    pub until_ms: UnixMs,
}

impl std::fmt::Debug for ReissuedLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReissuedLink")
            .field("device", &self.device)
            .field("id", &self.id)
            .field("credential", &"***")
            .finish_non_exhaustive()
    }
}

/// The answer of routes that have a sentence to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// What holds now.
    pub message: String,
}

/// `POST /v1/unenroll`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnenrollRequest {
    /// Whom.
    pub user: UserName,
}

/// `POST /v1/freeze`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreezeRequest {
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// `POST /v1/quarantine/clear`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClearRequest {
    /// Which version may be tried again.
    pub version: Version,
}

/// `POST /v1/quarantine/retry`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryRequest {
    /// Which version may be tried once more.
    pub version: Version,
    /// With whom; everybody else stays held back until it has soaked well there.
    pub user: UserName,
}

/// What was found out about the host (`GET /v1/doctor`).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DoctorReport {
    /// One for each thing that was looked at.
    pub findings: Vec<Finding>,
}

/// How one thing is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at: a word, a unit, or a user.
    pub check: String,
    /// How it is.
    pub health: Health,
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub todo: Option<String>,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// As it should be.
    Ok,
    /// Bumps are done, but something is not as good as it could be.
    Warning,
    /// Something that is needed will not work.
    Problem,
}

/// One installed version (`GET /v1/versions`).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VersionStatus {
    /// Which.
    pub version: Version,
    /// Bytes on disk.
    pub bytes: u64,
    /// When it was sealed.
    pub sealed_ms: UnixMs,
    /// Who is bound to it.
    pub users: Vec<UserName>,
    /// Why it is quarantined, if it is.
    pub quarantined: Option<String>,
}

/// A piece of work that was asked for (`POST /v1/enforce`, `/v1/rollback`, `/v1/enroll`, `/v1/unenroll`, `/v1/now` answer one; `GET /v1/runs/ID` follows it).
/// The work is the agent's: it goes on when the caller goes away.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunReport {
    /// Its number, unique while the agent runs.
    pub id: u64,
    /// Whether it has ended.
    pub done: bool,
    /// One line per thing that happened so far, oldest first.
    pub progress: Vec<String>,
    /// How it ended.
    pub outcome: Option<RunOutcome>,
    /// The whole story in one or a few sentences.
    pub message: Option<String>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunOutcome {
    /// Everything is as wanted.
    Done,
    /// Something was put off; it will be done by itself.
    Deferred,
    /// Something failed and was undone.
    RolledBack,
    /// Nothing was done, because it must not be (bad pin, freeze, quarantine, failed rehearsal, failed install).
    Refused,
    /// Something could neither be finished nor undone.
    Stuck,
}

/// The answer of routes that have nothing to tell but that it is done (`/v1/freeze`, `/v1/thaw`, `/v1/quarantine/clear`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Always true.
    pub done: bool,
}

/// The body of every answer that is not 2xx.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[error("{error}")]
pub struct ApiError {
    /// `forbidden`, `not-found`, `bad-request`, `busy`, `deferred` (not now, but in a moment), `internal`.
    pub kind: String,
    /// What happened and what to do.
    pub error: String,
}
