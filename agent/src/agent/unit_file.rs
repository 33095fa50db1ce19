//! A host that has its own `t3-serve@.service` keeps it: a drop-in only changes what is started, and keeps a server from being
//! started while its data is in our hands.

use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::domain::UserName;

/// The unit file that the package brings.
const OURS: [&str; 2] = ["/usr/lib/systemd/system/t3-serve@.service", "/lib/systemd/system/t3-serve@.service"];
/// Name of the drop-in.
const DROP_IN: &str = "50-t3pin.conf";

/// Whether `fragment` is a unit file of the host's own.
pub fn is_foreign(fragment: &str) -> bool {
    !fragment.is_empty() && !OURS.contains(&fragment)
}

/// Whether one of a unit's drop-ins is the one that is written here.
pub fn is_adopted(drop_ins: &[String]) -> bool {
    drop_ins.iter().any(|path| Path::new(path).ends_with(DROP_IN))
}

/// Writes the drop-in for `user` if the unit comes from `fragment` and that is not ours. Returns whether anything was changed,
/// so that the unit files have to be reloaded.
pub fn adopt(user: &UserName, fragment: &str) -> io::Result<bool> {
    if !is_foreign(fragment) {
        return Ok(false);
    }
    let dir = Path::new("/etc/systemd/system").join(format!("{}.d", user.unit()));
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&dir)?;
    let path = dir.join(DROP_IN);
    let text = text();
    if std::fs::read_to_string(&path).is_ok_and(|there| there == text) {
        return Ok(false);
    }
    let half = dir.join(format!(".{DROP_IN}.new"));
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&half)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&half, &path)?;
    std::fs::File::open(&dir)?.sync_all()?;
    Ok(true)
}

fn text() -> String {
    "# Written by t3pin: the version that runs is the binding's, and never while its data is in t3pin's hands.\n\
     [Unit]\n\
     ConditionPathExists=!/var/lib/t3pin/holds/%i\n\
     [Service]\n\
     ExecStart=\n\
     ExecStart=/var/lib/t3pin/bindings/%i/bin/t3 serve --host ${T3_HOST} --port ${T3_PORT} --no-browser\n\
     Environment=T3_HOST=127.0.0.1\n\
     EnvironmentFile=-/etc/t3-serve/%i.env\n\
     SuccessExitStatus=130\n"
        .to_owned()
}
