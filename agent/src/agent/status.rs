//! The host's state for the socket: from the journal, the store and systemd; nothing is decided here that the engine decides.

use futures_util::stream::{self, StreamExt};

use super::Agent;
use super::drift::UNREACHABLE;
use super::drive::words;
use super::survey::unloadable;
use crate::api::types::{
    AgentStatus, BumpSummary, Caller, FreezeStatus, InstanceStatus, JournalNotice, PinStatus, QuarantineStatus, RolloutStatus,
    StatusReport,
};
use crate::domain::{UserName, Version};
use crate::engine::rollout::{Decision, HostView, InstanceView, decide};
use crate::engine::{Bump, Outcome, Phase};
use crate::health;
use crate::host::{accounts, instances};

/// So many instances are looked at together: one whose server does not answer keeps a look waiting for a second.
const AT_ONCE: usize = 8;

impl Agent {
    /// `GET /v1/status`.
    pub async fn status(&self, caller: Caller) -> StatusReport {
        let pin = self.pins.look(&self.journal);
        let (state, doing) = self.board.doing();
        let view = self.glance();
        let users: Vec<UserName> = self.users().await.into_iter().filter(|user| may_see(caller, user)).collect();
        let wanted = |user| pin.good.as_ref().map(|pin| pin.wanted(user).clone());
        let looks: Vec<_> = users.iter().map(|user| self.instance_status(&view, user, wanted(user))).collect();
        let instances: Vec<InstanceStatus> = stream::iter(looks).buffered(AT_ONCE).collect().await;
        StatusReport {
            agent: AgentStatus {
                state: state.to_owned(),
                doing,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                since_ms: self.board.since_ms(),
            },
            rollout: pin.good.as_ref().and_then(|pin| self.rollout(&view, &pin.version, state, &instances)),
            pin: PinStatus {
                path: self.pins.path().display().to_string(),
                valid: pin.error.is_none() && pin.good.is_some(),
                version: pin.good.map(|pin| pin.version),
                error: pin.error.map(|error| error.to_string()),
            },
            freeze: self.journal.freeze().ok().flatten().map(|f| FreezeStatus { since_ms: f.since_ms, reason: f.reason }),
            quarantine: self
                .journal
                .quarantine()
                .unwrap_or_default()
                .into_iter()
                .map(|q| QuarantineStatus { version: q.version, reason: q.reason, since_ms: q.since_ms })
                .collect(),
            journal: self.journal.reports().into_iter().map(notice).collect(),
            drift: self.host_drift(),
            instances,
        }
    }

    /// What the engine's decisions need, without looking at anybody's activity.
    pub(super) fn glance(&self) -> HostView {
        HostView {
            now_ms: super::now_ms(),
            frozen: self
                .journal
                .freeze()
                .ok()
                .flatten()
                .map(|freeze| freeze.reason.unwrap_or_else(|| "no reason given".to_owned())),
            installed: self.store.list().unwrap_or_default().into_iter().map(|installed| installed.version).collect(),
            quarantine: self.journal.quarantine().unwrap_or_default().into_iter().map(|q| (q.version, q.reason)).collect(),
            uninstallable: self.board.uninstallable(),
            cramped: self.board.cramped(),
            cleared: self.journal.cleared().unwrap_or_default(),
            attended: self.journal.attended().unwrap_or_default(),
            enforced_ms: self.tried_from_ms().unwrap_or(0),
            rules: self.rules(),
            closed: self.settings().drain.window.closed(super::now_ms()),
            instances: vec![],
        }
    }

