//! Who listens on which TCP port of this host, from `net/tcp` and `net/tcp6` of PID 1 (proc(5)): one read for all instances, and
//! nothing is sent to anybody. Not of this process: the agent has a network of its own with nothing in it (units/t3pin.service).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// The host's network: the one that PID 1 is in.
const HOST: &str = "/proc/1/net";

/// `st` of a socket that listens (`TCP_LISTEN`, net/tcp_states.h).
const LISTEN: &str = "0A";

/// The listening sockets of this host's network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listeners(BTreeMap<u16, Vec<Listener>>);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub address: IpAddr,
    /// Whose socket it is.
    pub uid: u32,
    /// Its number, by which it is found in `/proc/PID/fd`.
    pub inode: u64,
    /// Connections that nobody has taken up yet: a server that is at work leaves none for long.
    pub backlog: u32,
}

impl Listeners {
    /// As it is right now.
    pub fn read() -> io::Result<Self> {
        Self::of(Path::new(HOST))
    }

    fn of(net: &Path) -> io::Result<Self> {
        let mut all = Self::default();
        all.take(&std::fs::read_to_string(net.join("tcp"))?);
        match std::fs::read_to_string(net.join("tcp6")) {
            Ok(text) => all.take(&text),
            // A host without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(all)
    }

    /// Those on `port`, on whatever address.
    pub fn on(&self, port: u16) -> &[Listener] {
        self.0.get(&port).map_or(&[], Vec::as_slice)
    }

    /// Those on `port` that leave no room for a server at the address `host`: what listens at another address of this host is in nobody's
    /// way.
    pub fn in_the_way(&self, host: &str, port: u16) -> Vec<Listener> {
        let host = host.parse::<IpAddr>().ok().map(|host| host.to_canonical());
        let overlaps = |listener: &&Listener| {
            let everywhere = |address: IpAddr| address.is_unspecified();
            host.is_none_or(|host| host == listener.address || everywhere(host) || everywhere(listener.address))
        };
        self.on(port).iter().filter(overlaps).copied().collect()
    }

    /// All ports that somebody listens on.
    pub fn ports(&self) -> BTreeSet<u16> {
        self.0.keys().copied().collect()
    }

    /// Adds what a table of the kernel's shows.
    pub(crate) fn take(&mut self, table: &str) {
        for (port, listener) in table.lines().skip(1).filter_map(listener) {
            self.0.entry(port).or_default().push(listener);
        }
    }
}

/// `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ...`; of a listening socket rx_queue is its backlog.
fn listener(line: &str) -> Option<(u16, Listener)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, _, state, queues) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    if state != LISTEN {
        return None;
    }
    let (address, port) = local.rsplit_once(':')?;
    let (_, backlog) = queues.split_once(':')?;
    let (uid, inode) = (fields.nth(2)?.parse().ok()?, fields.nth(1)?.parse().ok()?);
    Some((
        u16::from_str_radix(port, 16).ok()?,
        Listener { address: address_of(address)?, uid, inode, backlog: u32::from_str_radix(backlog, 16).ok()? },
    ))
}

/// An address as the tables have it: words of 32 bits in hexadecimal, each as this processor has it in memory.
fn address_of(hexadecimal: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hexadecimal.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match hexadecimal.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.as_flattened().try_into().ok()?;
            Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0EBD 00000000:0000 0A 00000000:00000003 00:00000000 00000000  1001        0 12 1 0 100 0 0 10 0
   1: 0100007F:0EBD 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000  1001        0 13 1 0 100 0 0 10 0
   2: nonsense
";

    #[test]
    fn only_listening_sockets_count_with_owner_and_backlog() {
        let mut all = Listeners::default();
        all.take(TABLE);
        let address = Ipv4Addr::LOCALHOST.into();
        assert_eq!(all.on(3773), [Listener { address, uid: 1001, inode: 12, backlog: 3 }]);
        assert!(all.on(3774).is_empty());
        assert_eq!(all.ports(), [3773].into());
    }

    #[test]
    fn only_what_overlaps_with_a_servers_address_is_in_its_way() {
        let mut all = Listeners::default();
        let row = |address: &str| format!("0: {address}:0EBD 00000000:0000 0A 0:0 00:0 0 1001 0 12 1 0");
        all.take(&format!("heading\n{}\n{}\n", row("0100007F"), row("0000000000000000FFFF00000200000A")));
        let at = |all: &Listeners, host: &str| {
            all.in_the_way(host, 3773).iter().map(|found| found.address.to_string()).collect::<Vec<_>>()
        };
        let addresses = |host: &str| at(&all, host);
        assert_eq!(addresses("127.0.0.1"), ["127.0.0.1"]);
        assert_eq!(addresses("10.0.0.2"), ["10.0.0.2"], "an IPv4 address of a socket for both");
        assert_eq!(addresses("0.0.0.0").len(), 2);
        assert_eq!((addresses("10.0.0.3").len(), addresses("a name").len()), (0, 2));
        all.take(&format!("heading\n{}\n", row(&"0".repeat(32))));
        assert_eq!(at(&all, "10.0.0.3"), ["::"]);
    }

    #[test]
    fn a_real_listener_is_seen_with_its_owner() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let uid = rustix::process::geteuid().as_raw();
        let (address, inode) = (Ipv4Addr::LOCALHOST.into(), rustix::fs::fstat(&listener).unwrap().st_ino);
        assert_eq!(Listeners::of(Path::new("/proc/self/net")).unwrap().on(port), [Listener { address, uid, inode, backlog: 0 }]);
        let _waiting = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert_eq!(Listeners::of(Path::new("/proc/self/net")).unwrap().on(port), [Listener { address, uid, inode, backlog: 1 }]);
    }

    #[test]
    fn not_being_able_to_tell_is_not_that_nobody_listens() {
        assert!(Listeners::of(Path::new("/nowhere")).is_err());
    }
}
