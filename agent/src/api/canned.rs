//! A host in the middle of a rollout, for tests of what is served and shown.

#![allow(clippy::expect_used)]

use std::sync::Mutex;
use std::time::Duration;

use super::archive_types::{ArchiveOrder, ArchiveStatus, KeptStatus};
use super::explanation::{ExplainedStep, Explanation};
use super::server::Handler;
use super::types::{
    AgentStatus, ApiError, BumpSummary, Caller, ClearRequest, DeferRequest, DoctorReport, EnrollRequest, Finding, FreezeRequest,
    Health, Inside, InstanceStatus, MintRequest, Minted, PinStatus, PlanReport, PlanStep, QuarantineStatus, ReissueRequest,
    Reissued, ReissuedLink, RetryRequest, RollbackRequest, RolloutStatus, RunOutcome, RunReport, StatusReport, Told,
    UnenrollRequest, VersionStatus, WaitStatus,
};
use crate::domain::{
    Deferral, DeferralOwner, Device, KeptId, Paired, PairingLabel, ProbeReport, RehearsalReport, UnixMs, UserName, Version,
};

/// The moment at which the host is looked at.
pub const NOW_MS: UnixMs = 1_800_000_000_000;

const MINUTE: UnixMs = 60_000;
const HOUR: UnixMs = 60 * MINUTE;

/// `text` as a version.
pub fn version(text: &str) -> Version {
    text.parse().expect("a version")
}

/// `text` as a user.
pub fn user(text: &str) -> UserName {
    text.parse().expect("a user")
}

/// alice was bumped to 0.0.25, bob is busy on 0.0.24.
pub fn status() -> StatusReport {
    StatusReport {
        agent: AgentStatus {
            state: "draining".to_owned(),
            doing: "waiting for bob to be idle".to_owned(),
            version: "0.1.0".to_owned(),
            since_ms: NOW_MS - 50 * HOUR,
        },
        pin: PinStatus { path: "/etc/t3pin/pin.toml".to_owned(), version: Some(version("0.0.25")), valid: true, error: None },
        rollout: Some(RolloutStatus {
            version: version("0.0.25"),
            state: "waiting".to_owned(),
            reason: Some("bob works".to_owned()),
            done: vec![user("alice")],
            pending: vec![],
            deferred: vec![user("bob")],
        }),
        freeze: None,
        quarantine: vec![QuarantineStatus {
            version: version("0.0.26"),
            reason: "rehearsal: pairing API moved".to_owned(),
            since_ms: NOW_MS - 49 * HOUR,
        }],
        journal: vec![],
        drift: vec![],
        instances: vec![alice(), bob()],
    }
}

/// The instance that runs what it should.
pub fn alice() -> InstanceStatus {
    InstanceStatus {
        user: user("alice"),
        unit: "t3-serve@alice.service".to_owned(),
        port: Some(4101),
        bound_version: Some(version("0.0.25")),
        running_version: Some(version("0.0.25")),
        wanted_version: Some(version("0.0.25")),
        state: "settled".to_owned(),
        detail: None,
        phase: None,
        deferral: None,
        wait: None,
        last_bump: Some(bump()),
        rehearsal: None,
        to_pair_again: 2,
        drift: vec![],
        weaker: None,
    }
}

/// The instance whose bump is put off.
pub fn bob() -> InstanceStatus {
    InstanceStatus {
        user: user("bob"),
        unit: "t3-serve@bob.service".to_owned(),
        port: Some(4102),
        bound_version: Some(version("0.0.24")),
        running_version: Some(version("0.0.24")),
        wanted_version: Some(version("0.0.25")),
        state: "deferred".to_owned(),
        detail: None,
        phase: None,
        deferral: Some(Deferral {
            reason: "a turn is in flight".to_owned(),
            owner: DeferralOwner::Activity,
            since_ms: NOW_MS - 3 * MINUTE,
            last_look_ms: NOW_MS - 10_000,
        }),
        wait: Some(WaitStatus {
            earliest_ms: Some(NOW_MS + 15 * MINUTE),
            escalated_ms: Some(NOW_MS - MINUTE),
            user_limit_ms: NOW_MS + 48 * HOUR,
        }),
        last_bump: None,
        rehearsal: Some(RehearsalReport {
            probe: ProbeReport::default(),
            level_before: Some(30),
            level_after: Some(31),
            start_ms: 2800,
            total_ms: 9100,
            sessions_lost: 2,
            lost: Paired::of([phone()], 1),
            work_lost: 0,
            intact: true,
            output_tail: vec![],
        }),
        to_pair_again: 0,
        drift: vec![],
        weaker: None,
    }
}

