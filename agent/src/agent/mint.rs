//! Pairing credentials on demand, for the user themselves and for a site's reverse proxy.
//!
//! Minted by the CLI of exactly the version that serves, as the user (T3-CONTRACT section 6), and told to the caller alone: never to
//! a log, the journal, evidence or the arguments of a process. Never while the user's data is being handed over: a bump waits for
//! a minting that has begun ([`Mints::none_of`]), and none begins once its phase is on the ledger. One of the two sees the other,
//! whoever comes first, because each is noted before it looks.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Agent;
use super::handler::{error, internal};
use crate::api::types::{ApiError, Caller, MintRequest, Minted};
use crate::domain::{Instance, PairingLabel, PairingTtl, UserName, Version};
use crate::engine::Phase;
use crate::health;
use crate::host::instances;
use crate::worker::{self, Answer, MintSpec, MintedLink, Task};

/// How long a caller is kept waiting for a hand-over, a start or somebody else's minting to end.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often it is tried meanwhile.
const AGAIN: Duration = Duration::from_millis(200);
/// How long t3 may take: usually 1.3 to 2.7 s (T3-CONTRACT section 9). With [`PATIENCE`], less than a client waits for an answer.
const MINTING: Duration = Duration::from_secs(40);
/// That many at a time: each is a process of node's.
const AT_ONCE: usize = 4;

/// The mintings under way.
#[derive(Debug)]
pub struct Mints {
    places: Arc<Semaphore>,
    users: Arc<Mutex<BTreeSet<UserName>>>,
}

impl Default for Mints {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)), users: Arc::default() }
    }
}

/// One minting under way; over when dropped.
#[derive(Debug)]
struct Turn {
    user: UserName,
    users: Arc<Mutex<BTreeSet<UserName>>>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Turn {
    fn drop(&mut self) {
        locked(&self.users).remove(&self.user);
    }
}

/// A server for which something may be minted.
#[derive(Debug)]
pub struct Serving {
    /// It, with its user.
    pub instance: Instance,
    /// The version that serves.
    pub version: Version,
    since: Instant,
    _turn: Turn,
}

impl Serving {
    /// How much of [`MINTING`] is left.
    pub fn left(&self) -> Duration {
        MINTING.saturating_sub(self.since.elapsed())
    }
}

impl Mints {
    /// Notes that one begins for `user`; `None` while there is another of theirs, or no room. Two at a time would find the database locked.
    fn begin(&self, user: &UserName) -> Option<Turn> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let fresh = locked(&self.users).insert(user.clone());
        fresh.then(|| Turn { user: user.clone(), users: Arc::clone(&self.users), _place: place })
    }

