//! Whose server, where.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::UserName;

/// A user of the host, as the user database knows them (getpwnam(3)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The user's name.
    pub user: UserName,
    /// Numeric user id.
    pub uid: u32,
    /// Numeric primary group id.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell.
    pub shell: PathBuf,
}

/// A user's data as a place: the account and the base directory (`~USER/.t3`, T3-CONTRACT section 2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Whose data.
    pub account: Account,
    /// t3's base directory; what t3 keeps lies in `userdata/` below it.
    pub base_dir: PathBuf,
}

impl Place {
    /// The default place of a user's data: `.t3` below the home.
    pub fn of(account: Account) -> Self {
        let base_dir = account.home.join(".t3");
        Self { account, base_dir }
    }

    /// Where `state.sqlite` and its companions lie.
    pub fn userdata(&self) -> PathBuf {
        self.base_dir.join("userdata")
    }
}

/// One `t3-serve@USER.service` with its settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Whose, and where the data lies.
    pub place: Place,
    /// The unit, `t3-serve@USER.service`.
    pub unit: String,
    /// Address the server listens on (`T3_HOST`, default `127.0.0.1`).
    pub host: String,
    /// TCP port the server listens on (`T3_PORT` in `/etc/t3-serve/USER.env`).
    pub port: u16,
}

impl Instance {
    /// The user whose instance this is.
    pub fn user(&self) -> &UserName {
        &self.place.account.user
    }

    /// Where a probe from this host reaches the server, as `address:port`: a server that listens on every address is asked on
    /// loopback.
    pub fn probe_address(&self) -> String {
        let port = self.port;
        match self.host.parse() {
            Ok(IpAddr::V4(address)) if address.is_unspecified() => format!("{}:{port}", Ipv4Addr::LOCALHOST),
            Ok(IpAddr::V6(address)) if address.is_unspecified() => format!("[{}]:{port}", Ipv6Addr::LOCALHOST),
            Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
            _ => format!("{}:{port}", self.host),
        }
    }
}
