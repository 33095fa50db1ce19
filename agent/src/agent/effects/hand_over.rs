//! The race-free hand-over (DESIGN section 5, "quiesced"): look, let the server stand still, look again while nothing can
//! move, and stop it only if it is still idle; else let it go on, unharmed.
//!
//! While it stands still, nothing is waited for that stands still too, and nothing is done that could have been done before. Whatever
//! happens to this process meanwhile, it moves again: [`Standing`] for what is dropped, t3pin.service's own end for what dies,
//! t3pin-thaw.timer for what does not get on, the notes ([`FrozenNotes`]) for both to know whom.

use std::time::{Duration, Instant};

use super::{JOB, LOOK};
use crate::activity::{Lookout, Server};
use crate::agent::{Agent, now_ms};
use crate::conduct::{Busy, HandedOver, data, host, io_fault};
use crate::domain::{Activity, UnixMs};
use crate::engine::{Bump, Fault};
use crate::systemd::{ControlGroup, Freeze, FrozenNotes, Systemd, SystemdError, UnitState};

/// A user's server may stand still for this long, from the order to freeze to its first step: nobody shall feel it.
const STILL: Duration = Duration::from_millis(150);
/// Of that, what freezing may take...
const FREEZING: Duration = Duration::from_millis(70);
/// ...and until when the second look must be over: the rest is for ordering the stop, or for thawing.
const DECIDED: Duration = Duration::from_millis(110);
/// A server that was caught in the middle of something gets so long for it...
const PAUSE: Duration = Duration::from_millis(40);
/// ...so often.
const TRIES: u32 = 5;
/// A server that was told to stop moves again within this, or is made to.
const MOVES: Duration = Duration::from_millis(60);
/// Thaws whatever stands still for too long (2 s), also when this process does not get on.
const GUARD: &str = "t3pin-thaw.timer";

/// What came of one time of standing still.
enum Stood {
    Stopped(UnixMs),
    Busy(Activity, String),
    /// It was caught in the middle of something, or could not be looked at in time: the next moment may be better.
    BadMoment(String),
    Unfreezable(String),
}

impl Agent {
    /// Hands the running unit of `bump` over: stops it unless `busy` says why not. The data is held from before the stop on.
    pub(super) async fn hand_over(&self, bump: &Bump, state: &UnitState, busy: Busy<'_>) -> Result<HandedOver, Fault> {
        let (place, user) = (&bump.instance.place, bump.instance.user());
        // That this is the phase is on the ledger: no other begins.
        self.mints.none_of(user).await;
        let activity = self.activity(place, &state.control_group, LOOK).await;
        if let Some(reason) = busy(&activity, now_ms()) {
            return Ok(HandedOver::Busy { activity, reason });
        }
        // From here on nothing may start it again behind our back; and a disk that syncs slowly is not waited for later.
        self.vault.hold(user, bump.id).map_err(data)?;
        let handed = self.stop_if_idle(bump, state, busy).await;
        if let Ok(HandedOver::Busy { .. }) = handed {
            self.vault.release(user).map_err(data)?;
        }
        handed
    }

    async fn stop_if_idle(&self, bump: &Bump, state: &UnitState, busy: Busy<'_>) -> Result<HandedOver, Fault> {
        let user = bump.instance.user();
        let group = ControlGroup::named(&state.control_group);
        let why = match &group {
            Err(error) => error.to_string(),
            Ok(group) => match group.unfreezable() {
                Some(why) => why.to_owned(),
                None => match self.freeze_and_stop(bump, state, group, busy).await? {
                    Ok(handed) => return Ok(handed),
                    Err(why) => why,
                },
            },
        };
        let unit = bump.instance.unit.as_str();
        tracing::warn!(
            T3PIN_USER = %user, "{unit} cannot be frozen ({why}): a turn that starts within the next milliseconds would not be seen"
        );
        let activity = self.activity(&bump.instance.place, &state.control_group, LOOK).await;
        if let Some(reason) = busy(&activity, now_ms()) {
            return Ok(HandedOver::Busy { activity, reason });
        }
        let at_ms = now_ms();
        self.systemd.stop(unit, JOB).await.map_err(host)?;
        Ok(HandedOver::Stopped { at_ms, still_ms: None })
    }

