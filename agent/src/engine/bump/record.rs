//! All that is known of one bump; the journal keeps it.

use serde::{Deserialize, Serialize};

use crate::domain::{
    BumpId, Deferral, Instance, Paired, ProbeReport, RehearsalReport, Salvage, Snapshot, UnixMs, Version, WorkMarks,
};
use crate::engine::{Fault, Phase, Undo};

/// The transaction that moves one instance from version `from` to version `to`. All that is known of it; the journal keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bump {
    /// Its name.
    pub id: BumpId,
    /// Which instance.
    pub instance: Instance,
    /// Version A: what ran, and what runs again after a rollback.
    pub from: Version,
    /// Version B.
    pub to: Version,
    /// Why it was planned.
    pub reason: String,
    /// What is being worked on.
    pub phase: Phase,
    /// When it was planned.
    pub planned_ms: UnixMs,
    /// When it first went ahead after the rehearsal.
    pub begun_ms: Option<UnixMs>,
    /// When the server was last told to stop.
    pub stopped_ms: Option<UnixMs>,
    /// For how many ms it stood still before it was last stopped, to be looked at; `None` when it was not.
    #[serde(default)]
    pub still_ms: Option<u64>,
    /// When a server answered again.
    pub answered_ms: Option<UnixMs>,
    /// When it ended, soak excluded.
    pub ended_ms: Option<UnixMs>,
    /// When the soak is over.
    pub soak_until_ms: Option<UnixMs>,
    /// How long the soak is to be, in ms.
    pub soak_ms: i64,
    /// How much of it is over, in ms, as far as it was seen to pass.
    #[serde(default)]
    pub soaked_ms: i64,
    /// When the soak was last looked at.
    #[serde(default)]
    pub soak_looked_ms: Option<UnixMs>,
    /// What the rehearsal found.
    pub rehearsal: Option<RehearsalReport>,
    /// What the probe of the running old version found.
    pub baseline: Option<ProbeReport>,
    /// The last probe of the new version.
    pub probe: Option<ProbeReport>,
    /// How much work the data held when the new version was handed over to the user.
    pub marks: Option<WorkMarks>,
    /// Who was paired when the old version was stopped; until it is known who has to pair again.
    #[serde(default)]
    pub paired: Option<Paired>,
    /// Who of them the new version does not know: they have to pair again.
    #[serde(default)]
    pub lost: Option<Paired>,
    /// The snapshot from before.
    pub snapshot: Option<Snapshot>,
    /// What the new version wrote before it was rolled back.
    pub salvage: Option<Salvage>,
    /// Why it is put off.
    pub deferral: Option<Deferral>,
    /// What went wrong first.
    pub fault: Option<Fault>,
    /// Something that a person should know or decide.
    pub remark: Option<String>,
    /// Bad looks in a row during the soak.
    pub bad_looks: u32,
    /// Failed tries of the present step of a rollback.
    pub tries: u32,
    /// The new version was started at least once, so what lies in place may be work.
    pub ran: bool,
    /// Custody has become an archived snapshot.
    pub archived: bool,
}

impl Bump {
    /// A bump that was planned and has done nothing.
    pub fn planned(
        id: BumpId,
        instance: Instance,
        from: Version,
        to: Version,
        reason: String,
        soak_ms: i64,
        now_ms: UnixMs,
    ) -> Self {
        Self {
            id,
            instance,
            from,
            to,
            reason,
            phase: Phase::Planned,
            planned_ms: now_ms,
            begun_ms: None,
            stopped_ms: None,
            still_ms: None,
            answered_ms: None,
            ended_ms: None,
            soak_until_ms: None,
            soak_ms,
            soaked_ms: 0,
            soak_looked_ms: None,
            rehearsal: None,
            baseline: None,
            probe: None,
            marks: None,
            paired: None,
            lost: None,
            snapshot: None,
            salvage: None,
            deferral: None,
            fault: None,
            remark: None,
            bad_looks: 0,
            tries: 0,
            ran: false,
            archived: false,
        }
    }

    /// Whether the bump is over and needs nothing any more.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    /// Whether the user's server or data may be other than before, so that the bump has to be finished or undone.
    pub fn is_under_way(&self) -> bool {
        self.due().is_some()
    }

    /// Whether the user's data is between two versions: nothing of the user's t3 may open it. Once a server that runs on its own data is
    /// only being checked, it may be paired with as any other: the site's reverse proxy does, when it is asked to show the same.
    pub fn is_in_gap(&self) -> bool {
        match self.phase {
            Phase::Quiesced | Phase::Secured | Phase::Switched | Phase::Started => true,
            Phase::Verified | Phase::RollingBack(Undo::Rechecked) => false,
            Phase::RollingBack(_) | Phase::Stuck => true,
            Phase::Planned | Phase::Rehearsed | Phase::Ready | Phase::Baselined | Phase::Seeded => false,
            Phase::Soaking | Phase::Settled | Phase::Closing(_) | Phase::Closed(_) => false,
        }
    }

    /// How much of the soak is over at `now_ms`, in ms. What counts is the time between two looks, and of that no more than a
    /// third of the soak: a clock that jumps ahead ends no soak, and one that is set back only costs the time of one look.
    pub fn soaked_ms(&self, now_ms: UnixMs) -> i64 {
        let passed = self.soak_looked_ms.map_or(0, |looked| now_ms.saturating_sub(looked));
        self.soaked_ms.saturating_add(passed.clamp(0, (self.soak_ms / 3).max(1)))
    }

    /// How long nobody answered, in ms, once it is known.
    pub fn downtime_ms(&self) -> Option<u64> {
        Some((self.answered_ms? - self.stopped_ms?).max(0).unsigned_abs())
    }
}

/// A planned bump from 0.0.24 to 0.0.25 for tests of this module and of others.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub fn sample(id: BumpId, user: &str) -> Bump {
    let account = crate::domain::Account {
        user: user.parse().unwrap(),
        uid: 1001,
        gid: 1001,
        home: format!("/home/{user}").into(),
        shell: "/bin/bash".into(),
    };
    let place = crate::domain::Place::of(account);
    let instance = Instance { unit: place.account.user.unit(), place, host: "127.0.0.1".to_owned(), port: 3773 };
    Bump::planned(id, instance, "0.0.24".parse().unwrap(), "0.0.25".parse().unwrap(), "test".to_owned(), 600_000, 0)
}
