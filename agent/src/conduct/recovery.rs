//! Taking up again what was under way, through the same engine.

use super::drive::drive;
use super::{Host, Ledger};
use crate::engine::Event;

/// What is done first at every start: finishes or undoes every open bump and lets go of data that nobody works on. Never gives
/// up half-way: one user's trouble does not keep another's bump from being recovered.
pub async fn recover<H: Host>(host: &H) {
    resume(host, false).await;
    let_go(host);
}

/// What is done at every round: a bump whose last record could not be written is still under way in the ledger while nobody
/// works on it any more. It is taken up as if the agent had died there.
pub async fn take_up<H: Host>(host: &H) {
    resume(host, true).await;
}

async fn resume<H: Host>(host: &H, only_under_way: bool) {
    let open = match host.ledger().open_bumps() {
        Ok(open) => open,
        Err(error) => return tracing::error!("{error}; what was under way cannot be recovered by itself"),
    };
    for bump in open {
        if bump.is_under_way() {
            tracing::warn!(
                T3PIN_USER = %bump.instance.user(), T3PIN_BUMP = %bump.id, T3PIN_VERSION = %bump.to, T3PIN_PHASE = ?bump.phase,
                "{} was under way ({} -> {}, {:?}) when it was left; recovering", bump.instance.user(), bump.from, bump.to, bump.phase
            );
        } else if only_under_way {
            continue;
        }
        drive(host, bump, Event::AgentRestarted, &|_| ()).await;
    }
}

/// Data that is held although no open bump works on it would keep a server from ever starting again.
fn let_go<H: Host>(host: &H) {
    let held = match host.vault().held() {
        Ok(held) => held,
        Err(error) => return tracing::error!("{error}"),
    };
    if !host.ledger().is_complete() && !held.is_empty() {
        return tracing::error!("data is held for bumps that the journal may have lost; nothing of it is let go");
    }
    for (user, id) in held {
        match host.ledger().open_bump(&user) {
            Ok(None) => {
                tracing::warn!(T3PIN_USER = %user, T3PIN_BUMP = %id, "{user} was still held for {id}, which is over; letting go");
                if let Err(error) = host.vault().release(&user) {
                    tracing::error!(T3PIN_USER = %user, "{error}");
                }
            }
            Ok(Some(_)) => {}
            Err(error) => tracing::error!(T3PIN_USER = %user, "{error}"),
        }
    }
}