    /// Some times of standing still, until one of them decides. The inner error says why the unit cannot be frozen at all.
    async fn freeze_and_stop(
        &self,
        bump: &Bump,
        state: &UnitState,
        group: &ControlGroup,
        busy: Busy<'_>,
    ) -> Result<Result<HandedOver, String>, Fault> {
        let _guard = Guard::over(&self.systemd, group).await;
        let mut still = Duration::ZERO;
        let mut bad = String::new();
        for _ in 0..TRIES {
            let stood = match self.stand_still(bump, state, group, busy, &mut still).await {
                Ok(stood) => stood,
                Err(Failed::After(fault)) => return Err(fault),
                Err(Failed::Before(why)) => {
                    Stood::Busy(Activity::Unknown { why: why.clone() }, format!("cannot tell whether it is busy: {why}"))
                }
            };
            match stood {
                Stood::Stopped(at_ms) => {
                    tell(bump, still, "was idle, and is stopped");
                    return Ok(Ok(HandedOver::Stopped { at_ms, still_ms: Some(ms(still)) }));
                }
                Stood::Busy(activity, reason) => {
                    if !still.is_zero() {
                        tell(bump, still, "was at work all the same, and goes on");
                    }
                    return Ok(Ok(HandedOver::Busy { activity, reason }));
                }
                Stood::BadMoment(why) => bad = why,
                Stood::Unfreezable(why) => return Ok(Err(why)),
            }
            tokio::time::sleep(PAUSE).await;
        }
        tell(bump, still, "could not be stopped at a good moment, and goes on");
        let reason = format!("no good moment to stop it in {TRIES} tries: {bad}");
        Ok(Ok(HandedOver::Busy { activity: Activity::Unknown { why: reason.clone() }, reason }))
    }

    /// One time of standing still. `longest` is how long the longest was.
    async fn stand_still(
        &self,
        bump: &Bump,
        state: &UnitState,
        group: &ControlGroup,
        busy: Busy<'_>,
        longest: &mut Duration,
    ) -> Result<Stood, Failed> {
        let (unit, user) = (bump.instance.unit.as_str(), bump.instance.user());
        // Everything that takes its time comes first: a process, an open database with the pages that matter read, a match at
        // the bus, a note.
        let mut lookout = Lookout::post(&bump.instance.place, &state.control_group).await.map_err(before)?;
        let activity = lookout.look(LOOK).await;
        if let Some(reason) = busy(&activity, now_ms()) {
            return Ok(Stood::Busy(activity, reason));
        }
        let server = Server::of(state.main_pid, bump.instance.port).map_err(before)?;
        let stop = self.systemd.ready_to_stop(unit).await.map_err(before)?;
        let notes = FrozenNotes::open().map_err(before)?;
        notes.write(user, &state.control_group).map_err(before)?;

        let begun = Instant::now();
        let standing = Standing { group };
        let frozen = self.systemd.freeze(unit, group, FREEZING).await;
        let stood = match frozen {
            Ok(Freeze::Still) => self.decide(group, begun, &server, &mut lookout, busy).await,
            Ok(Freeze::NotInTime) => Ok(Stood::BadMoment("it did not stand still in time".to_owned())),
            Ok(Freeze::Impossible(error)) => Ok(Stood::Unfreezable(error.to_string())),
            Err(error) => Err(Failed::Before(error.to_string())),
        };
        let stopping = match &stood {
            Ok(Stood::Stopped(_)) => Some(stop.order().await),
            _ => None,
        };
        let ordered = matches!(stopping, Some(Ok(_)));
        let moves = self.moves(unit, group, ordered).await;
        *longest = (*longest).max(begun.elapsed());
        drop(standing);
        if let Err(error) =
            moves.map_err(host).and_then(|()| notes.remove(user).map_err(|error| io_fault("the note that it was frozen", &error)))
        {
            tracing::error!(T3PIN_USER = %user, "{unit} may still stand still: {}; see `systemctl thaw`", error.reason);
        }
        if let Some(Some(stopping)) = stopping.transpose().map_err(after)? {
            stopping.done(JOB).await.map_err(after)?;
        }
        stood
    }

