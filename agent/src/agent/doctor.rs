//! `t3pin doctor`: is everything there that the next bump will need? Only looks; what is found is told with what to do about it.
//!
//! What the status tells of bumps is not told again: this is about the host, before anything has gone wrong.

use std::path::Path;
use std::time::Duration;

use rustix::fs::{Access, access, statvfs};

use super::survey::unloadable;
use super::{Agent, VAR, guarantee};
use crate::api::types::{DoctorReport, Finding, Health};
use crate::domain::{Activity, UserName};
use crate::host::instances;

/// Units without which something is not done unasked, and what that is.
const UNITS: [(&str, &str); 2] = [
    ("t3pin-workers.socket", "nothing can be done at users' files"),
    ("t3pin-enforce.timer", "the pin is only enforced when somebody orders it"),
];
/// What node-gyp needs to build node-pty (T3-CONTRACT section 0): any one of each line.
const COMPILER: [&[&str]; 3] = [&["python3", "python"], &["make", "gmake"], &["g++", "c++", "clang++"]];
/// Where they are looked for, as an install does.
const PATH: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];
/// A look at whether somebody works may take this long.
const LOOK: Duration = Duration::from_secs(5);
/// Room for one more version and what its install needs meanwhile, in bytes (T3-CONTRACT section 9: 609 MB, 15k files).
const ROOM: u64 = 2 << 30;

impl Agent {
    /// Looks at everything.
    pub async fn doctor(&self) -> DoctorReport {
        let mut findings = vec![self.files(), self.programs(), compiler(), room(Path::new(VAR))];
        for (unit, without) in UNITS {
            findings.push(match self.systemd.active_state(unit).await {
                Ok(state) if state == "active" => ok(unit, "is active"),
                Ok(state) => {
                    let what = format!("is {state}, so that {without}");
                    bad(unit, Health::Problem, what, format!("systemctl enable --now {unit}"))
                }
                Err(error) => bad(unit, Health::Warning, error.to_string(), "ask again".to_owned()),
            });
        }
        if let Ok(Some(freeze)) = self.journal.freeze() {
            let why = freeze.reason.unwrap_or_else(|| "no reason given".to_owned());
            findings.push(bad("freeze", Health::Warning, format!("versions are not changed: {why}"), "t3pin thaw".to_owned()));
        }
        for quarantine in self.journal.quarantine().unwrap_or_default() {
            let (version, what) = (&quarantine.version, format!("{} is quarantined: {}", quarantine.version, quarantine.reason));
            findings.push(bad(
                "quarantine",
                Health::Warning,
                what,
                format!("t3pin versions retry {version} USER, or pin another"),
            ));
        }
        findings.extend(self.host_drift().into_iter().map(|drift| {
            bad(&drift.kind, Health::Warning, drift.what, "see above; nothing is done about it unasked".to_owned())
        }));
        for user in self.users().await {
            findings.push(self.of_user(&user).await);
        }
        DoctorReport { findings }
    }

    /// The operator's own files.
    fn files(&self) -> Finding {
        let (pin, name) = (self.pins.look(&self.journal), "configuration");
        let settings = self.settings.read().unwrap_or_else(std::sync::PoisonError::into_inner).error.clone();
        let wrong = pin.error.map(|error| error.to_string()).or(settings.map(|error| error.to_string()));
        match (wrong, pin.good) {
            (Some(wrong), _) => bad(name, Health::Problem, wrong, "repair the file; until then nothing is enforced".to_owned()),
            (None, None) => {
                bad(name, Health::Warning, "nothing is pinned".to_owned(), format!("write {}", self.pins.path().display()))
            }
            (None, Some(pin)) => ok(name, &format!("is good; {} is pinned", pin.version)),
        }
    }

    /// Node and npm, as the settings name them.
    fn programs(&self) -> Finding {
        let settings = self.settings();
        let missing: Vec<String> = [&settings.node, &settings.npm]
            .into_iter()
            .filter(|path| access(path.as_path(), Access::EXEC_OK).is_err())
            .map(|path| path.display().to_string())
            .collect();
        if missing.is_empty() {
            return ok("node and npm", "are there; each version's install looks whether they are new enough for it");
        }
        let todo = "install them, or name them under [store] (node, npm) in /etc/t3pin/agent.toml".to_owned();
        bad("node and npm", Health::Problem, format!("{} cannot be run", missing.join(", ")), todo)
    }

