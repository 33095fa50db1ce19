//! The engine's actions, each a few calls to the host in the order that a crash between any two of them forgives. Every action
//! can be repeated.

use super::blame::{data, host as systemd, io_fault};
use super::{HandedOver, Host};
use crate::domain::{Activity, UnixMs, Version};
use crate::engine::waits::Hurry;
use crate::engine::{Action, Blame, Bump, Event, Fault, Phase, rollout};
use crate::kill_point::{self, Point};
use crate::state::{StateError, blocking};
use crate::systemd::SystemdError;

/// Copying, hashing and checking a database of some GB takes minutes, not hours.
const DATA: std::time::Duration = std::time::Duration::from_secs(3600);

/// Does `action` for `bump` and says what came of it.
pub async fn perform<H: Host>(host: &H, bump: &Bump, action: &Action) -> Result<Event, Fault> {
    match action {
        Action::Rehearse => host.rehearse(bump).await,
        Action::TakeBaseline => host.take_baseline(bump).await,
        Action::Seed => seed(host, bump).await,
        Action::Quiesce { force } => {
            let event = quiesce(host, bump, *force).await;
            if !matches!(event, Ok(Event::Quiesced { .. })) {
                drop_seed(host, bump).await;
            }
            event
        }
        Action::Secure => secure(host, bump).await,
        Action::Switch => switch(host, bump).await,
        Action::Start { version } => start(host, bump, version).await,
        Action::Verify { version } => host.verify(bump, version).await,
        Action::Archive => archive(host, bump).await,
        Action::Stop => stop(host, bump).await,
        Action::Restore { keep_salvage, unarchive } => restore(host, bump, *keep_salvage, *unarchive).await,
        Action::Tidy => tidy(host, bump).await,
    }
}

/// DESIGN "seeded".
async fn seed<H: Host>(host: &H, bump: &Bump) -> Result<Event, Fault> {
    match host.vault().seed(&bump.instance.place, bump.id, DATA).await {
        Ok(later) => {
            if let Some(why) = &later {
                tracing::warn!(
                    T3PIN_USER = %bump.instance.user(), T3PIN_BUMP = %bump.id,
                    "the data is copied while the server is stopped, which takes longer: {why}"
                );
            }
            Ok(Event::Seeded { later })
        }
        Err(error) => {
            drop_seed(host, bump).await;
            Err(data(error))
        }
    }
}

/// A copy made beside a server that was not stopped after all: it is out of date, holds on to the database and takes room.
async fn drop_seed<H: Host>(host: &H, bump: &Bump) {
    host.vault().discard_seed(bump.id).await;
    if let Err(error) = host.vault().discard_work(&bump.instance.place, bump.id).await {
        tracing::warn!(T3PIN_USER = %bump.instance.user(), T3PIN_BUMP = %bump.id, "the copy could not be removed: {error}");
    }
}

/// DESIGN "quiesced": check, freeze, check again while nothing can move, and stop only if still idle.
async fn quiesce<H: Host>(host: &H, bump: &Bump, force: bool) -> Result<Event, Fault> {
    let unit = bump.instance.unit.as_str();
    // Now, because the new version may not know them any more; and before anybody waits for it.
    let paired = host.paired(bump).await;
    let state = host.unit(unit).await.map_err(systemd)?;
    let runs = matches!(state.active_state.as_str(), "active" | "activating" | "reloading" | "deactivating");
    // Going back on an order only asks that no work is lost; going forward also asks for quiet, unless somebody said "now".
    let hurry = if bump.phase == Phase::Quiesced { host.hurry(bump.instance.user()) } else { Hurry::Idle };
    let force = force || hurry == Hurry::Force;
    let quiet = if hurry == Hurry::None { host.quiet_ms() } else { 0 };
    let busy = |activity: &Activity, now_ms: UnixMs| rollout::busy(activity, now_ms, quiet);
    if runs && !force {
        return Ok(match host.hand_over(bump, &state, &busy).await? {
            HandedOver::Stopped { at_ms, still_ms } => Event::Quiesced { stopped_ms: at_ms, still_ms, paired },
            HandedOver::Busy { activity, reason } => {
                // Also what an earlier try held that did not get further: the server runs on, and must be able to start again.
                host.vault().release(bump.instance.user()).map_err(data)?;
                Event::FoundBusy { activity, reason }
            }
        });
    }
    let stopped_ms = host.now_ms();
    host.vault().hold(bump.instance.user(), bump.id).map_err(data)?;
    host.stop(unit).await.map_err(systemd)?;
    Ok(Event::Quiesced { stopped_ms, still_ms: None, paired })
}

async fn secure<H: Host>(host: &H, bump: &Bump) -> Result<Event, Fault> {
    let place = &bump.instance.place;
    let secured = host.vault().secure(place, bump.id, &bump.from, host.now_ms(), DATA).await;
    // The old version is started next, and may need the room that a half-made copy takes. Else the copy is removed once that version
    // runs: removing large files takes its time.
    if secured.as_ref().is_err_and(StateError::is_full)
        && let Err(error) = host.vault().discard_work(place, bump.id).await
    {
        tracing::warn!(T3PIN_USER = %bump.instance.user(), T3PIN_BUMP = %bump.id, "the copy could not be removed: {error}");
    }
    let (_, snapshot) = secured.map_err(data)?;
    Ok(Event::Secured { snapshot })
}

