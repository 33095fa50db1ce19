//! The pin file as last read. A bad file never changes what is enforced: the last good one stays in force and is remembered
//! across restarts; the repaired file is taken up at the next look, without a restart.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::{ConfigError, Pin, load_pin};
use crate::domain::UserName;
use crate::host::accounts;
use crate::journal::Journal;

/// The pin in force and the state of the file.
#[derive(Debug)]
pub struct Pins {
    path: PathBuf,
    now: Mutex<PinNow>,
}

/// What one look at the file gave.
#[derive(Debug, Clone, Default)]
pub struct PinNow {
    /// The pin in force: that of the file, or the last good one.
    pub good: Option<Pin>,
    /// What is wrong with the file as it is.
    pub error: Option<ConfigError>,
}

impl Pins {
    /// Starts from the last good pin that the journal remembers (JSON).
    pub fn new(path: PathBuf, remembered: Option<String>) -> Self {
        let good = remembered.and_then(|json| serde_json::from_str(&json).ok());
        Self { path, now: Mutex::new(PinNow { good, error: None }) }
    }

    /// The file.
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Looks at the file again. A new good pin is written to the journal before it is in force.
    pub fn look(&self, journal: &Journal) -> PinNow {
        let loaded = load_pin(&self.path, &user_exists);
        let mut now = self.lock();
        match loaded {
            Ok(pin) if now.good.as_ref() == Some(&pin) => {
                if now.error.take().is_some() {
                    tracing::info!(t3pin_version = %pin.version, "the pin file is good again: {}", pin.version);
                }
            }
            Ok(pin) => {
                let kept = serde_json::to_string(&pin).map_err(|e| e.to_string());
                if let Err(error) = kept.and_then(|json| journal.set_good_pin(&json).map_err(|e| e.to_string())) {
                    tracing::warn!("the pin could not be remembered for the next start: {error}");
                }
                tracing::info!(t3pin_version = %pin.version, "the pin file says {}", pin.version);
                *now = PinNow { good: Some(pin), error: None };
            }
            Err(error) => {
                if now.error.as_ref() != Some(&error) {
                    let kept =
                        now.good.as_ref().map_or("nothing is pinned".to_owned(), |pin| format!("{} stays pinned", pin.version));
                    tracing::error!("{error}; {kept} until the file is repaired");
                }
                now.error = Some(error);
            }
        }
        now.clone()
    }

    fn lock(&self) -> MutexGuard<'_, PinNow> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A user database that cannot be asked (a directory server that is down) does not make a pin file wrong.
fn user_exists(user: &UserName) -> bool {
    accounts::lookup(user).map_or(true, |account| account.is_some())
}