/// A device of bob's.
pub fn phone() -> Device {
    let label = Some("my phone".to_owned());
    Device { session: "s1".to_owned(), label, last_ms: Some(NOW_MS - HOUR), ..Device::default() }
}

/// alice's bump.
pub fn bump() -> BumpSummary {
    BumpSummary {
        id: "b000001".to_owned(),
        user: user("alice"),
        from: version("0.0.24"),
        to: version("0.0.25"),
        outcome: "done".to_owned(),
        reason: None,
        started_ms: NOW_MS - 20 * MINUTE,
        seconds: 11.2,
        downtime_ms: Some(3500),
        still_ms: Some(31),
        sessions_lost: Some(3),
        to_pair_again: Some(2),
        salvage: None,
        snapshot: Some("/var/lib/t3pin/snapshots/alice/b000001".to_owned()),
    }
}

/// The story of alice's bump, had it gone badly.
pub fn explanation() -> Explanation {
    let step = |at: UnixMs, times: u32, text: &str| ExplainedStep {
        at_ms: NOW_MS + at,
        last_ms: NOW_MS + at + 1000 * i64::from(times - 1),
        times,
        text: text.to_owned(),
    };
    Explanation {
        user: user("alice"),
        bump: Some(BumpSummary { outcome: "rolled-back".to_owned(), ..bump() }),
        planned: Some("From 0.0.24 to 0.0.25, because of this: pinned.".to_owned()),
        steps: vec![step(0, 3, "put off: a turn is in flight"), step(60_000, 1, "0.0.25 was started")],
        wrong: Some("The new version, 0.0.25, is at fault: nobody could pair.".to_owned()),
        log: vec!["Error: no\u{1b}[2J".to_owned()],
        done: Some("0.0.24 was put back together with its own data.".to_owned()),
        pair_again: vec!["my phone\u{1b}".to_owned()],
        now: "alice's server runs 0.0.24; state: held-back.".to_owned(),
        can: vec!["nothing has to be done".to_owned()],
        evidence: Some("/var/lib/t3pin/evidence/b000001-rolled-back".to_owned()),
    }
}

/// What is to come.
pub fn plan() -> PlanReport {
    let step = |action: &str, name: &str, from: &str, reason: &str| PlanStep {
        action: action.to_owned(),
        user: Some(user(name)),
        from: Some(version(from)),
        to: Some(version("0.0.25")),
        reason: reason.to_owned(),
    };
    PlanReport {
        steps: vec![
            step("keep", "alice", "0.0.25", "runs what is pinned"),
            step("defer", "bob", "0.0.24", "a turn is in flight"),
        ],
        blocked: None,
    }
}

/// What is installed.
pub fn versions() -> Vec<VersionStatus> {
    let installed = |text: &str, bytes, users: &[&str]| VersionStatus {
        version: version(text),
        bytes,
        sealed_ms: NOW_MS - 2 * HOUR,
        users: users.iter().map(|name| user(name)).collect(),
        quarantined: None,
    };
    vec![installed("0.0.24", 403_701_760, &["bob"]), installed("0.0.25", 627_048_448, &["alice"])]
}

/// What is kept: a good snapshot and salvage of alice's, a damaged one of bob's.
pub fn archives() -> Vec<ArchiveStatus> {
    let kept = |id: &str, text: &str, damaged: Option<&str>| KeptStatus {
        id: id.parse().expect("a name"),
        version: Some(version(text)),
        migration_level: Some(30),
        created_ms: NOW_MS - 2 * HOUR,
        bytes: 104_857_600,
        verified_ms: Some(NOW_MS - HOUR),
        damaged: damaged.map(str::to_owned),
        path: format!("/var/lib/t3pin/snapshots/x/{id}"),
        files: vec![],
    };
    vec![
        ArchiveStatus {
            user: user("alice"),
            disk_bytes: 31_000_000,
            kept: vec![kept("b000001", "0.0.24", None), kept("b000001-salvage", "0.0.25", None)],
        },
        ArchiveStatus { user: user("bob"), disk_bytes: 30_000_000, kept: vec![kept("b000002", "0.0.24", Some("pages lost"))] },
    ]
}

