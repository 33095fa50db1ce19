//! Waiting for a server to come up: asks for the descriptor until it answers.
//!
//! The deadline stretches while the database visibly changes, because a migration may take its time (DESIGN section 6), and by the time
//! in which the host kept the server from running.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::descriptor;
use super::http::{NoReply, Peer};
use super::strain::Strain;
use crate::domain::{Descriptor, StepOutcome};
use crate::worker::protocol::ProbeSpec;
use crate::worker::tasks::trouble::{failed, inconclusive};

/// Between two requests while none is under way.
const PAUSE: Duration = Duration::from_millis(100);

/// A request that is not answered by then gets company: a starting server may never answer it.
const IMPATIENCE: Duration = Duration::from_millis(500);

/// How often the database is looked at.
const GLANCE: Duration = Duration::from_millis(500);

/// A server that answers, but wrongly, for this long is not going to answer rightly.
const WRONG_FOR: Duration = Duration::from_secs(5);

/// Waits for the descriptor of the server at `peer`.
pub async fn await_descriptor(peer: &Peer, spec: &ProbeSpec, strain: &Strain) -> Result<Descriptor, StepOutcome> {
    let begun = Instant::now();
    let mut patience = Patience::new(spec, strain, begun);
    let mut requests = JoinSet::new();
    let mut next_request = begun;
    let mut last = Seen::Silence("it was never reached".to_owned());
    let mut wrong_since: Option<Instant> = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next_request) => {
                let peer = peer.clone();
                requests.spawn(async move { peer.get(descriptor::PATH, None).await });
                next_request = Instant::now() + IMPATIENCE;
            }
            Some(answer) = requests.join_next() => {
                let seen = match answer {
                    Ok(Ok(reply)) => match descriptor::read(&reply) {
                        Ok(descriptor) => return Ok(descriptor),
                        Err(what) => Seen::Wrong(what),
                    },
                    Ok(Err(NoReply::Host(what))) => Seen::Host(what),
                    Ok(Err(other)) => Seen::Silence(other.to_string()),
                    Err(error) => Seen::Host(error.to_string()),
                };
                wrong_since = matches!(seen, Seen::Wrong(_)).then(|| wrong_since.unwrap_or_else(Instant::now));
                last = seen;
                if requests.is_empty() {
                    next_request = next_request.min(Instant::now() + PAUSE);
                }
            }
            () = tokio::time::sleep_until(patience.next_glance) => patience.glance(),
        }
        let wrong_for_good = wrong_since.is_some_and(|since| since.elapsed() >= WRONG_FOR.min(patience.usual / 2));
        if wrong_for_good || patience.is_over() {
            return Err(last.verdict(&peer.address.to_string(), begun.elapsed()));
        }
    }
}

/// What the last request saw.
enum Seen {
    Silence(String),
    Wrong(String),
    Host(String),
}

impl Seen {
    fn verdict(self, address: &str, after: Duration) -> StepOutcome {
        let after = after.as_secs_f32();
        match self {
            Self::Silence(what) => failed(format!("{what} at {address} for {after:.1} s")),
            Self::Wrong(what) => failed(format!("{what} at {address} for {after:.1} s")),
            Self::Host(what) => inconclusive(format!("{what} (asking {address} for {after:.1} s)")),
        }
    }
}

/// How long to wait.
struct Patience<'a> {
    base_dir: &'a Path,
    usual: Duration,
    deadline: Instant,
    ceiling: Instant,
    next_glance: Instant,
    print: [Option<(u64, i64, i64)>; 2],
    strain: &'a Strain,
    waited: Duration,
    looked: Instant,
}

impl<'a> Patience<'a> {
    fn new(spec: &'a ProbeSpec, strain: &'a Strain, begun: Instant) -> Self {
        let usual = Duration::from_millis(spec.start_deadline_ms);
        let ceiling = begun + Duration::from_millis(spec.start_ceiling_ms).max(usual);
        let base_dir = &spec.base_dir;
        Self {
            base_dir,
            usual,
            deadline: begun + usual,
            ceiling,
            next_glance: begun + GLANCE.min(usual),
            print: fingerprint(base_dir),
            strain,
            waited: strain.kept_waiting(),
            looked: begun,
        }
    }

    /// Looks at the database; a change gives half of the usual time from now, if that is more than what is left. And what the host has
    /// kept from the server since the last look is given back to it.
    fn glance(&mut self) {
        let now = Instant::now();
        let waited = self.strain.kept_waiting();
        let kept = waited.saturating_sub(self.waited).min(now - self.looked);
        self.deadline = (self.deadline + kept).min(self.ceiling);
        (self.waited, self.looked) = (waited, now);
        self.next_glance = (now + GLANCE).min(self.deadline.max(now + Duration::from_millis(10)));
        let print = fingerprint(self.base_dir);
        if print != self.print {
            self.print = print;
            self.deadline = self.deadline.max(now + self.usual / 2).min(self.ceiling);
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }
}

/// Size and time of last change of the database and its log.
fn fingerprint(base_dir: &Path) -> [Option<(u64, i64, i64)>; 2] {
    ["state.sqlite", "state.sqlite-wal"].map(|name| {
        let meta = std::fs::symlink_metadata(base_dir.join("userdata").join(name)).ok()?;
        Some((meta.len(), meta.mtime(), meta.mtime_nsec()))
    })
}
