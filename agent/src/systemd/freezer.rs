//! The cgroup freezer.
//!
//! systemd answers `FreezeUnit` when every process stands still. A `daemon-reload` in between (a package being installed
//! is enough) makes systemd 252 forget whom to answer, while the unit does get frozen: seen with a real one. So the call is
//! given a moment, and then the unit's `FreezerState` decides.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::bus::{is_systemd_error, late};
use super::{Systemd, SystemdError};

/// Freezing takes about 15 ms (T3-CONTRACT, "under a real systemd 252"); this long for the reply alone.
const REPLY: Duration = Duration::from_secs(1);
/// A process in an uninterruptible wait (a slow disk, a dead NFS server) cannot be frozen before it returns.
const DEADLINE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Systemd {
    /// Freezes the unit's cgroup (cgroup v2 only). Returns when every process of it stands still. When that cannot be had
    /// within 10 s the unit is thawed again and the answer is an error: half frozen is of no use to anybody.
    pub async fn freeze(&self, unit: &str) -> Result<(), SystemdError> {
        let frozen = self.move_freezer(&format!("freezing {unit}"), "FreezeUnit", unit, "frozen").await;
        if frozen.is_err()
            && let Err(error) = self.thaw(unit).await
        {
            tracing::error!(unit, %error, "a unit that could not be frozen could not be thawed either; check `systemctl thaw`");
        }
        frozen
    }

    /// Thaws it. A unit that is not frozen, or does not run, is fine.
    pub async fn thaw(&self, unit: &str) -> Result<(), SystemdError> {
        match self.move_freezer(&format!("thawing {unit}"), "ThawUnit", unit, "running").await {
            Err(error) if is_systemd_error(&error, "NoSuchUnit") || is_systemd_error(&error, "UnitInactive") => Ok(()),
            answer => answer,
        }
    }

    async fn move_freezer(&self, what: &str, method: &'static str, unit: &str, wanted: &str) -> Result<(), SystemdError> {
        let until = Instant::now() + DEADLINE;
        while Instant::now() < until {
            if let Ok(answer) = timeout(REPLY, self.manager(what, method, &(unit,))).await {
                return answer;
            }
            let look_until = Instant::now() + REPLY;
            while Instant::now() < look_until {
                if self.unit(unit).await?.freezer_state == wanted {
                    return Ok(());
                }
                sleep(LOOK_AGAIN).await;
            }
        }
        Err(late(what, DEADLINE))
    }
}
