//! What the socket may ask of snapshots and salvage.

use std::sync::Arc;

use super::Agent;
use super::effects::blocking;
use super::runs::Run;
use super::status::may_see;
use crate::api::archive_types::{ArchiveRequest, ArchiveStatus, KeptFile, KeptRequest, KeptStatus};
use crate::api::types::{ApiError, Caller, RunOutcome};
use crate::conduct::{Host, data};
use crate::domain::{Account, KeptId, Place, UserName, Version};
use crate::host::accounts;
use crate::state::KeptView;

impl Agent {
    /// What is kept of those users that `caller` may see; with the files of each when one user is asked for.
    pub async fn kept(&self, caller: Caller, user: Option<UserName>) -> Result<Vec<ArchiveStatus>, ApiError> {
        let vault = self.vault.clone();
        let users = match user {
            Some(user) => vec![user],
            None => blocking(move || vault.kept_users()).await.map_err(|fault| failed(fault.reason))?,
        };
        let mut all = Vec::new();
        for user in users.into_iter().filter(|user| may_see(caller, user)) {
            let uid = account(&user).ok().map(|account| account.uid);
            let (vault, whose) = (self.vault.clone(), user.clone());
            let overview = blocking(move || vault.overview(&whose)).await.map_err(|fault| failed(fault.reason))?;
            // A name can be given to another person: what their predecessor left is the operators' only.
            let theirs = |one: &KeptView| caller.privileged || one.uid.is_none_or(|then| Some(then) == uid);
            let kept: Vec<KeptStatus> = overview.kept.into_iter().filter(theirs).map(|one| self.shown(one)).collect();
            if !kept.is_empty() {
                all.push(ArchiveStatus { user, disk_bytes: overview.disk_bytes, kept });
            }
        }
        Ok(all)
    }

    fn shown(&self, one: KeptView) -> KeptStatus {
        // What was set aside was written by the version that was rolled back.
        let version = one.version.or_else(|| match one.id {
            KeptId::Salvage(bump, _) => self.journal.bump(bump).ok().flatten().map(|bump| bump.to),
            KeptId::Snapshot(_) => None,
        });
        KeptStatus {
            id: one.id,
            version,
            migration_level: one.migration_level,
            created_ms: one.created_ms,
            bytes: one.bytes,
            verified_ms: one.verified.as_ref().map(|verified| verified.at_ms),
            damaged: one.verified.and_then(|verified| verified.wrong),
            path: one.path.display().to_string(),
            files: one.files.into_iter().map(|(path, bytes)| KeptFile { path, bytes }).collect(),
        }
    }

    /// Reads everything again, or one of it.
    pub async fn verify_kept(&self, caller: Caller, request: ArchiveRequest, run: Run) {
        let users = match self.whose(caller, request.user).await {
            Ok(users) => users,
            Err(error) => return run.end(RunOutcome::Refused, error.error),
        };
        let (mut whole, mut damaged) = (0, vec![]);
        for user in users {
            let (vault, whose, id, told) = (self.vault.clone(), user.clone(), request.id, run.clone());
            let progress =
                move |done: u64, all: u64| told.say(format!("{whose}: {} of {} MB read", done / 1_000_000, all / 1_000_000));
            let whose = user.clone();
            match blocking(move || vault.verify_kept(&whose, id, progress)).await {
                Ok(found) => {
                    for (id, wrong) in found {
                        match wrong {
                            None => whole += 1,
                            Some(why) => {
                                tracing::error!(T3PIN_USER = %user, "snapshot {id} of {user} is damaged: {why}");
                                damaged.push(format!("{user} {id} is damaged: {why}"));
                            }
                        }
                    }
                }
                Err(fault) => damaged.push(format!("{user}: {}", fault.reason)),
            }
        }
        match damaged.is_empty() {
            true if whole == 0 => run.end(RunOutcome::Refused, "there is no such snapshot".to_owned()),
            true => run.end(RunOutcome::Done, format!("{whole} snapshot(s) read from end to end: all whole")),
            false => {
                let rest = format!("{whole} other(s) are whole; the damaged ones cannot be restored");
                run.end(RunOutcome::Refused, format!("{}. {rest}", damaged.join(". ")));
            }
        }
    }

