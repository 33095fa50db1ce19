//! A user's state at the moments when no server runs on it: what "byte for byte" means.
//!
//! A server changes its data as soon as it starts (the startup link), so the data before a bump can be compared with the data after a
//! rollback only where systemd stands between two servers. A drop-in for the user's unit hashes it there.

use super::Site;

/// Every file that belongs to the state, with owner and permissions, as one hash. What SQLite makes anew (-shm) is left out.
const HASH: &str = r#"#!/bin/bash
cd "/home/$2/.t3/userdata" || exit 0
all=()
for entry in state.sqlite state.sqlite-wal state.sqlite-journal secrets environment-id settings.json keybindings.json; do
    [ ! -e "$entry" ] || all+=("$entry")
done
hash=$(tar --create --sort=name --mtime=@0 --format=ustar "${all[@]}" | sha256sum | cut -c 1-64)
version=$(basename "$(readlink "/var/lib/t3pin/bindings/$2")")
echo "$1 $version $hash" >>"/root/states.$2"
"#;

/// What was seen of a user's state, oldest first: `stopped` or `starts`, the version that was or will be running, the hash.
pub type Moments = Vec<(String, String, String)>;

impl Site {
    /// From now on the user's state is hashed whenever their server has stopped or is about to start.
    #[track_caller]
    pub fn watch_state(&self, user: &str) {
        self.write("/root/hash-state", HASH);
        self.ok("chmod 755 /root/hash-state");
        let unit = format!("/etc/systemd/system/t3-serve@{user}.service.d/hash.conf");
        let hooks = format!("ExecStartPre=+/root/hash-state starts {user}\nExecStopPost=+/root/hash-state stopped {user}");
        self.write(&unit, &format!("[Service]\n{hooks}\n"));
        self.ok("systemctl daemon-reload");
    }

    /// What [`Site::watch_state`] has seen.
    #[track_caller]
    pub fn moments(&self, user: &str) -> Moments {
        let text = self.ok(&format!("cat /root/states.{user}"));
        let fields = text.lines().map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        fields.map(|fields| (fields[0].clone(), fields[1].clone(), fields[2].clone())).collect()
    }
}

/// The hashes of the state as the first stop of a server of `version` left it, and as the last start of one found it.
pub fn stopped_states(moments: &Moments, version: &str) -> (String, String) {
    let (mut stopped, mut starts) = (None, None);
    for (what, _, hash) in moments.iter().filter(|moment| moment.1 == version) {
        match what.as_str() {
            "stopped" => stopped = stopped.or(Some(hash.clone())),
            _ => starts = Some(hash.clone()),
        }
    }
    let seen = |hash: Option<String>| hash.unwrap_or_else(|| panic!("{version} was not both stopped and started: {moments:?}"));
    (seen(stopped), seen(starts))
}
