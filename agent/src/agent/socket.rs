//! The listening socket: handed over by `t3pin.socket`, or bound by us when started by hand.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::net::UnixListener;

/// Where we listen when systemd has not handed over a socket.
const PATH: &str = "/run/t3pin/t3pin.sock";

/// The socket to serve. Callers are told apart by their credentials, so everybody may connect (0666).
pub fn listener() -> io::Result<UnixListener> {
    if let Some(listener) = listenfd::ListenFd::from_env().take_unix_listener(0)? {
        listener.set_nonblocking(true)?;
        // Workers are started by exec and must not inherit the control socket.
        rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::CLOEXEC)?;
        return UnixListener::from_std(listener);
    }
    let path = Path::new(PATH);
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("another agent answers on {PATH}")));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}