async fn switch<H: Host>(host: &H, bump: &Bump) -> Result<Event, Fault> {
    host.vault().switch_in(&bump.instance.place, bump.id).await.map_err(data)?;
    kill_point::reach(Some(bump.instance.user()), Point::Amid("switched"));
    host.bind(bump.instance.user(), &bump.to).map_err(|e| io_fault(&format!("the binding to {}", bump.to), &e))?;
    Ok(Event::Switched)
}

async fn start<H: Host>(host: &H, bump: &Bump, version: &Version) -> Result<Event, Fault> {
    let unit = bump.instance.unit.as_str();
    // Originals may be back without the ledger knowing of it: a record that failed may have been written all the same (see `Ledger`)
    // and an agent have died while it undid the phase before, or `t3pin recover` could not read the journal.
    // By the phase, not by the version: a bump that only the disk tells of may go from a version to itself.
    if bump.phase == Phase::Started && !bump.archived {
        host.vault().refuse_unsecured(&bump.instance.place, bump.id).await.map_err(data)?;
    }
    let bound = host.binding(bump.instance.user()).map_err(|e| io_fault("the binding", &e))?;
    if bound.as_ref() != Some(version) {
        host.bind(bump.instance.user(), version).map_err(|e| io_fault(&format!("the binding to {version}"), &e))?;
    }
    host.vault().release(bump.instance.user()).map_err(data)?;
    host.thaw(unit).await.map_err(systemd)?;
    match host.start(unit).await {
        Ok(()) => Ok(Event::Started),
        Err(error @ SystemdError::Job { .. }) if bump.phase == Phase::Started => {
            Err(Fault { reason: format!("{version} could not be started: {error}"), blame: Blame::Version })
        }
        Err(error) => Err(systemd(error)),
    }
}

/// Whether old data and old binding are back without the journal knowing of it: `t3pin recover` does that when it cannot read it.
/// The new version must not run on that data (promise 2), and whoever works on it by now is not interrupted (promise 4).
fn is_back<H: Host>(host: &H, bump: &Bump) -> bool {
    // Of a bump that only the disk tells of the new version may be unknown, and stands as the old one.
    let bound = host.binding(bump.instance.user()).ok().flatten();
    bump.from != bump.to
        && bound.as_ref() == Some(&bump.from)
        && host.vault().is_back(&bump.instance.place, bump.id).is_ok_and(|back| back)
}

async fn archive<H: Host>(host: &H, bump: &Bump) -> Result<Event, Fault> {
    let (vault, place, id) = (host.vault().clone(), bump.instance.place.clone(), bump.id);
    blocking(move || vault.archive(&place, id)).await.map_err(data)?;
    kill_point::reach(Some(bump.instance.user()), Point::Amid("archived"));
    // The bump is archived, whatever becomes of older ones: that they cannot be let go costs room and nothing else.
    let (vault, user, retention) = (host.vault().clone(), bump.instance.user().clone(), host.retention());
    if let Err(error) = blocking(move || vault.retain(&user, retention)).await {
        tracing::warn!(T3PIN_USER = %bump.instance.user(), "old snapshots of {} are kept: {error}", bump.instance.user());
    }
    Ok(Event::Archived)
}

async fn stop<H: Host>(host: &H, bump: &Bump) -> Result<Event, Fault> {
    if is_back(host, bump) {
        return Ok(Event::Stopped);
    }
    host.vault().hold(bump.instance.user(), bump.id).map_err(data)?;
    host.thaw(&bump.instance.unit).await.map_err(systemd)?;
    host.stop(&bump.instance.unit).await.map_err(systemd)?;
    Ok(Event::Stopped)
}

async fn restore<H: Host>(host: &H, bump: &Bump, keep_salvage: bool, unarchive: bool) -> Result<Event, Fault> {
    host.vault().discard_seed(bump.id).await;
    let place = &bump.instance.place;
    if let (true, Some(snapshot)) = (unarchive, &bump.snapshot) {
        let (vault, place, from, id) = (host.vault().clone(), place.clone(), snapshot.id, bump.id);
        blocking(move || vault.unarchive(&place, from, id)).await.map_err(data)?;
        kill_point::reach(Some(bump.instance.user()), Point::Amid("unarchived"));
    }
    let salvage = host.vault().restore(place, bump.id, keep_salvage).await.map_err(data)?;
    kill_point::reach(Some(bump.instance.user()), Point::Amid("restored"));
    host.bind(bump.instance.user(), &bump.from).map_err(|e| io_fault(&format!("the binding to {}", bump.from), &e))?;
    Ok(Event::Restored { salvage })
}

async fn tidy<H: Host>(host: &H, bump: &Bump) -> Result<Event, Fault> {
    host.vault().discard_seed(bump.id).await;
    host.vault().release(bump.instance.user()).map_err(data)?;
    host.vault().discard_work(&bump.instance.place, bump.id).await.map_err(data)?;
    host.vault().clear_away(&bump.instance.place, bump.id).await.map_err(data)?;
    Ok(Event::Tidied)
}