    pub(super) async fn instance_status(&self, view: &HostView, user: &UserName, wanted: Option<Version>) -> InstanceStatus {
        let bound = self.store.binding(user).ok().flatten();
        let open = self.journal.open_bump(user).ok().flatten();
        let last = self.journal.closed_bumps(Some(user), 1).unwrap_or_default().into_iter().next();
        let instance = instances::of(&self.env, user);
        let unit = self.systemd.unit(&user.unit()).await.ok();
        let active = unit.as_ref().is_some_and(|unit| unit.active_state == "active");
        let running = match (&instance, &unit) {
            (Ok(instance), Some(unit)) if active => match self.board.running(user, &unit.invocation_id) {
                Some(known) => known,
                None => {
                    let seen = health::describe(&instance.place.account, &instance.probe_address()).await.ok().flatten();
                    let version = seen.and_then(|descriptor| descriptor.server_version);
                    if version.is_some() {
                        self.board.saw_running(user, &unit.invocation_id, version.clone());
                    }
                    version
                }
            },
            _ => None,
        };
        let (state, detail) = match wanted.clone().or_else(|| bound.clone()) {
            None => ("unbound", Some("not enrolled, and nothing is pinned".to_owned())),
            Some(wanted) => {
                let tried = self.journal.last_closed_to(user, &wanted).ok().flatten();
                let rivals = self.sights.rivals(user).filter(|_| bound.as_ref() != Some(&wanted));
                let seen = InstanceView {
                    user: user.clone(),
                    bound: bound.clone(),
                    wanted,
                    stopped: unit.as_ref().is_some_and(|unit| unit.active_state == "inactive"),
                    unenforced: false,
                    problem: instance.as_ref().err().map(ToString::to_string).or_else(|| {
                        let why = unit.as_ref().and_then(unloadable)?;
                        Some(format!("{} {why}", user.unit()))
                    }),
                    rivals,
                    activity: None,
                    busy_until_ms: None,
                    wait: self.journal.wait(user).unwrap_or_default(),
                    calls: false,
                    open: open.clone(),
                    last: last.clone(),
                    tried,
                };
                state_of(view, &seen, active)
            }
        };
        let detail = match &open {
            Some(bump) if bump.phase == Phase::Stuck => Some(self.stuck_in_full(bump, running.as_ref())),
            _ => detail,
        };
        let drift = self.drift_of(user, open.as_ref(), bound.as_ref(), running.as_ref());
        let (state, detail) = match drift.iter().find(|drift| drift.kind == UNREACHABLE) {
            Some(drift) if state == "settled" => (UNREACHABLE, Some(drift.what.clone())),
            _ => (state, detail),
        };
        let shown = open.as_ref().filter(|open| open.phase == Phase::Soaking).or(last.as_ref());
        InstanceStatus {
            user: user.clone(),
            unit: user.unit(),
            port: instance.as_ref().ok().map(|instance| instance.port),
            bound_version: bound,
            running_version: running,
            wanted_version: wanted,
            state: state.to_owned(),
            detail,
            phase: open.as_ref().map(|open| phase_word(open.phase)),
            deferral: open.as_ref().and_then(|open| self.deferral_of(open)),
            wait: open.as_ref().filter(|open| matches!(open.phase, Phase::Planned | Phase::Ready)).map(|open| self.wait_of(open)),
            last_bump: shown.map(|bump| self.summary_of(bump)),
            rehearsal: open.or(last).and_then(|bump| bump.rehearsal),
            to_pair_again: self.pair_again_now(user).await.left(),
            drift,
            weaker: unit.as_ref().and_then(super::guarantee::weaker),
        }
    }

    fn rollout(&self, view: &HostView, version: &Version, agent: &str, instances: &[InstanceStatus]) -> Option<RolloutStatus> {
        let at = |state: &[&str]| -> Vec<UserName> {
            let wants = |i: &&InstanceStatus| i.wanted_version.as_ref() == Some(version) && state.contains(&i.state.as_str());
            instances.iter().filter(wants).map(|i| i.user.clone()).collect()
        };
        // Their own data or settings are in the way: that stops nobody else, but it waits for them.
        let refused = at(&["refused"]);
        // Who is still in the soak of another version has this one before them.
        let (done, soaking_elsewhere): (Vec<_>, Vec<_>) = at(&["settled", UNREACHABLE, "soaking"])
            .into_iter()
            .partition(|user| instances.iter().any(|i| i.user == *user && i.bound_version.as_ref() == Some(version)));
        let pending = [at(&["pending", "bumping"]), refused.clone(), soaking_elsewhere].concat();
        let deferred = at(&["deferred"]);
        let held = at(&["held-back", "stuck", "needs-decision", "rolling-back"]);
        let reason = view
            .quarantine
            .get(version)
            .or_else(|| view.uninstallable.get(version))
            .cloned()
            .or_else(|| why_of(instances, &held));
        let state = match agent {
            "installing" | "rehearsing" | "bumping" => agent,
            _ if reason.is_some() => "stopped",
            _ if !deferred.is_empty() || !pending.is_empty() => "waiting",
            _ => "done",
        };
        let reason = reason.or_else(|| why_of(instances, &refused)).or_else(|| {
            (state == "waiting").then(|| "waits for users to be idle, for a soak to end, or for t3pin enforce".to_owned())
        });
        Some(RolloutStatus { version: version.clone(), state: state.to_owned(), reason, done, pending, deferred })
    }
}

