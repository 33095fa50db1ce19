//! The cgroup freezer.
//!
//! systemd answers `FreezeUnit` when every process stands still, but for two cases. A `daemon-reload` in between (a package being
//! installed is enough) makes it forget whom to answer, while the unit does get frozen (seen with 252). And an earlier change of the
//! control group that it comes to read only now (`cgroup.events` still says `frozen 0`) may make it answer too soon, so that on a busy
//! host a server works on for some ms. So the call is given its time, and what the kernel says decides.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::bus::{late, refuses_to_freeze};
use super::cgroup::ControlGroup;
use super::{Systemd, SystemdError};

/// Thawing takes some ms; this long for the reply alone.
const REPLY: Duration = Duration::from_millis(300);
/// A thaw that systemd does not manage within this is done without it.
const DEADLINE: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Between two looks whether it is frozen, while a user's server stands half still.
const NOT_YET: Duration = Duration::from_millis(1);
/// Thaws whatever has a note (frozen.rs), with its own hands.
const THAW: &str = "t3pin-thaw.service";

/// What came of freezing.
#[derive(Debug)]
pub enum Freeze {
    /// Every process of the unit stands still.
    Still,
    /// Not every process stood still in time (one may wait for a slow disk); nothing is frozen any more.
    NotInTime,
    /// This unit cannot be frozen at all, here.
    Impossible(SystemdError),
}

impl Systemd {
    /// Freezes the unit's cgroup (cgroup v2 only) within `time`; half frozen is of no use to anybody, so that it is thawed
    /// again when that takes longer, or fails.
    pub async fn freeze(&self, unit: &str, group: &ControlGroup, time: Duration) -> Result<Freeze, SystemdError> {
        let what = format!("freezing {unit}");
        let until = Instant::now() + time;
        let failed = match timeout(time, self.manager::<_, ()>(&what, "FreezeUnit", &(unit,))).await {
            Ok(Ok(())) | Err(_) => {
                while !group.is_frozen() && Instant::now() < until {
                    sleep(NOT_YET).await;
                }
                if group.is_frozen() {
                    return Ok(Freeze::Still);
                }
                None
            }
            Ok(Err(error)) => Some(error),
        };
        self.thaw_group(unit, group).await?;
        match failed {
            None => Ok(Freeze::NotInTime),
            Some(error) if refuses_to_freeze(&error) => Ok(Freeze::Impossible(error)),
            Some(error) => Err(error),
        }
    }

    /// Thaws whatever control group the unit has now. A unit that is not frozen, or does not run, is fine.
    pub async fn thaw(&self, unit: &str) -> Result<(), SystemdError> {
        let group = self.unit(unit).await?.control_group;
        if group.is_empty() {
            return Ok(());
        }
        let what = format!("thawing {unit}");
        let group = ControlGroup::named(&group).map_err(|source| SystemdError::Kernel { what, source })?;
        self.thaw_group(unit, &group).await
    }

    /// Thaws it, whatever it takes: when systemd does not do it, it is done without systemd. A unit that is not frozen, or does
    /// not run, is fine.
    pub async fn thaw_group(&self, unit: &str, group: &ControlGroup) -> Result<(), SystemdError> {
        let what = format!("thawing {unit}");
        let until = Instant::now() + DEADLINE;
        loop {
            // Also when nothing is frozen: systemd may still believe it is, and would let nothing be frozen the next time.
            let answer = timeout(REPLY, self.manager::<_, ()>(&what, "ThawUnit", &(unit,))).await;
            if let Ok(Err(error)) = &answer {
                tracing::debug!(unit, "{error}");
            }
            if !group.is_held() {
                return Ok(());
            }
            if Instant::now() > until {
                break;
            }
            sleep(LOOK_AGAIN).await;
        }
        tracing::error!(unit, "systemd does not thaw {unit}; it is thawed without systemd");
        if let Err(source) = group.let_move() {
            // The agent's unit has control groups read-only; this one's has not.
            tracing::warn!(unit, "{source}; {THAW} is asked");
            let asked = self.activate(THAW, DEADLINE).await;
            asked.map_err(|_| SystemdError::Kernel { what: what.clone(), source })?;
        }
        while group.is_held() {
            if Instant::now() > until + DEADLINE {
                return Err(late(&what, DEADLINE));
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}
