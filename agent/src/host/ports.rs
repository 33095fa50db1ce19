//! Ports for new instances.
//!
//! The agent has a network of its own with nothing in it (units/t3pin.service); who listens on the host's is told by the
//! kernel's list of PID 1's.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

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

/// The network that PID 1 is in (proc(5), /proc/pid/net).
const HOST: &str = "/proc/1/net";

/// The first port from `first` on that nobody has taken and nothing listens on right now. An error when that cannot be told.
pub fn free(first: u16, taken: &BTreeSet<u16>) -> io::Result<Option<u16>> {
    let listening = listening(Path::new(HOST))?;
    Ok((first..=u16::MAX).find(|port| !taken.contains(port) && !listening.contains(port)))
}

/// Whether nothing listens on `port`, on whatever address. An error when that cannot be told.
pub fn is_quiet(port: u16) -> io::Result<bool> {
    Ok(!listening(Path::new(HOST))?.contains(&port))
}

/// All ports that something listens on.
fn listening(net: &Path) -> io::Result<BTreeSet<u16>> {
    let mut ports = listeners(&std::fs::read_to_string(net.join("tcp"))?);
    match std::fs::read_to_string(net.join("tcp6")) {
        Ok(text) => ports.extend(listeners(&text)),
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(ports)
}

/// The local ports of those lines of /proc/net/tcp that are in the state LISTEN (0A; kernel, "proc_net_tcp").
pub fn listeners(text: &str) -> BTreeSet<u16> {
    let port = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (local, state) = (words.next()?, words.nth(1)?);
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        (state == "0A").then_some(port)
    };
    text.lines().filter_map(port).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

    use super::super::env_file::tests::files;
    use super::*;

    #[test]
    fn listeners_are_found_on_every_address_and_connections_are_none() {
        let four = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = four.local_addr().unwrap().port();
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let found = listening(Path::new("/proc/self/net")).unwrap();
        assert!(found.contains(&port) && !found.contains(&client.local_addr().unwrap().port()));
        if let Ok(six) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
            let port = six.local_addr().unwrap().port();
            assert!(listening(Path::new("/proc/self/net")).unwrap().contains(&port));
        }
        assert!(listening(Path::new("/nowhere")).is_err(), "not being able to tell is not quiet");
    }

    #[test]
    fn what_is_no_line_of_the_kernels_is_no_listener() {
        assert_eq!(
            listeners("  sl  local_address rem_address   st\n   0: 0100007F:0EBD 00000000:0000 0A 00000000:00000000\n"),
            [3773].into()
        );
        for text in ["", "x", "0: 0EBD 0 0A", "0: 00:FFFFF 0 0A", "0: 0100007F:0EBD 00000000:0000 01"] {
            assert_eq!(listeners(text), BTreeSet::new(), "{text}");
        }
    }

    #[test]
    fn when_everything_is_taken_there_is_none() {
        assert_eq!(free(u16::MAX, &BTreeSet::from([u16::MAX])).unwrap(), None);
    }

    #[test]
    fn ports_are_collected_from_all_files() {
        let (_dir, env) =
            files(&[("alice", "T3_PORT=3773"), ("bob", "T3_PORT=\"3774\""), ("carol", "X=1"), ("dora", "T3_PORT=x")]);
        assert_eq!(taken(&env).unwrap(), BTreeSet::from([3773, 3774]));
    }
}
