//! What an install or a rehearsal must not leave behind.

use super::Site;

impl Site {
    /// Nothing of an install or a rehearsal is left: units, processes, directories, copies.
    #[track_caller]
    pub fn nothing_is_left(&self, version: &str) {
        assert_eq!(self.sandboxes(), "", "{version}");
        assert_eq!(self.ok("ls -A /var/lib/t3pin/staging"), "", "{version}");
        let processes = self.sh(&format!("pgrep --full --list-full 'versions/{version}/|sleep 600'"));
        assert_eq!(processes.stdout, "", "{version}");
        assert_eq!(self.ok("find /home /tmp /var/tmp -name .t3pin"), "", "{version}: copies");
        assert_eq!(self.ok("ls -A /var/lib/t3pin/holds"), "", "{version}");
    }

    /// The units of installs and rehearsals that systemd knows, one a line.
    #[track_caller]
    pub fn sandboxes(&self) -> String {
        self.ok("systemctl list-units --all --plain --no-legend 't3pin-rehearse-*' 't3pin-install-*'")
    }
}
