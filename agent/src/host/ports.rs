//! Ports for new instances.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

use super::env_file::EnvFiles;
use super::instances::port_from;

/// The ports that environment files name, whether their servers run or not. A file that cannot be read is an error: its port
/// could be given away a second time.
pub fn taken(env: &EnvFiles) -> io::Result<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    for user in env.users()? {
        let found = env.read(&user).map_err(io::Error::other)?;
        ports.extend(found.and_then(|env| env.port).as_deref().and_then(port_from));
    }
    Ok(ports)
}

/// The first port from `first` on that nobody has taken and nothing listens on right now.
pub fn free(first: u16, taken: &BTreeSet<u16>) -> Option<u16> {
    (first..=u16::MAX).find(|port| !taken.contains(port) && is_quiet(*port))
}

/// Whether nothing listens on `port`, on whatever address: then, and only then, all addresses can be bound.
pub fn is_quiet(port: u16) -> bool {
    let in_use = |bound: io::Result<TcpListener>| bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
    !in_use(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))) && !in_use(TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::super::env_file::tests::files;
    use super::*;

    #[test]
    fn ports_of_files_and_of_listeners_are_skipped() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let busy = listener.local_addr().unwrap().port();
        assert!(!is_quiet(busy));
        let first = busy.min(u16::MAX - 50);
        let found = free(first, &BTreeSet::from([busy + 1])).unwrap();
        assert!(found > busy + 1, "{found} was handed out");
    }

    #[test]
    fn when_everything_is_taken_there_is_none() {
        assert_eq!(free(u16::MAX, &BTreeSet::from([u16::MAX])), None);
    }

    #[test]
    fn ports_are_collected_from_all_files() {
        let (_dir, env) =
            files(&[("alice", "T3_PORT=3773"), ("bob", "T3_PORT=\"3774\""), ("carol", "X=1"), ("dora", "T3_PORT=x")]);
        assert_eq!(taken(&env).unwrap(), BTreeSet::from([3773, 3774]));
    }
}