    /// Waits until none is under way for `user`: what has begun ends within [`MINTING`].
    pub async fn none_of(&self, user: &UserName) {
        while locked(&self.users).contains(user) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn locked(users: &Mutex<BTreeSet<UserName>>) -> MutexGuard<'_, BTreeSet<UserName>> {
    users.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why there is no credential.
enum Not {
    /// In a moment there may be one.
    Yet(ApiError),
    /// Somebody has to do something first.
    Until(ApiError),
}

impl Agent {
    /// `POST /v1/mint`. The caller may do this for `user`.
    pub async fn mint(&self, caller: Caller, user: &UserName, request: &MintRequest) -> Result<Minted, ApiError> {
        let serving = self.serving(caller, user).await?;
        let link = self.mint_by(caller, &serving, request.ttl, request.label.clone(), None).await?;
        Ok(Minted {
            user: user.clone(),
            version: serving.version,
            id: link.id,
            credential: link.credential,
            expires_at: link.expires_at.and_then(|at| at.parse::<jiff::Timestamp>().ok()).map(|at| at.to_string()),
        })
    }

    /// `user`'s server, as soon as something may be minted for it; nothing else is, and nobody's data is handed over, until what is
    /// returned is dropped. That has to be within [`MINTING`].
    pub(super) async fn serving(&self, caller: Caller, user: &UserName) -> Result<Serving, ApiError> {
        let begun = Instant::now();
        loop {
            match self.try_serving(user).await {
                Ok(serving) => return Ok(serving),
                Err(Not::Yet(_)) if begun.elapsed() < PATIENCE => tokio::time::sleep(AGAIN).await,
                Err(Not::Yet(error) | Not::Until(error)) => {
                    tracing::info!(T3PIN_USER = %user, uid = caller.uid, "no pairing credential for uid {}: {error}", caller.uid);
                    return Err(error);
                }
            }
        }
    }

    /// [`Agent::serving`], if that is so at this very moment.
    pub(super) async fn serves_now(&self, user: &UserName) -> Option<Serving> {
        self.try_serving(user).await.ok()
    }

    /// A link for `user`'s server by the t3 that serves; the one that it `replaces` is revoked before.
    pub(super) async fn mint_by(
        &self,
        caller: Caller,
        serving: &Serving,
        ttl: PairingTtl,
        label: Option<PairingLabel>,
        replaces: Option<String>,
    ) -> Result<MintedLink, ApiError> {
        let (account, user) = (&serving.instance.place.account, serving.instance.user());
        let spec = MintSpec {
            cli: self.store.cli(&serving.version),
            node: self.settings().node.clone(),
            base_dir: serving.instance.place.base_dir.clone(),
            ttl,
            label,
            replaces,
        };
        let minted = match worker::run(account, &Task::Mint(spec), serving.left()).await {
            Ok(Answer::Minted(link)) => Ok(link),
            Ok(_) => Err(internal("the worker answered something else than was asked")),
            Err(cause) => Err(internal(format!("{user}'s t3 gave no credential: {cause}"))),
        };
        let uid = caller.uid;
        match &minted {
            Ok(link) => tracing::info!(
                T3PIN_USER = %user, uid, "a pairing credential of {user}'s was minted for uid {uid} ({}, good for {ttl})", link.id
            ),
            Err(error) => tracing::info!(T3PIN_USER = %user, uid, "no pairing credential for uid {uid}: {error}"),
        }
        minted
    }

    async fn try_serving(&self, user: &UserName) -> Result<Serving, Not> {
        let later = |why: String| Not::Yet(error("deferred", &format!("{why}; ask again in a moment")));
        let refused = |why: String| error("busy", &why);
        let turn = self.mints.begin(user).ok_or_else(|| later("other credentials are being minted".to_owned()))?;
        let bound = self.store.binding(user).map_err(|cause| Not::Until(internal(cause)))?;
        let Some(version) = bound else {
            return Err(Not::Until(error("not-found", &format!("{user} has no server here; t3pin enroll {user} makes one"))));
        };
        let open = self.journal.open_bump(user).map_err(|cause| Not::Until(internal(cause)))?;
        match &open {
            Some(bump) if bump.phase == Phase::Stuck => {
                return Err(Not::Until(refused(format!("{user} is stuck between two versions; see t3pin status {user}"))));
            }
            Some(bump) if bump.is_in_gap() => {
                return Err(later(format!("{user}'s data is being handed over from {} to {}", bump.from, bump.to)));
            }
            _ => {}
        }
        let held = self.vault.held().map_err(|cause| Not::Until(internal(cause)))?;
        if held.iter().any(|(whose, _)| whose == user) {
            return Err(later(format!("{user}'s data is in t3pin's hands")));
        }
        let instance = instances::of(&self.env, user).map_err(|cause| Not::Until(refused(cause.to_string())))?;
        let account = &instance.place.account;
        let serving = health::describe(account, &instance.probe_address()).await.map_err(|cause| Not::Yet(internal(cause)))?;
        match serving.map(|descriptor| descriptor.server_version) {
            Some(Some(serving)) if serving == version => {}
            Some(serving) => {
                let serving = serving.map_or("something else".to_owned(), |serving| serving.to_string());
                let why = format!(
                    "{serving} answers on {user}'s port and not {version}, to which {user} is bound: a credential of the wrong version would \
                     harm the data. See t3pin status {user}"
                );
                return Err(Not::Until(refused(why)));
            }
            None => {
                let why =
                    format!("{user}'s server does not answer; see t3pin status {user} and systemctl status {}", instance.unit);
                return Err(Not::Yet(refused(why)));
            }
        }
        Ok(Serving { instance, version, since: Instant::now(), _turn: turn })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_user_has_one_at_a_time_and_a_hand_over_waits_for_it() {
        let (mints, alice) = (Mints::default(), "alice".parse().unwrap());
        let turn = mints.begin(&alice).unwrap();
        assert!(mints.begin(&alice).is_none());
        assert!(tokio::time::timeout(Duration::from_millis(50), mints.none_of(&alice)).await.is_err());
        drop(turn);
        mints.none_of(&alice).await;
        assert!(mints.begin(&alice).is_some());
    }

    #[test]
    fn all_together_have_so_many_places() {
        let mints = Mints::default();
        let taken: Vec<_> = (0..AT_ONCE).map(|n| mints.begin(&format!("u{n}").parse().unwrap()).unwrap()).collect();
        assert!(mints.begin(&"more".parse().unwrap()).is_none());
        drop(taken);
        assert!(mints.begin(&"more".parse().unwrap()).is_some());
    }
}
