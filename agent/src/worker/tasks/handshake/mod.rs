//! The pairing handshake against a running server: what a user would do, step by step (DESIGN section 6).
//!
//! A step that does not pass ends the handshake. Whatever server and CLI say is hostile input: bounded in time and size,
//! and blanked before anybody reads it.

mod clock;
mod descriptor;
mod dispatch;
mod exchange;
mod http;
mod mint;
#[cfg(test)]
pub(super) mod peer_for_tests;
mod revoke;
mod start;
mod strain;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use descriptor::is_plain as is_environment_id;
use exchange::NoSession;
use http::Peer;
use mint::Cli;
pub use mint::mint;
pub use revoke::AGENT_PREFIX;
use strain::Strain;
pub use strain::own_group;

use super::program::{Surroundings, usual_umask};
use super::trouble::{excuse, failed, inconclusive};
use crate::domain::{Descriptor, PairingTtl, ProbeReport, ProbeStep, StepOutcome, StepRecord};
use crate::worker::protocol::{MintedLink, ProbeSpec};

/// How long [`describe`] waits.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a probe's credential is called in the user's list, should they see it.
const LABEL: &str = "t3pin probe";

/// Credentials that one handshake mints at most.
const MINTS: u32 = 3;

/// See [`crate::worker::Task::Probe`]. The report is complete before what the probe made is taken back, and does not
/// depend on whether that works.
pub fn probe(spec: &ProbeSpec) -> ProbeReport {
    usual_umask();
    let surroundings = Surroundings::of_worker();
    let mut handshake = Handshake::new(spec, &surroundings);
    match runtime() {
        Ok(runtime) => runtime.block_on(async {
            handshake.run().await;
            handshake.take_back().await;
        }),
        Err(error) => handshake.abandon(inconclusive(format!("this host could not start a probe: {error}"))),
    }
    handshake.report
}

/// See [`crate::worker::Task::Describe`].
pub fn describe(address: &str) -> Option<Descriptor> {
    let peer = Peer { address: loopback(address)?, timeout: DESCRIBE_TIMEOUT, agent: agent() };
    let reply = runtime().ok()?.block_on(peer.get(descriptor::PATH, None)).ok()?;
    descriptor::read(&reply).ok()
}

/// What tasks that talk to servers and programs run on.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// One handshake under way. Its future may be dropped at any await; then [`Handshake::abandon`] ends the report.
#[derive(Debug)]
pub struct Handshake<'a> {
    spec: &'a ProbeSpec,
    surroundings: &'a Surroundings,
    agent: String,
    begun: Instant,
    wall: SystemTime,
    strain: Strain,
    starved: Duration,
    under_way: Option<(ProbeStep, Instant)>,
    unused: Option<MintedLink>,
    exchanged: bool,
    /// What was seen so far.
    pub report: ProbeReport,
}

impl<'a> Handshake<'a> {
    /// A handshake as `spec` says, its CLI run in `surroundings`.
    pub fn new(spec: &'a ProbeSpec, surroundings: &'a Surroundings) -> Self {
        let begun = Instant::now();
        let report = ProbeReport::default();
        let wall = SystemTime::now();
        let strain = Strain::of(spec.control_group.as_deref());
        let starved = strain.starved();
        let agent = agent();
        Self { spec, surroundings, agent, begun, wall, strain, starved, under_way: None, unused: None, exchanged: false, report }
    }

    /// Goes through the steps until one does not pass.
    pub async fn run(&mut self) {
        match self.steps().await {
            Ok(()) => self.report.ms = ms_since(self.begun),
            Err(outcome) => {
                let outcome = clock::excuse(outcome, self.wall.elapsed().ok(), self.begun.elapsed());
                let outcome = match self.under_way {
                    // Who answers is another matter than how soon.
                    Some((ProbeStep::Version | ProbeStep::Identity, _)) => outcome,
                    _ => strain::excuse(outcome, self.strain.starved().saturating_sub(self.starved), self.begun.elapsed()),
                };
                self.abandon(excuse(outcome, &self.spec.base_dir));
            }
        }
    }

    /// Ends the handshake at the step under way, for a reason that may come from elsewhere (the server has ended).
    pub fn abandon(&mut self, outcome: StepOutcome) {
        let (step, since) = self.under_way.take().unwrap_or((ProbeStep::Environment, self.begun));
        self.report.steps.push(StepRecord { step, outcome, ms: ms_since(since) });
        self.report.ms = ms_since(self.begun);
    }

