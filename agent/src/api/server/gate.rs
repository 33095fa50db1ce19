//! Counting connections, so that no user takes them all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::limits::Limits;

/// Lets connections in while there is room, and knows when they have gone.
#[derive(Debug, Clone)]
pub struct Gate {
    limits: Limits,
    open: Arc<Mutex<HashMap<u32, usize>>>,
}

/// One connection that was let in; makes room again when dropped.
#[derive(Debug)]
pub struct Admission {
    uid: u32,
    open: Arc<Mutex<HashMap<u32, usize>>>,
}

impl Gate {
    /// A gate with nobody inside.
    pub fn new(limits: Limits) -> Self {
        Self { limits, open: Arc::default() }
    }

    /// Lets a connection of `uid` in, or says in a sentence why not.
    pub fn admit(&self, uid: u32) -> Result<Admission, String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let own = open.get(&uid).copied().unwrap_or(0);
        if own >= self.limits.per_uid {
            return Err(format!("uid {uid} already has {own} connections open, the most one user may have; close some first"));
        }
        let others: usize = open.iter().filter(|(uid, _)| **uid != 0).map(|(_, count)| count).sum();
        if uid != 0 && others >= self.limits.connections {
            return Err(format!("{others} connections are open, the most the agent serves at a time; try again in a moment"));
        }
        *open.entry(uid).or_insert(0) += 1;
        Ok(Admission { uid, open: Arc::clone(&self.open) })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate::new(Limits { connections: 5, per_uid: 2, ..Limits::default() })
    }

    #[test]
    fn one_user_cannot_take_more_than_their_share() {
        let gate = gate();
        let first = gate.admit(1000).unwrap();
        let _second = gate.admit(1000).unwrap();
        assert!(gate.admit(1000).unwrap_err().contains("uid 1000 already has 2 connections"));
        assert!(gate.admit(1001).is_ok());
        drop(first);
        assert!(gate.admit(1000).is_ok());
    }

    #[test]
    fn a_full_house_still_lets_root_in() {
        let gate = gate();
        let _inside: Vec<_> = [1, 1, 2, 2, 3].iter().map(|uid| gate.admit(*uid).unwrap()).collect();
        assert!(gate.admit(4).unwrap_err().contains("5 connections are open"));
        let _root = (gate.admit(0).unwrap(), gate.admit(0).unwrap());
        assert!(gate.admit(0).is_err(), "root is held to its share too");
    }

    #[test]
    fn the_count_forgets_users_who_have_left() {
        let gate = gate();
        for uid in 0..1000 {
            drop(gate.admit(uid).unwrap());
        }
        assert!(gate.open.lock().unwrap().is_empty());
    }
}
