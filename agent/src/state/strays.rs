//! Servers on a user's database that are not the user's unit: whoever has the database open and serves. A backup or a shell of SQLite's has it open,
//! too, for a while; that is waited for, and this is not.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::StateError;
use super::holders::{Holder, holders};
use crate::domain::StrayServer;
use crate::worker::files::Dir;

/// Bytes that are read of a process's table of connections; a busy host has some thousand lines of 150.
const TABLE: u64 = 16 << 20;
/// Bytes that are read of a command line.
const COMMAND: u64 = 16 << 10;
/// State of a socket that listens (proc(5), `/proc/net/tcp`; `TCP_LISTEN`).
const LISTENS: &str = "0A";
/// Subcommands of t3's that serve (T3-CONTRACT section 1).
const SERVE: [&[u8]; 2] = [b"serve", b"start"];

/// Those that have the database in `dir` open and serve, as [`holders`] finds them.
pub fn servers(dir: &Dir, owner: u32, server: &str, ours: &[u32]) -> Result<Vec<StrayServer>, StateError> {
    let database = dir.path().join("state.sqlite");
    let serving = holders(dir, owner, server, ours)?.into_iter().filter(|holder| serves(holder.pid));
    Ok(serving.map(|Holder { pid, name }| StrayServer { pid, name, database: database.clone() }).collect())
}

/// Whether a process listens, or was started as a server that is about to (T3-CONTRACT section 7: the database is open first).
fn serves(pid: u32) -> bool {
    let process = format!("/proc/{pid}");
    let process = Path::new(&process);
    is_serve(&read(&process.join("cmdline"), COMMAND)) || listens(process)
}

/// `t3 serve`, in whatever way it was started.
fn is_serve(command: &[u8]) -> bool {
    let mut arguments = command.split(|byte| *byte == 0);
    let is_t3 = |argument: &[u8]| {
        argument.rsplit(|byte| *byte == b'/').next().is_some_and(|name| name == b"t3") || argument.ends_with(b"/t3/dist/bin.mjs")
    };
    arguments.any(is_t3) && arguments.any(|argument| SERVE.contains(&argument))
}

/// Whether one of its sockets listens for TCP.
fn listens(process: &Path) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    let sockets: Vec<String> = descriptors
        .flatten()
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok()?.into_os_string().into_string().ok())
        .filter_map(|target| Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    if sockets.is_empty() {
        return false;
    }
    // As the process's own network namespace has them.
    ["net/tcp", "net/tcp6"].iter().any(|table| {
        let table = read(&process.join(table), TABLE);
        String::from_utf8_lossy(&table).lines().any(|line| {
            let mut columns = line.split_ascii_whitespace().skip(3);
            columns.next() == Some(LISTENS) && columns.nth(5).is_some_and(|inode| sockets.iter().any(|socket| socket == inode))
        })
    })
}

/// At most `most` bytes; nothing when the process is gone.
fn read(path: &Path, most: u64) -> Vec<u8> {
    let mut text = Vec::new();
    if let Ok(file) = File::open(path) {
        file.take(most).read_to_end(&mut text).ok();
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn only_who_listens_serves() {
        let own = Path::new("/proc/self");
        // Others listen in threads of this very process when tests share it; nextest gives each its own.
        let before = listens(own);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(listens(own));
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        drop(listener);
        assert_eq!(listens(own), before, "connections alone are none");
        drop((client, accepted));
        let other = TcpListener::bind("[::1]:0");
        assert!(other.is_err() || listens(own));
    }

    #[test]
    fn a_server_that_does_not_listen_yet_is_known_by_how_it_was_started() {
        let is = |words: &[&str]| is_serve(words.join("\0").as_bytes());
        assert!(is(&["/opt/v/bin/t3", "serve", "--port", "3773", ""]));
        assert!(is(&["node", "/opt/v/bin/t3", "--log-level", "info", "serve"]));
        assert!(is(&["/usr/bin/node", "/home/a/.npm/_npx/1/node_modules/t3/dist/bin.mjs", "start"]));
        assert!(!is(&["node", "/opt/v/bin/t3", "auth", "pairing", "list"]));
        assert!(!is(&["sqlite3", "/home/a/.t3/userdata/state.sqlite"]) && !is(&["serve", "t3"]) && !is(&[]));
    }
}
