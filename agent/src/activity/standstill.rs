//! What a server that was frozen is in the middle of, and how its end begins before it moves again.
//!
//! The database tells what was written down. A request that was just being worked on is not there yet, and one that waits in a
//! socket would still be read before the signal that ends the server: an event loop gives its ears to the network first (node's:
//! libuv, "signal watchers run last"; and the signal may be taken by another of its threads, later). So a server is only ended where
//! it waits for events and nothing waits for it; the signal is pending, its clients' connections are closed and no new one reaches it
//! before it moves again. What a client says in that moment is refused, as by any server that restarts, and never begun.
//!
//! Everything here is asked of a process descriptor, and only while its unit stands still.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SocketAddrAny, SocketFlags, accept_with, connect_unspec, getpeername, getsockname};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open, pidfd_send_signal};
use socket2::{SockFilter, SockRef};

/// Descriptors of a server that are looked at; t3 has some dozens, and a limit of its unit's.
const MOST: usize = 65_536;

/// Connections that were made and not taken yet, beyond which nobody looks; a listener's backlog is far shorter.
const BACKLOG: usize = 65_536;

/// Classic BPF, `BPF_RET | BPF_K`: so many bytes of a packet are let through (Linux, "networking/filter").
const RETURN: u16 = 0x06;

/// Calls in which a process waits for events (proc(5), `syscall`).
const EVENTS: [libc::c_long; 4] = [libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2, libc::SYS_ppoll, libc::SYS_pselect6];
/// Calls in which a process that serves nobody itself, such as a shell around a server, does nothing: waits for a child, for time, for
/// another thread. A server is in the middle of something there: it waits for a lock, for the end of a collection of garbage, for a
/// database.
const IDLES: [libc::c_long; 6] =
    [libc::SYS_futex, libc::SYS_wait4, libc::SYS_waitid, libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_rt_sigsuspend];
/// Of those for events, the ones with a time in ms as fourth argument: 0 only asks, with work to do next.
const EVENT_LOOP: [libc::c_long; 1] = [libc::SYS_epoll_pwait];
/// The older calls, which not every processor has.
#[cfg(target_arch = "x86_64")]
const OLD_EVENTS: [libc::c_long; 3] = [libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_select];
#[cfg(target_arch = "x86_64")]
const OLD_IDLES: [libc::c_long; 1] = [libc::SYS_pause];
#[cfg(not(target_arch = "x86_64"))]
const OLD_EVENTS: [libc::c_long; 0] = [];
#[cfg(not(target_arch = "x86_64"))]
const OLD_IDLES: [libc::c_long; 0] = [];

/// Why the connections of a server's clients cannot be looked at and closed on this host (a container's filter of system calls may
/// forbid it); `None` when they can.
pub fn deaf() -> Option<&'static str> {
    let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
    let borrowed = own.and_then(|own| pidfd_getfd(&own, own.as_raw_fd(), PidfdGetfdFlags::empty()));
    borrowed.is_err().then_some("its clients' connections cannot be looked at on this host (pidfd_getfd is not allowed)")
}

/// A server's main process.
#[derive(Debug)]
pub struct Server {
    process: OwnedFd,
    pid: i32,
    port: u16,
}

/// A frozen server that waits, for which nothing waits.
#[derive(Debug)]
pub struct AtRest<'a> {
    server: &'a Server,
    /// Its clients' connections.
    connections: Vec<OwnedFd>,
    /// Where it takes new ones.
    listeners: Vec<OwnedFd>,
}

