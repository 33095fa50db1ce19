//! Evidence: what is left of every bump that was refused, rolled back or got stuck, for whoever has to find out why.
//!
//! One directory per bump and end in `/var/lib/t3pin/evidence/`, for root alone: what the journal says of it, what the new version
//! said, what the probes saw, levels, versions, times and how the host was. Every text goes through the redactor, every file
//! and their number are bounded. It is gathered when the user is served again; that it cannot be is logged, and changes nothing.

mod bundle;
mod host_facts;
mod shelf;
mod unit_log;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Agent, VAR, now_ms};
use crate::domain::UnixMs;
use crate::engine::{Bump, Outcome, Phase, Undo};
use crate::journal::Told;
use bundle::Material;

/// How long gathering may take: the next user's bump waits for it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of how many of the last bumps a bundle that is missing (the agent died before it was written) is still made.
const LOOK_BACK: usize = 10;

/// The end of a bump that leaves evidence, as it is called in the name of its bundle.
fn end_of(phase: Phase) -> Option<&'static str> {
    match phase {
        Phase::Stuck => Some("stuck"),
        Phase::Closed(Outcome::RolledBack) => Some("rolled-back"),
        Phase::Closed(Outcome::Refused) => Some("refused"),
        _ => None,
    }
}

/// Where the bundle of `bump`, as it stands, lies if there is one.
fn place_of(bump: &Bump) -> Option<PathBuf> {
    Some(Path::new(VAR).join("evidence").join(format!("{}-{}", bump.id, end_of(bump.phase)?)))
}

/// Where the bundle of `bump` lies, if it was written.
pub fn bundle_of(bump: &Bump) -> Option<PathBuf> {
    place_of(bump).filter(|place| place.is_dir())
}

/// What the new version itself said last before it was rolled back: `lines` at most, as the bundle has them. Reads the disk.
pub fn last_words(bump: &Bump, lines: usize) -> Vec<String> {
    let Some(bundle) = bundle_of(bump) else { return vec![] };
    let text = shelf::read(&bundle.join(bundle::UNIT_LOG)).unwrap_or_default();
    let own: Vec<&str> = text.lines().filter_map(unit_log::own_words).collect();
    own[own.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
}

impl Agent {
    /// Leaves the bundle of `bump`, if it ended in a way that leaves one; a bundle of the same end is replaced.
    pub async fn leave_evidence(&self, bump: &Bump) {
        let Some(place) = place_of(bump) else { return };
        let gathering = async {
            let material = self.gather(bump).await?;
            tokio::task::spawn_blocking(move || shelf::put(&place, &bundle::files(&material))).await??;
            Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
        };
        let failed = match tokio::time::timeout(PATIENCE, gathering).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it took longer than {} s", PATIENCE.as_secs()),
        };
        tracing::warn!(
            T3PIN_USER = %bump.instance.user(), T3PIN_BUMP = %bump.id,
            "no evidence could be left of {}: {failed}. The bump itself is not touched by that", bump.id
        );
    }

    /// Leaves the bundles that an agent which died could not leave any more. Part of every recovery, after everything else.
    pub async fn leave_missing_evidence(&self) {
        let open = self.journal.open_bumps().unwrap_or_default();
        let closed = self.journal.closed_bumps(None, LOOK_BACK).unwrap_or_default();
        for bump in open.iter().chain(&closed) {
            if place_of(bump).is_some_and(|place| !place.exists()) {
                self.leave_evidence(bump).await;
            }
        }
    }

    async fn gather(&self, bump: &Bump) -> Result<Material, Box<dyn std::error::Error + Send + Sync>> {
        let story = self.journal.story(bump.id)?;
        let log = match time_of_the_new(&story, now_ms()) {
            Some((since_ms, until_ms)) => unit_log::read(&bump.instance.unit, since_ms, until_ms).await,
            None => vec!["The new version was never started for this user; see rehearsal.log.".to_owned()],
        };
        let home = bump.instance.place.account.home.clone();
        let host = tokio::task::spawn_blocking(move || host_facts::look(&home)).await?;
        Ok(Material { bump: bump.clone(), story, log, host, written_ms: now_ms() })
    }
}

/// From when to when the new version ran for the user, as far as `story` tells.
fn time_of_the_new(story: &[Told], now_ms: UnixMs) -> Option<(UnixMs, UnixMs)> {
    let begun = story.iter().position(|told| told.entered() == Some(Phase::Started))?;
    let since = story[begun].at_ms;
    let ended = story[begun..].iter().find(|told| told.entered() == Some(Phase::RollingBack(Undo::Restored)));
    Some((since, ended.map_or(now_ms, |told| told.at_ms)))
}