    /// Where its CLI runs.
    pub fn surroundings(&self) -> &'a Surroundings {
        self.surroundings
    }

    /// Whether the handshake has got a session that nobody has revoked yet.
    pub fn left_a_session(&self) -> bool {
        self.exchanged
    }

    /// Revokes the session and the link that this handshake made. Failure is told to the log and nobody else.
    pub async fn take_back(&mut self) {
        let cli = Cli::of(self.spec, self.surroundings);
        if self.exchanged {
            match revoke::sessions(&cli, &self.agent).await {
                Ok(()) => self.exchanged = false,
                Err(why) => eprintln!("t3pin: the probe's session could not be revoked and stays until it expires: {why:?}"),
            }
        }
        if let Some(link) = self.unused.take()
            && let Err(why) = revoke::link(&cli, &link).await
        {
            eprintln!("t3pin: the probe's pairing link {} could not be revoked; it expires in 5 min: {why:?}", link.id);
        }
    }

    async fn steps(&mut self) -> Result<(), StepOutcome> {
        self.begin(ProbeStep::Environment);
        let address = loopback(&self.spec.address)
            .ok_or_else(|| inconclusive(format!("\"{}\" is no address and port", self.spec.address)))?;
        let timeout = Duration::from_millis(self.spec.request_timeout_ms.clamp(50, 60_000));
        let peer = Peer { address, timeout, agent: self.agent.clone() };
        let descriptor = start::await_descriptor(&peer, self.spec, &self.strain).await?;
        self.report.descriptor = Some(descriptor.clone());
        self.pass();
        self.begin(ProbeStep::Version);
        let expected = &self.spec.expect_version;
        match &descriptor.server_version {
            Some(version) if version == expected => self.pass(),
            Some(version) => return Err(failed(format!("the server says it is {version}, not {expected}"))),
            None => return Err(failed(format!("the server names no version, it should be {expected}"))),
        }
        self.begin(ProbeStep::Identity);
        let identity = &descriptor.environment_id;
        match &self.spec.expect_environment_id {
            Some(expected) if expected != identity => {
                return Err(failed(format!("the environment id is {identity}, not {expected}: this is not the user's server")));
            }
            _ => self.pass(),
        }
        let session = self.pair(&peer).await?;
        self.report.endpoint = Some(session.endpoint.clone());
        self.pass();
        self.begin(ProbeStep::Session);
        exchange::authenticated(&peer, &session).await?;
        self.pass();
        if let Some((url, header)) = &self.spec.dispatch {
            self.begin(ProbeStep::Dispatch);
            dispatch::dispatch(url, header, &self.surroundings.user, &session.name, timeout).await?;
            self.pass();
        }
        Ok(())
    }

    /// Mint and exchange; leaves the exchange under way. Only a credential whose exchange went unanswered, and that may
    /// be used up for that reason, is followed by another.
    async fn pair(&mut self, peer: &Peer) -> Result<exchange::Session, StepOutcome> {
        let cli = Cli::of(self.spec, self.surroundings);
        self.begin(ProbeStep::Mint);
        let mut link = cli.mint(PairingTtl::default(), Some(LABEL)).await?;
        self.unused = Some(link.clone());
        self.pass();
        self.begin(ProbeStep::Exchange);
        let name = exchange::cookie_name(peer).await;
        for left in (0..MINTS).rev() {
            match exchange::exchange(peer, &self.spec.pair_endpoints, &link, &name).await {
                Ok(session) => {
                    (self.exchanged, self.unused) = (true, None);
                    return Ok(session);
                }
                Err(NoSession::Outcome(outcome)) => return Err(outcome),
                Err(NoSession::Spent) => {
                    // The request that went unanswered has made a session all the same.
                    (self.exchanged, self.unused) = (true, None);
                    if left > 0 {
                        link = cli.mint(PairingTtl::default(), Some(LABEL)).await?;
                        self.unused = Some(link.clone());
                    }
                }
            }
        }
        Err(failed(format!("{MINTS} exchanges went unanswered and used their credentials up")))
    }

    fn begin(&mut self, step: ProbeStep) {
        self.under_way = Some((step, Instant::now()));
    }

    fn pass(&mut self) {
        if let Some((step, since)) = self.under_way.take() {
            self.report.steps.push(StepRecord { step, outcome: StepOutcome::Passed, ms: ms_since(since) });
        }
    }
}

fn ms_since(then: Instant) -> u64 {
    u64::try_from(then.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Address and port; a server that listens everywhere is asked at the loopback address.
fn loopback(address: &str) -> Option<SocketAddr> {
    let mut address: SocketAddr = address.parse().ok()?;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    Some(address)
}

/// A user agent that no other probe has.
fn agent() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{}{} ({}-{now:x})", revoke::AGENT_PREFIX, env!("CARGO_PKG_VERSION"), std::process::id())
}

/// See `crate::fuzzing`.
#[cfg(feature = "fuzzing")]
pub fn fuzz_answers(bytes: &[u8]) {
    use crate::worker::protocol::MintedLink;
    let text = String::from_utf8_lossy(bytes).into_owned();
    let cookies: Vec<String> = text.lines().map(str::to_owned).collect();
    if let Some(value) = exchange::cookie(&cookies, "t3_session") {
        assert!(!value.contains([';', '\n']), "{value:?}");
    }
    let reply = http::Reply { status: 200, cookies, body: bytes.to_vec() };
    if let Ok(found) = descriptor::read(&reply) {
        assert!(!found.environment_id.contains(char::is_control), "{found:?}");
    }
    if let Some(link) = mint::first_json::<MintedLink>(bytes) {
        mint::is_plain_id(&link.id);
    }
    crate::worker::tasks::redact::excerpt(bytes, 300);
}

/// See `crate::fuzzing`.
#[cfg(feature = "fuzzing")]
#[allow(clippy::unwrap_used)]
pub fn fuzz_http(bytes: &[u8]) {
    let Ok(reply) = runtime().unwrap().block_on(http::fuzz_answer(bytes)) else { return };
    assert!(reply.body.len() <= http::MAX_ANSWER, "{}", reply.body.len());
    assert!(reply.cookies.iter().all(|cookie| !cookie.contains(['\r', '\n'])), "{:?}", reply.cookies);
    if let Some(value) = exchange::cookie(&reply.cookies, "t3_session") {
        assert!(hyper::header::HeaderValue::from_str(&format!("t3_session={value}")).is_ok(), "{value:?}");
    }
    descriptor::read(&reply).ok();
}