    /// Applies retention, or removes one by name.
    pub async fn prune_kept(&self, caller: Caller, request: ArchiveRequest, run: Run) {
        if let (Some(id), Some(user)) = (request.id, request.user.clone()) {
            let (vault, whose) = (self.vault.clone(), user.clone());
            return match blocking(move || vault.remove_kept(&whose, id)).await {
                Ok(freed) => {
                    tracing::info!(T3PIN_USER = %user, "{id} of {user} is removed by order");
                    run.end(RunOutcome::Done, format!("{user} {id} is removed; {} MB are free now", freed / 1_000_000));
                }
                Err(fault) => run.end(RunOutcome::Refused, fault.reason),
            };
        }
        if request.id.is_some() {
            return run.end(RunOutcome::Refused, "say whose it is".to_owned());
        }
        let users = match self.whose(caller, request.user).await {
            Ok(users) => users,
            Err(error) => return run.end(RunOutcome::Refused, error.error),
        };
        let (mut gone, mut kept) = (0, vec![]);
        for user in users {
            let (vault, whose, retention) = (self.vault.clone(), user.clone(), self.retention());
            match blocking(move || vault.retain(&whose, retention)).await {
                Ok(removed) => {
                    for (snapshot, why) in removed {
                        run.say(format!("{user}: {} of {} is removed: {why}", snapshot.id, snapshot.version));
                        gone += 1;
                    }
                }
                Err(fault) => kept.push(format!("{user}: {}", fault.reason)),
            }
        }
        self.retire_unneeded().await;
        match kept.is_empty() {
            true => run.end(RunOutcome::Done, format!("{gone} snapshot(s) removed; salvage only goes by its name")),
            false => run.end(RunOutcome::Refused, format!("{gone} snapshot(s) removed. {}", kept.join(". "))),
        }
    }

    /// Makes an ordinary file of a database, to be fetched.
    pub async fn export_kept(self: Arc<Self>, caller: Caller, request: KeptRequest, run: Run) {
        let id = run.report().id;
        let place = match self.whose(caller, Some(request.user.clone())).await.and_then(|_| account(&request.user)) {
            Ok(account) => Place::of(account),
            Err(error) => return run.end(RunOutcome::Refused, error.error),
        };
        if let Err(why) = self.exports.reserve(id, caller.uid) {
            return run.end(RunOutcome::Refused, why);
        }
        run.say(format!("making one file of the database of {} {}", request.user, request.id));
        match self.vault.export(&place, request.id).await {
            Ok((file, bytes)) => {
                self.exports.put(id, file);
                run.end(RunOutcome::Done, format!("{bytes} bytes"));
            }
            Err(error) => {
                self.exports.forget(id);
                run.end(RunOutcome::Refused, data(error).reason);
            }
        }
    }

    /// Removes an installed version.
    pub async fn remove_version_by_order(&self, version: &Version, run: &Run) {
        let (gone, story) = self.remove_version(version).await;
        run.end(if gone { RunOutcome::Done } else { RunOutcome::Refused }, story);
    }

    /// The users who are meant, of those that the caller may see.
    async fn whose(&self, caller: Caller, user: Option<UserName>) -> Result<Vec<UserName>, ApiError> {
        let missing = |user: &UserName| ApiError {
            kind: "not-found".to_owned(),
            error: format!("nothing of {user} is kept that you may see"),
        };
        let vault = self.vault.clone();
        let kept = blocking(move || vault.kept_users()).await.map_err(|fault| failed(fault.reason))?;
        match user {
            Some(user) if kept.contains(&user) && may_see(caller, &user) => Ok(vec![user]),
            Some(user) => Err(missing(&user)),
            None => Ok(kept.into_iter().filter(|user| may_see(caller, user)).collect()),
        }
    }
}

fn account(user: &UserName) -> Result<Account, ApiError> {
    match accounts::lookup(user) {
        Ok(Some(account)) => Ok(account),
        Ok(None) => Err(ApiError { kind: "not-found".to_owned(), error: format!("there is no account {user} any more") }),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn failed(error: String) -> ApiError {
    ApiError { kind: "internal".to_owned(), error }
}