    /// With the server standing still: the second look, and the beginning of its end if it is idle and at rest.
    async fn decide(
        &self,
        group: &ControlGroup,
        begun: Instant,
        server: &Server,
        lookout: &mut Lookout,
        busy: Busy<'_>,
    ) -> Result<Stood, Failed> {
        let activity = lookout.look(DECIDED.saturating_sub(begun.elapsed())).await;
        match (busy(&activity, now_ms()), &activity) {
            (Some(_), Activity::Unknown { why }) => return Ok(Stood::BadMoment(why.clone())),
            (Some(reason), _) => return Ok(Stood::Busy(activity, reason)),
            (None, _) => {}
        }
        match server.at_rest() {
            Err(why) => Ok(Stood::BadMoment(why)),
            // Somebody who watches over us may have thawed it: then what was seen is no longer so.
            Ok(_) if begun.elapsed() > DECIDED || !group.is_frozen() => Ok(Stood::BadMoment("looking took too long".to_owned())),
            Ok(rest) => {
                let at_ms = now_ms();
                rest.end().map_err(before)?;
                Ok(Stood::Stopped(at_ms))
            }
        }
    }

    /// Sees to it that the unit moves again. A stop that was ordered does that, too.
    async fn moves(&self, unit: &str, group: &ControlGroup, stop_ordered: bool) -> Result<(), SystemdError> {
        let until = Instant::now() + MOVES;
        while stop_ordered && group.is_held() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if stop_ordered && !group.is_held() {
            return Ok(());
        }
        self.systemd.thaw_group(unit, group).await
    }
}

/// What failed, by whether the server was told to stop.
enum Failed {
    /// It runs on, unharmed.
    Before(String),
    /// It may not run.
    After(Fault),
}

fn before(error: impl std::fmt::Display) -> Failed {
    Failed::Before(error.to_string())
}

fn after(error: SystemdError) -> Failed {
    Failed::After(host(error))
}

/// A unit that stands still, or is about to; it moves when this is dropped, whatever happens.
struct Standing<'a> {
    group: &'a ControlGroup,
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        if self.group.is_held()
            && let Err(error) = self.group.let_move()
        {
            tracing::error!(
                "{} stands still and cannot be thawed from here ({error}); {GUARD} does it",
                self.group.directory().display()
            );
        }
    }
}

/// The timer that thaws what stands still for too long, while this is alive.
struct Guard(Systemd, ControlGroup);

impl Guard {
    async fn over(systemd: &Systemd, group: &ControlGroup) -> Self {
        if let Err(error) = systemd.activate(GUARD, JOB).await {
            tracing::warn!("nobody watches over this hand-over but t3pin itself: {error}");
        }
        Self(systemd.clone(), group.clone())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Nothing else may be able to thaw it: the agent's own hands are tied (ProtectControlGroups= in its unit).
        if self.1.is_held() {
            return;
        }
        let systemd = self.0.clone();
        tokio::spawn(async move {
            if let Err(error) = systemd.stop(GUARD, JOB).await {
                tracing::debug!("{GUARD} runs off by itself: {error}");
            }
        });
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// One line per hand-over, with how long nobody could work.
fn tell(bump: &Bump, still: Duration, what: &str) {
    tracing::info!(
        T3PIN_USER = %bump.instance.user(), T3PIN_BUMP = %bump.id, T3PIN_STILL_MS = ms(still),
        "{}: stood still for {} ms, {what}", bump.instance.user(), ms(still)
    );
    if still > STILL {
        tracing::warn!(T3PIN_USER = %bump.instance.user(), "that is longer than {} ms: the host is overloaded", STILL.as_millis());
    }
}
