//! How many of something each user has, for as long as each lasts.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::domain::UserName;

/// The counts. Meant for a `static`: what is counted outlives whoever began it.
#[derive(Debug)]
pub struct Tally(Mutex<BTreeMap<UserName, usize>>);

/// One that is counted; no longer when dropped.
#[derive(Debug)]
pub struct Counted {
    tally: &'static Tally,
    user: UserName,
}

impl Tally {
    /// Nobody has any.
    pub const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Counts one more of `user`'s.
    pub fn count(&'static self, user: &UserName) -> Counted {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(user.clone()).or_default() += 1;
        Counted { tally: self, user: user.clone() }
    }

    /// Whether `user` has any.
    pub fn has(&self, user: &UserName) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(user)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut all = self.tally.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                all.remove(&self.user);
            }
        }
    }
}