impl Server {
    /// The process `pid`, which listens on `port`.
    pub fn of(pid: u32, port: u16) -> io::Result<Self> {
        let pid = i32::try_from(pid).map_err(io::Error::other)?;
        let name = Pid::from_raw(pid).ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "there is no main process"))?;
        Ok(Self { process: pidfd_open(name, PidfdFlags::empty())?, pid, port })
    }

    /// Whether it, frozen, is in the middle of something; if so, of what. What the kernel does not let us see (a hardened host
    /// may refuse `/proc/PID/syscall` or pidfd_getfd(2) even to root) counts as nothing.
    pub fn at_rest(&self) -> Result<AtRest<'_>, String> {
        let sockets = self.sockets();
        if let Ok(call) = fs::read_to_string(format!("/proc/{}/syscall", self.pid))
            && !waits(&call, !sockets.is_empty())
        {
            return Err("the server was in the middle of something".to_owned());
        }
        let (mut connections, mut listeners) = (Vec::new(), Vec::new());
        for socket in sockets {
            let mut asked = [PollFd::new(&socket, PollFlags::IN)];
            if poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0) {
                return Err("a request had just come in".to_owned());
            }
            if getpeername(&socket).is_ok() {
                connections.push(socket);
            } else {
                listeners.push(socket);
            }
        }
        Ok(AtRest { server: self, connections, listeners })
    }

    /// Our own names for its sockets on its port (pidfd_getfd(2)).
    fn sockets(&self) -> Vec<OwnedFd> {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{}/fd", self.pid)) else { return Vec::new() };
        let mut sockets = Vec::new();
        for descriptor in descriptors.flatten().take(MOST) {
            let is_socket =
                fs::read_link(descriptor.path()).is_ok_and(|link| link.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
            let Some(number) = descriptor.file_name().to_str().and_then(|name| name.parse().ok()).filter(|_| is_socket) else {
                continue;
            };
            let Ok(socket) = pidfd_getfd(&self.process, number, PidfdGetfdFlags::empty()) else { continue };
            if getsockname(&socket).is_ok_and(|address| port_of(&address) == Some(self.port)) {
                sockets.push(socket);
            }
        }
        sockets
    }
}

impl AtRest<'_> {
    /// SIGTERM, which it gets as soon as it moves again; and no client of its is heard any more, neither of those that it has nor a
    /// new one.
    ///
    /// The signal comes first: a listener that nobody reaches is for a server that ends, whatever becomes of this process.
    pub fn end(self) -> io::Result<()> {
        pidfd_send_signal(&self.server.process, Signal::TERM)?;
        for listener in &self.listeners {
            if let Err(error) = close_ears(listener) {
                tracing::debug!(fd = listener.as_raw_fd(), "pid {} may be reached until it ends: {error}", self.server.pid);
            }
        }
        for connection in self.connections {
            // For the server that is a client that has gone; the client sees a reset (connect(2), AF_UNSPEC).
            if let Err(error) = connect_unspec(&connection) {
                tracing::debug!(fd = connection.as_raw_fd(), "a connection of pid {} stays open: {error}", self.server.pid);
            }
        }
        Ok(())
    }
}

/// Nobody gets through to a listener any more (socket(7), SO_ATTACH_FILTER: a packet of which no byte is let through is dropped): a client
/// tries again by itself, a second later. Who got through while this was decided is sent away.
fn close_ears(listener: &OwnedFd) -> io::Result<()> {
    let drop_all = SockFilter::new(RETURN, 0, 0, 0);
    SockRef::from(listener).attach_filter(&[drop_all])?;
    for _ in 0..BACKLOG {
        let mut waiting = [PollFd::new(listener, PollFlags::IN)];
        // Not `accept` at once: whether it would wait is the server's to say.
        if !poll(&mut waiting, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0) {
            break;
        }
        let client = accept_with(listener, SocketFlags::CLOEXEC)?;
        // A reset, so that nobody waits for an answer (socket(7), SO_LINGER).
        SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
    }
    Ok(())
}

/// Whether a line of `/proc/PID/syscall` shows a process that waits: the call's number and its arguments, in hexadecimal. A
/// process that was caught outside of every call shows -1. Of one that `serves` only waiting for events is that.
fn waits(line: &str, serves: bool) -> bool {
    let mut words = line.split_ascii_whitespace();
    let Some(call) = words.next().and_then(|word| word.parse::<libc::c_long>().ok()) else { return false };
    let time = words.nth(3);
    let asks_only = (EVENT_LOOP.contains(&call) || OLD_EVENTS.first() == Some(&call)) && time == Some("0x0");
    let waits_for_events = (EVENTS.contains(&call) || OLD_EVENTS.contains(&call)) && !asks_only;
    waits_for_events || (!serves && (IDLES.contains(&call) || OLD_IDLES.contains(&call)))
}