/// A host that answers from [`status`] and its like, in place of the agent. Ordinary callers see bob's instance only.
#[derive(Debug, Default)]
pub struct CannedHost {
    /// What was asked for that changes the host, in order.
    pub asked: Mutex<Vec<String>>,
    /// The answers to successive looks at run 7; the last one stays.
    pub run: Mutex<Vec<RunReport>>,
    /// How long a freeze takes.
    pub slow_freeze: Duration,
}

impl CannedHost {
    /// A host whose run 7 ends with `outcome` after two looks.
    pub fn ending(outcome: RunOutcome) -> Self {
        let lines = |n: usize| (1..=n).map(|line| format!("line {line}")).collect();
        let last =
            RunReport { id: 7, done: true, progress: lines(3), outcome: Some(outcome), message: Some("The story.".to_owned()) };
        let reports = [1, 2].map(|n| RunReport { id: 7, done: false, progress: lines(n), outcome: None, message: None });
        Self { run: Mutex::new(reports.into_iter().chain([last]).collect()), ..Self::default() }
    }

    fn note(&self, what: impl Into<String>) {
        self.asked.lock().expect("unpoisoned").push(what.into());
    }

    fn look(&self) -> Result<RunReport, ApiError> {
        let mut reports = self.run.lock().expect("unpoisoned");
        let next = if reports.len() > 1 { Some(reports.remove(0)) } else { reports.first().cloned() };
        next.ok_or_else(|| ApiError { kind: "not-found".to_owned(), error: "there is no such run".to_owned() })
    }
}

