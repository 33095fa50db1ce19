//! The broker: a process of its own that starts workers, so that the agent need not be able to become a user.
//!
//! The agent has every right over files and no network, and no right to change its ids (units/t3pin.service). The broker
//! (units/t3pin-workers.service) may change its ids and has the network, and no rights over files. It takes one [`Order`] per
//! connection, with the two pipes of the worker beside it (SCM_RIGHTS, unix(7)), and starts `t3pin worker` as that user. The
//! connection is the worker's life: when the agent closes it, or dies, the worker and all that it started is killed. The
//! broker says the worker's process id, in a line, and when it has ended, how, and closes.

pub(super) mod client;
pub mod serve;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::protocol::PROTOCOL;
use crate::domain::Account;

/// The environment variable by which the units tell where the broker listens. Without it workers are started directly.
pub(super) const SOCKET: &str = "T3PIN_WORKERS";

/// Bytes of an order, and of the sentence at the end, that are read at most.
const MOST: usize = 16 << 10;

/// As whom a worker is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// [`PROTOCOL`] of who asks.
    protocol: u32,
    user: String,
    uid: u32,
    gid: u32,
    home: PathBuf,
    shell: PathBuf,
}

impl Order {
    fn of(account: &Account) -> Self {
        Self {
            protocol: PROTOCOL,
            user: account.user.to_string(),
            uid: account.uid,
            gid: account.gid,
            home: account.home.clone(),
            shell: account.shell.clone(),
        }
    }

    /// The account, or in a sentence why there is no worker for it.
    fn account(self) -> Result<Account, String> {
        if self.protocol != PROTOCOL {
            return Err(other_protocol(self.protocol));
        }
        if self.uid == 0 || self.gid == 0 {
            return Err("no worker is started as root: it works as the user whose data it touches".to_owned());
        }
        let user = self.user.parse().map_err(|error| format!("\"{}\" is no user: {error}", self.user))?;
        Ok(Account { user, uid: self.uid, gid: self.gid, home: self.home, shell: self.shell })
    }
}

/// Reads an order strictly; what speaks another protocol is told apart from nonsense.
fn read_order(bytes: &[u8]) -> Result<Account, String> {
    super::protocol::protocol_of(bytes)?;
    let order: Order = serde_json::from_slice(bytes).map_err(|error| format!("the order is not one: {error}"))?;
    order.account()
}

/// See `crate::fuzzing`: nobody is root.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz_order(bytes: &[u8]) {
    if let Ok(account) = read_order(bytes) {
        assert!(account.uid != 0 && account.gid != 0);
    }
}

/// What an operator reads when two versions of t3pin meet.
pub(super) fn other_protocol(theirs: u32) -> String {
    format!(
        "it speaks protocol {theirs} and this is protocol {PROTOCOL}: t3pin was upgraded in between; nothing was done, and it \
         works again once the agent has been restarted (systemctl restart t3pin.service)"
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn order() -> Order {
        Order {
            protocol: PROTOCOL,
            user: "alice".to_owned(),
            uid: 1000,
            gid: 1000,
            home: "/home/alice".into(),
            shell: "/bin/sh".into(),
        }
    }

    fn read(order: &Order) -> Result<Account, String> {
        read_order(&serde_json::to_vec(order).unwrap())
    }

    #[test]
    fn an_order_names_a_user_that_is_not_root() {
        assert_eq!(Order::of(&read(&order()).unwrap()), order());
        for (uid, gid) in [(0, 1000), (1000, 0)] {
            assert!(read(&Order { uid, gid, ..order() }).unwrap_err().contains("as root"));
        }
        assert!(read(&Order { user: "../x".to_owned(), ..order() }).is_err());
    }

    #[test]
    fn another_protocol_is_a_clear_error() {
        let said = read(&Order { protocol: PROTOCOL + 1, ..order() }).unwrap_err();
        assert!(said.contains("was upgraded"), "{said}");
        assert!(read_order(b"{}").is_err() && read_order(b"").is_err());
    }
}