fn port_of(address: &SocketAddrAny) -> Option<u16> {
    std::net::SocketAddr::try_from(address.clone()).ok().map(|address| address.port())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use proptest::prelude::*;

    use super::*;

    /// This process as a server: only its sockets can be looked at that way.
    fn server(listener: &TcpListener) -> Server {
        Server::of(std::process::id(), listener.local_addr().unwrap().port()).unwrap()
    }

    /// Whether something waits in one of its sockets.
    fn input(server: &Server) -> bool {
        let ready = |socket: &OwnedFd| {
            poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
        };
        server.sockets().iter().any(ready)
    }

    #[test]
    fn a_process_that_waits_for_events_rests_and_one_that_works_does_not() {
        let line = |call: libc::c_long, time: &str| format!("{call} 0xd 0x7ffe 0x400 {time} 0x0 0x8 0x7ffd 0x7f\n");
        assert!(waits(&line(libc::SYS_epoll_pwait, "0xffffffffffffffff"), true));
        assert!(waits(&line(libc::SYS_epoll_pwait, "0x3e8"), true));
        assert!(!waits(&line(libc::SYS_epoll_pwait, "0x0"), true), "only asks whether there is more to do");
        assert!(waits(&line(libc::SYS_wait4, "0x0"), false), "a shell around a server");
        for lock in [libc::SYS_futex, libc::SYS_clock_nanosleep] {
            assert!(!waits(&line(lock, "0x0"), true), "a server that waits for a lock, or for its database");
        }
        assert!(!waits(&line(libc::SYS_pwrite64, "0x0"), false));
        for nothing in ["running\n", "-1 0x7ffe 0x7f\n", "", "x"] {
            assert!(!waits(nothing, false), "{nothing:?}");
        }
    }

    #[test]
    fn what_waits_in_a_socket_is_seen_and_other_ports_do_not_count() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = server(&listener);
        let _elsewhere = TcpStream::connect(other.local_addr().unwrap()).unwrap();
        assert_eq!((here.sockets().len(), input(&here)), (1, false));
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(input(&here), "a connection that was not taken yet");
        let (mut accepted, _) = listener.accept().unwrap();
        assert!(!input(&here));
        client.write_all(b"x").unwrap();
        assert!(input(&here));
        accepted.read_exact(&mut [0]).unwrap();
        assert!(!input(&here));
    }

    #[test]
    fn a_connection_that_is_cut_takes_nothing_in_any_more() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = server(&listener);
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        let connections = here.sockets().into_iter().filter(|socket| getpeername(socket).is_ok()).collect::<Vec<_>>();
        assert_eq!(connections.len(), 1);
        client.write_all(b"too late").unwrap();
        connect_unspec(&connections[0]).unwrap();
        let mut said = Vec::new();
        assert!(accepted.read_to_end(&mut said).is_err() || said.is_empty(), "{said:?}");
        assert!(client.read(&mut [0]).is_err(), "the client learns that it was not heard");
        assert!(TcpStream::connect(listener.local_addr().unwrap()).is_ok(), "the listener is left alone");
    }

    #[test]
    fn nobody_gets_through_to_a_server_that_ends_not_even_who_was_at_the_door() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut at_the_door = TcpStream::connect(address).unwrap();
        at_the_door.write_all(b"a request").unwrap();
        let here = server(&listener);
        let ears = here.sockets().into_iter().find(|socket| getpeername(socket).is_err()).unwrap();
        close_ears(&ears).unwrap();
        assert!(at_the_door.read(&mut [0]).is_err(), "the client learns that it was not heard");
        assert!(TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err());
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn this_host_hears_its_clients() {
        assert_eq!(deaf(), None);
    }

    #[test]
    fn what_is_sent_to_a_server_at_rest_ends_it() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let server = Server::of(child.id(), 1).unwrap();
        let rests = || fs::read_to_string(format!("/proc/{}/syscall", child.id())).is_ok_and(|call| waits(&call, false));
        while !rests() && rustix::process::geteuid().is_root() {
            std::thread::yield_now();
        }
        server.at_rest().unwrap().end().unwrap();
        assert!(!child.wait().unwrap().success());
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in any::<String>()) {
            let _ = waits(&line, true);
        }
    }
}