fn notice(report: crate::journal::Report) -> JournalNotice {
    JournalNotice { at_ms: report.at_ms, found: report.found, done: report.done, aside: report.aside.display().to_string() }
}

/// What is said of the first of `users`.
fn why_of(instances: &[InstanceStatus], users: &[UserName]) -> Option<String> {
    let first = instances.iter().find(|instance| users.contains(&instance.user))?;
    first.detail.as_ref().map(|detail| format!("{}: {detail}", first.user))
}

/// Root and group `t3pin` see everybody, a user their own.
pub fn may_see(caller: Caller, user: &UserName) -> bool {
    caller.privileged || accounts::lookup(user).ok().flatten().is_some_and(|account| account.uid == caller.uid)
}

/// One bump that ended, or soaks, for the history.
pub fn summary(bump: &Bump) -> BumpSummary {
    let outcome = match bump.phase {
        Phase::Soaking => "soaking",
        Phase::Stuck => "stuck",
        Phase::Closed(Outcome::Done) | Phase::Closing(Outcome::Done) => "done",
        Phase::Closed(Outcome::RolledBack) | Phase::Closing(Outcome::RolledBack) => "rolled-back",
        Phase::Closed(Outcome::Refused) | Phase::Closing(Outcome::Refused) => "refused",
        Phase::Closed(Outcome::Cancelled) | Phase::Closing(Outcome::Cancelled) => "cancelled",
        _ => "under-way",
    };
    let begun = bump.begun_ms.unwrap_or(bump.planned_ms);
    let ended = bump.ended_ms.unwrap_or(begun);
    BumpSummary {
        id: bump.id.to_string(),
        user: bump.instance.user().clone(),
        from: bump.from.clone(),
        to: bump.to.clone(),
        outcome: outcome.to_owned(),
        reason: bump.fault.as_ref().map(|fault| fault.reason.clone()).or_else(|| bump.remark.clone()),
        started_ms: begun,
        seconds: (ended - begun).max(0) as f64 / 1000.0,
        downtime_ms: bump.downtime_ms(),
        still_ms: bump.still_ms,
        sessions_lost: None,
        to_pair_again: None,
        salvage: bump.salvage.as_ref().map(|salvage| salvage.path.display().to_string()),
        snapshot: bump
            .snapshot
            .as_ref()
            .filter(|snapshot| snapshot.path.exists())
            .map(|snapshot| snapshot.path.display().to_string()),
    }
}

/// The word for an instance's state (see `InstanceStatus::state`) and more in words.
fn state_of(view: &HostView, seen: &InstanceView, active: bool) -> (&'static str, Option<String>) {
    if let Some(open) = &seen.open {
        let story = Some(words(open));
        match open.phase {
            Phase::Soaking if open.remark.as_ref().is_some_and(|remark| remark.starts_with("needs a decision")) => {
                return ("needs-decision", open.remark.clone());
            }
            Phase::Soaking => return ("soaking", open.remark.clone().or(story)),
            // The server runs on as it did in its soak; only the old data is being put away.
            Phase::Settled => return ("soaking", story),
            Phase::Stuck => return ("stuck", story),
            Phase::RollingBack(_) => return ("rolling-back", story),
            Phase::Planned | Phase::Ready => {}
            _ => return ("bumping", story),
        }
    }
    if seen.bound.is_none() {
        return ("unbound", Some(format!("not enrolled; `t3pin enroll {}` takes it over", seen.user)));
    }
    if let Some(open) =
        seen.open.as_ref().filter(|open| open.deferral.is_some() && view.frozen.is_none() && seen.rivals.is_none())
    {
        return ("deferred", Some(words(open)));
    }
    match decide(view, seen) {
        Decision::Keep(_) if !active => ("down", Some(format!("{} is not running", seen.user.unit()))),
        Decision::Keep(_) => ("settled", None),
        Decision::Bump(reason) => ("pending", Some(reason)),
        Decision::Defer(reason) => ("deferred", Some(reason)),
        Decision::HoldBack(reason) => ("held-back", Some(reason)),
        Decision::Refuse(reason) => ("refused", Some(reason)),
    }
}

/// The phase as DESIGN writes it.
fn phase_word(phase: Phase) -> String {
    match phase {
        Phase::RollingBack(_) => "rolling-back".to_owned(),
        Phase::Closing(_) | Phase::Closed(_) => "closing".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}