impl Handler for CannedHost {
    async fn status(&self, caller: Caller) -> StatusReport {
        let mut report = status();
        report.instances.retain(|instance| caller.privileged || instance.user.as_str() == "bob");
        report
    }
    async fn plan(&self, _: Caller) -> Result<PlanReport, ApiError> {
        Ok(plan())
    }
    async fn history(&self, _: Caller, of: Option<UserName>, limit: usize) -> Result<Vec<BumpSummary>, ApiError> {
        let bumps = [bump()].into_iter().filter(|bump| of.as_ref().is_none_or(|of| *of == bump.user));
        Ok(bumps.take(limit).collect())
    }
    async fn explain(&self, caller: Caller, what: UserName) -> Result<Explanation, ApiError> {
        if what.as_str() == "alice" && !caller.privileged {
            return Err(ApiError { kind: "not-found".to_owned(), error: "nothing that you may see".to_owned() });
        }
        Ok(explanation())
    }
    async fn versions(&self) -> Result<Vec<VersionStatus>, ApiError> {
        Ok(versions())
    }
    async fn enforce(&self, _: Caller, _: Inside) -> Result<RunReport, ApiError> {
        self.note("enforce");
        self.look()
    }
    async fn rollback(&self, _: Caller, request: RollbackRequest) -> Result<RunReport, ApiError> {
        self.note(format!("rollback {:?} {}", request.user.as_ref().map(UserName::as_str), request.force));
        self.look()
    }
    async fn enroll(&self, _: Caller, request: EnrollRequest) -> Result<RunReport, ApiError> {
        let version = request.version.map(String::from);
        self.note(format!("enroll {} {:?} {version:?}", request.user, request.port));
        self.look()
    }
    async fn unenroll(&self, _: Caller, request: UnenrollRequest) -> Result<RunReport, ApiError> {
        self.note(format!("unenroll {}", request.user));
        self.look()
    }
    async fn user_of(&self, uid: u32) -> Option<UserName> {
        (uid == 1000).then(|| user("bob"))
    }
    async fn now(&self, caller: Caller, _: Inside, of: UserName, force: bool) -> Result<RunReport, ApiError> {
        self.note(format!("now {of} {force} by {}", caller.uid));
        self.look()
    }
    async fn defer(&self, caller: Caller, of: UserName, request: DeferRequest) -> Result<Told, ApiError> {
        self.note(format!("defer {of} {:?} {:?} by {}", request.until_ms, request.reason, caller.uid));
        Ok(Told { message: "noted".to_owned() })
    }
    async fn mint(&self, caller: Caller, of: UserName, request: MintRequest) -> Result<Minted, ApiError> {
        let label = request.label.as_ref().map(PairingLabel::as_str);
        self.note(format!("mint {of} {} {label:?} by {}", request.ttl, caller.uid));
        let expires_at = Some("2027-01-15T08:05:00.000Z".to_owned());
        let (id, credential) = ("p1".to_owned(), "ABCD2345EFGH".to_owned());
        Ok(Minted { user: of, version: version("0.0.25"), id, credential, expires_at })
    }
    /// Two devices, of which one answer has one.
    async fn reissue(&self, caller: Caller, of: UserName, request: ReissueRequest) -> Result<Reissued, ApiError> {
        self.note(format!("reissue {of} {} {:?} by {}", request.ttl, request.kept, caller.uid));
        let (n, left) = if request.kept.is_empty() { (1, 1) } else { (2, 0) };
        let link = ReissuedLink {
            device: format!("phone {n}\u{1b}[2J"),
            last_connected_ms: Some(NOW_MS - HOUR),
            id: format!("l{n}"),
            credential: format!("ABCD2345EFG{n}"),
            until_ms: NOW_MS + HOUR,
        };
        let version = Some(version("0.0.25"));
        Ok(Reissued { user: of, version, lost: 3, paired_again: 1, unlisted: 0, links: vec![link], left })
    }
    async fn run(&self, caller: Caller, id: u64) -> Result<RunReport, ApiError> {
        if id == 7 && (caller.privileged || caller.uid == 1000) {
            self.look()
        } else {
            Err(ApiError { kind: "not-found".to_owned(), error: format!("no run {id}") })
        }
    }
    async fn freeze(&self, request: FreezeRequest) -> Result<(), ApiError> {
        tokio::time::sleep(self.slow_freeze).await;
        self.note(format!("freeze {:?}", request.reason));
        Ok(())
    }
    async fn thaw(&self) -> Result<(), ApiError> {
        self.note("thaw");
        Ok(())
    }
    async fn snapshots(&self, caller: Caller, of: Option<UserName>) -> Result<Vec<ArchiveStatus>, ApiError> {
        let seen = |one: &ArchiveStatus| {
            (caller.privileged || one.user.as_str() == "bob") && of.as_ref().is_none_or(|of| *of == one.user)
        };
        Ok(archives().into_iter().filter(seen).collect())
    }
    async fn snapshot(&self, caller: Caller, of: UserName, id: KeptId) -> Result<KeptStatus, ApiError> {
        let kept = self.snapshots(caller, Some(of)).await?.into_iter().flat_map(|one| one.kept);
        let missing = || ApiError { kind: "not-found".to_owned(), error: "there is no such thing that you may see".to_owned() };
        kept.into_iter().find(|one| one.id == id).ok_or_else(missing)
    }
    async fn archive(&self, _: Caller, order: ArchiveOrder) -> Result<RunReport, ApiError> {
        self.note(format!("{order:?}"));
        self.look()
    }
    async fn export(&self, _: Caller, _: u64, offset: u64) -> Result<Vec<u8>, ApiError> {
        Ok(if offset < 10 { vec![7; 5] } else { vec![] })
    }
    async fn remove_version(&self, _: Caller, version: Version) -> Result<RunReport, ApiError> {
        self.note(format!("remove {version}"));
        self.look()
    }
    async fn verify_versions(&self, _: Caller, version: Option<Version>) -> Result<RunReport, ApiError> {
        self.note(format!("verify {:?}", version.map(String::from)));
        self.look()
    }
    async fn doctor(&self) -> DoctorReport {
        let finding = |check: &str, health, todo: Option<&str>| Finding {
            check: check.to_owned(),
            health,
            what: "was looked at".to_owned(),
            todo: todo.map(str::to_owned),
        };
        DoctorReport {
            findings: vec![finding("room", Health::Ok, None), finding("compiler", Health::Problem, Some("apt install g++"))],
        }
    }
    async fn retry_version(&self, _: Caller, _: Inside, request: RetryRequest) -> Result<RunReport, ApiError> {
        self.note(format!("retry {} with {}", request.version, request.user));
        self.look()
    }
    async fn clear_quarantine(&self, request: ClearRequest) -> Result<(), ApiError> {
        self.note(format!("clear {}", request.version));
        Ok(())
    }
}
