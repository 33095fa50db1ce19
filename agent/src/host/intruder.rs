//! Somebody else on an instance's port: another user's process, or one of the user's own that is not the server. What answers there
//! says nothing about the server, and a restart of the server would only run into a port that is taken.

use std::fmt;
use std::fs;
use std::path::Path;

use super::Listeners;
use super::listeners::Listener;
use crate::domain::Instance;

/// Descriptors of one process that are looked at; a server has some hundred.
const MOST: usize = 65_536;

/// Who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intruder {
    uid: u32,
    /// Process id and name; of another user's process the uid is enough.
    process: Option<(u32, String)>,
}

impl fmt::Display for Intruder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((pid, name)) => write!(f, "{name} (pid {pid}) of uid {}, which is not of the server's unit", self.uid),
            None => write!(f, "a process of uid {}, which is not the server's", self.uid),
        }
    }
}

/// Who else than the server of `instance` listens where it does; `is_server` says whether a process is of its unit. Only what was seen
/// counts: a process of the user's own is named when it holds a socket that no process of the unit holds. Looks at every process of this
/// host; on a thread that may wait.
pub fn intruder(listeners: &Listeners, instance: &Instance, is_server: impl Fn(u32) -> bool) -> Option<Intruder> {
    let (on, uid) = (listeners.in_the_way(&instance.host, instance.port), instance.place.account.uid);
    if let Some(stranger) = on.iter().find(|listener| listener.uid != uid)
        && !on.iter().any(|listener| listener.uid == uid)
    {
        return Some(Intruder { uid: stranger.uid, process: None });
    }
    let holders: Vec<(u32, u64)> = processes().flat_map(|pid| held(pid, &on)).collect();
    let (servers, others): (Vec<_>, Vec<_>) = holders.into_iter().partition(|(pid, _)| is_server(*pid));
    let (pid, _) = others.into_iter().find(|(_, inode)| !servers.iter().any(|(_, held)| held == inode))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(Intruder { uid, process: Some((pid, name.trim().chars().filter(|c| !c.is_control()).collect())) })
}

/// All processes of this host.
fn processes() -> impl Iterator<Item = u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|process| process.file_name().to_str()?.parse().ok())
}

/// Which of the `sockets` a process holds. One that cannot be looked at, or has ended, holds none.
fn held(pid: u32, sockets: &[Listener]) -> Vec<(u32, u64)> {
    let Ok(descriptors) = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")) else { return Vec::new() };
    let links = descriptors.flatten().take(MOST).filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    let inodes = links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok());
    inodes.filter(|inode| sockets.iter().any(|socket| socket.inode == *inode)).map(|inode| (pid, inode)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::domain::{Account, Place};

    fn table(local: &TcpListener, uid: u32) -> Listeners {
        let (port, inode) = (local.local_addr().unwrap().port(), rustix::fs::fstat(local).unwrap().st_ino);
        let mut all = Listeners::default();
        all.take(&format!("heading\n 0: 0100007F:{port:04X} 00000000:0000 0A 0:0 00:0 0 {uid} 0 {inode} 1 0\n"));
        all
    }

    fn server(port: u16, uid: u32) -> Instance {
        let (user, home) = ("alice".parse().unwrap(), "/home/alice".into());
        let account = Account { user, uid, gid: uid, home, shell: "/bin/sh".into() };
        let host = "127.0.0.1".to_owned();
        Instance { place: Place::of(account), unit: "t3-serve@alice.service".to_owned(), host, port }
    }

    #[test]
    fn whoever_holds_the_port_and_is_not_of_the_unit_is_named_and_the_server_is_not() {
        let local = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = local.local_addr().unwrap().port();
        let all = table(&local, 1001);
        let own = std::process::id();
        assert_eq!(intruder(&all, &server(port, 1001), |pid| pid == own), None, "the server itself");
        let found = intruder(&all, &server(port, 1001), |_| false).unwrap();
        assert_eq!(found.process.as_ref().unwrap().0, own);
        assert!(found.to_string().contains(&format!("(pid {own}) of uid 1001, which is not of the server's unit")), "{found}");
        assert_eq!(intruder(&all, &server(port.wrapping_add(1), 1001), |_| false), None, "nobody listens there");
        let found = intruder(&all, &server(port, 1002), |_| false).unwrap();
        assert_eq!(found.to_string(), "a process of uid 1001, which is not the server's");
    }

    #[test]
    fn a_socket_that_nobody_can_be_seen_to_hold_is_nobody_elses() {
        let local = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, all) = (local.local_addr().unwrap().port(), table(&local, 1001));
        drop(local);
        assert_eq!(intruder(&all, &server(port, 1001), |_| false), None);
    }
}