    /// One instance: what would keep its bump from being done, or make it less sure.
    async fn of_user(&self, user: &UserName) -> Finding {
        let name = user.to_string();
        let instance = match instances::of(&self.env, user) {
            Ok(instance) => instance,
            Err(error) => return bad(&name, Health::Problem, error.to_string(), format!("t3pin enroll {user}, or unenroll")),
        };
        match self.store.binding(user) {
            Ok(Some(_)) => {}
            Ok(None) => return bad(&name, Health::Warning, "is not held by t3pin".to_owned(), format!("t3pin enroll {user}")),
            Err(error) => return bad(&name, Health::Problem, error.to_string(), "see journalctl -u t3pin".to_owned()),
        }
        let unit = match self.systemd.unit(&instance.unit).await {
            Ok(unit) => unit,
            Err(error) => return bad(&name, Health::Warning, error.to_string(), "ask again".to_owned()),
        };
        if let Some(why) = unloadable(&unit) {
            return bad(
                &name,
                Health::Problem,
                format!("{} {why}", instance.unit),
                format!("systemctl status {}", instance.unit),
            );
        }
        if !self.starts_binding(&instance).await {
            let what = format!("{} does not start what t3pin binds {user} to", instance.unit);
            return bad(&name, Health::Problem, what, format!("t3pin enroll {user}"));
        }
        match self.rivals(&instance.place, &unit.control_group).await {
            Ok(Some(rivals)) => {
                return bad(
                    &name,
                    Health::Problem,
                    rivals.to_string(),
                    format!("end the other manager, or t3pin unenroll {user}"),
                );
            }
            Ok(None) => {}
            Err(why) => {
                return bad(
                    &name,
                    Health::Warning,
                    format!("the data cannot be looked at: {why}"),
                    format!("t3pin explain {user}"),
                );
            }
        }
        if let Err(error) = self.vault.preflight(&instance.place).await {
            return bad(&name, Health::Problem, error.to_string(), "put that right; the next bump would be refused".to_owned());
        }
        if let Activity::Unknown { why } = self.activity(&instance.place, &unit.control_group, LOOK).await {
            let what = format!("whether somebody works there cannot be told, and a bump would wait until it can: {why}");
            return bad(&name, Health::Warning, what, format!("t3pin explain {user}"));
        }
        match guarantee::weaker(&unit) {
            Some(why) => {
                let todo = "boot with systemd.unified_cgroup_hierarchy=1, or accept the milliseconds".to_owned();
                bad(&name, Health::Warning, format!("a hand-over is less sure than it should be: {why}"), todo)
            }
            None => ok(&name, "is ready for a bump"),
        }
    }
}

fn compiler() -> Finding {
    let there = |name: &str| PATH.iter().any(|dir| access(Path::new(dir).join(name), Access::EXEC_OK).is_ok());
    let missing: Vec<&str> = COMPILER
        .iter()
        .filter(|names| !names.iter().any(|name| there(name)))
        .filter_map(|names| names.first().copied())
        .collect();
    if missing.is_empty() {
        return ok("compiler", "is there: node-pty has to be built on every install");
    }
    let what = format!("{} not found: node-pty cannot be built, so that no version can be installed", missing.join(", "));
    bad("compiler", Health::Problem, what, "apt install python3 make g++ (dnf install python3 make gcc-c++)".to_owned())
}

fn room(at: &Path) -> Finding {
    let at_path = at.display();
    match statvfs(at) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let what = format!("{} MB are free at {at_path}", free / 1_000_000);
            if free >= ROOM {
                return ok("room", &what);
            }
            let todo = "make room, or t3pin versions remove V: a version takes some 600 MB, and its install some more".to_owned();
            bad("room", Health::Warning, what, todo)
        }
        Err(error) => {
            bad("room", Health::Problem, format!("{at_path} cannot be looked at: {error}"), "see that it is mounted".to_owned())
        }
    }
}

fn ok(check: &str, what: &str) -> Finding {
    Finding { check: check.to_owned(), health: Health::Ok, what: what.to_owned(), todo: None }
}

fn bad(check: &str, health: Health, what: String, todo: String) -> Finding {
    Finding { check: check.to_owned(), health, what, todo: Some(todo) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_not_there_or_has_no_room_is_told_with_what_to_do() {
        assert_eq!(room(Path::new("/nowhere/at/all")).health, Health::Problem);
        // procfs has no room at all.
        let full = room(Path::new("/proc"));
        assert!(full.health == Health::Warning && full.todo.is_some(), "{full:?}");
    }
}
