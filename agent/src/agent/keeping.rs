//! What is tidied up once a bump is settled: snapshots beyond their time, versions that nothing needs.

use super::Agent;
use super::effects::blocking;
use crate::domain::{BumpId, Place, UserName, Version};
use crate::engine::{Bump, Needs, Outcome, Phase};
use crate::host::accounts;
use crate::versions::Retired;

impl Agent {
    /// Archives the originals of bumps that ended well but could not be archived then, on a full disk for instance.
    pub async fn settle_left_over(&self) {
        let (vault, journal) = (self.vault.clone(), &self.journal);
        let waiting = match blocking(move || vault.waiting_in_custody()).await {
            Ok(waiting) => waiting,
            Err(fault) => return tracing::warn!("custody could not be looked through: {}", fault.reason),
        };
        for (user, id, is_copy) in waiting {
            let Ok(bump) = journal.bump(id) else { continue };
            if is_copy && bump.as_ref().is_none_or(Bump::is_closed) {
                self.put_copy_away(&user, id).await;
                continue;
            }
            let Some(mut bump) = bump.filter(|bump| bump.phase == Phase::Closed(Outcome::Done)) else { continue };
            let (vault, place) = (self.vault.clone(), bump.instance.place.clone());
            match blocking(move || vault.archive(&place, id)).await {
                Ok(()) => {
                    tracing::info!(T3PIN_USER = %bump.instance.user(), T3PIN_BUMP = %id, "the original data of {id} is archived now");
                    bump.archived = true;
                    if let Err(error) = journal.record(&bump, None, super::now_ms()) {
                        tracing::error!(T3PIN_BUMP = %id, "{error}");
                    }
                }
                Err(fault) => tracing::warn!(T3PIN_BUMP = %id, "the original data of {id} stays in custody: {}", fault.reason),
            }
        }
    }

    /// A snapshot that was read back, and then the agent ended before it was used: the archive has it.
    async fn put_copy_away(&self, user: &UserName, id: BumpId) {
        let Ok(Some(account)) = accounts::lookup(user) else { return };
        let (vault, place) = (self.vault.clone(), Place::of(account));
        if let Err(fault) = blocking(move || vault.archive(&place, id)).await {
            tracing::warn!(T3PIN_USER = %user, T3PIN_BUMP = %id, "a copy of a snapshot is left: {}", fault.reason);
        }
    }

    /// Retires versions that nothing needs any more. That one stays costs room and nothing else.
    pub async fn retire_unneeded(&self) {
        let unneeded = match self.unneeded().await {
            Ok(unneeded) => unneeded,
            Err(why) => return tracing::warn!("no version is retired, as what is still needed cannot be told: {why}"),
        };
        for version in unneeded {
            match self.retire(&version).await {
                Ok(Retired::Gone { freed }) => {
                    let mb = freed / 1_000_000;
                    tracing::info!(
                        T3PIN_VERSION = %version,
                        "t3 {version} is retired, {mb} MB are free: no binding, pin, bump or snapshot needs it"
                    );
                }
                Ok(Retired::Needed(why)) => tracing::info!(T3PIN_VERSION = %version, "t3 {version} is not retired yet: {why}"),
                Ok(Retired::Missing) => {}
                Err(error) => tracing::warn!(T3PIN_VERSION = %version, "t3 {version} could not be retired: {error}"),
            }
        }
    }

    /// Removes one version by order: what became of it, in words, and whether it is gone.
    pub async fn remove_version(&self, version: &Version) -> (bool, String) {
        match self.needs().await {
            Err(why) => return (false, format!("t3 {version} stays: what is still needed cannot be told ({why})")),
            Ok(needs) => {
                if let Some(by) = needs.of(version) {
                    return (false, format!("t3 {version} stays: it is needed by {by}"));
                }
            }
        }
        match self.retire(version).await {
            Ok(Retired::Gone { freed }) => {
                let mb = freed / 1_000_000;
                tracing::info!(T3PIN_VERSION = %version, "t3 {version} is removed by order, {mb} MB are free");
                (true, format!("t3 {version} is removed; {mb} MB are free now"))
            }
            Ok(Retired::Needed(why)) => (false, format!("t3 {version} stays: {why}")),
            Ok(Retired::Missing) => (false, format!("t3 {version} is not installed")),
            Err(error) => (false, format!("t3 {version} could not be removed: {error}")),
        }
    }

    async fn retire(&self, version: &Version) -> std::io::Result<Retired> {
        let (store, version) = (self.store.clone(), version.clone());
        tokio::task::spawn_blocking(move || store.retire(&version)).await.map_err(std::io::Error::other)?
    }

    async fn unneeded(&self) -> Result<Vec<Version>, String> {
        let needs = self.needs().await?;
        let installed = self.store.list().map_err(|error| error.to_string())?;
        Ok(needs.unneeded(&installed.into_iter().map(|installed| installed.version).collect::<Vec<_>>()))
    }

    /// What needs which version. When anything cannot be asked, nothing is known.
    async fn needs(&self) -> Result<Needs, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let mut needs = Needs::default();
        for (user, version) in self.store.all_bindings().map_err(|e| text(&e))? {
            needs.add(&version, format!("the binding of {user}"));
        }
        let pin = self.pins.look(&self.journal);
        let enforced = self.journal.enforced_pin().map_err(|e| text(&e))?;
        let enforced: Option<crate::config::Pin> =
            enforced.map(|json| serde_json::from_str(&json)).transpose().map_err(|e| text(&e))?;
        for pin in pin.good.iter().chain(&enforced) {
            needs.add(&pin.version, "the pin");
            for (user, held) in &pin.users {
                needs.add(&held.version, format!("the pin of {user}"));
            }
        }
        for bump in self.journal.open_bumps().map_err(|e| text(&e))? {
            for version in [&bump.from, &bump.to] {
                needs.add(version, format!("bump {} of {}", bump.id, bump.instance.user()));
            }
        }
        let vault = self.vault.clone();
        for (version, by) in blocking(move || vault.needed_versions()).await.map_err(|fault| fault.reason)? {
            needs.add(&version, by);
        }
        Ok(needs)
    }
}
