//! Signs that something else than t3pin manages a user's server. Two managers on one base directory break the database
//! (T3-CONTRACT, "More facts").

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Longer texts that a user has written are cut before they are shown.
const SHOWN: usize = 200;

/// T3's own background service (`t3 service install`), as far as it lies in its user's files. What a user's worker says: to be
/// shown, not to be trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnService {
    /// Units `t3code.service` of the user's own manager, but for masked ones.
    pub units: Vec<PathBuf>,
    /// `runtime/service-state.json` of its launcher.
    pub state: Option<LauncherState>,
}

/// What the launcher has written down of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LauncherState {
    /// The file.
    pub path: PathBuf,
    /// The version that it runs; the reason in its place when the file cannot be made sense of.
    pub active_version: Result<String, String>,
    /// An update that is under way: to which version.
    pub updating_to: Option<String>,
}

/// A process that serves on a user's database and does not belong to the user's unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrayServer {
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// The database that it has open.
    pub database: PathBuf,
}

/// All signs of other managers of one user's server; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rivals {
    /// In the user's files.
    pub service: OwnService,
    /// A process of `t3code.service` in the user's own manager.
    pub runs: Option<u32>,
    /// Servers outside of the user's unit.
    pub servers: Vec<StrayServer>,
}

impl Rivals {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.service == OwnService::default() && self.runs.is_none() && self.servers.is_empty()
    }
}

/// What was found, and how `Self` is resolved: one text for status, plan and whoever enrolls.
impl fmt::Display for Rivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, runs, servers } = self;
        let own: Vec<String> =
            service.units.iter().map(|unit| format!("the user unit {}", shown(&unit.display().to_string()))).collect();
        let runs = runs.map(|pid| format!("t3code.service of the user's own systemd, which runs (pid {pid})"));
        let by_service = own.len() + usize::from(service.state.is_some()) + usize::from(runs.is_some()) > 0;
        let stray = servers.iter().map(|StrayServer { pid, name, database }| {
            format!(
                "{} (pid {pid}), a server that was started by hand and has {} open",
                shown(name),
                shown(&database.display().to_string())
            )
        });
        let found: Vec<String> =
            own.into_iter().chain(runs).chain(service.state.as_ref().map(ToString::to_string)).chain(stray).collect();
        write!(f, "something else manages this server: {}. Two managers on one database break it. ", found.join("; "))?;
        if by_service {
            f.write_str("To resolve, as this user: t3 service uninstall, or systemctl --user disable --now t3code.service and remove what is named")?;
        }
        if !servers.is_empty() {
            let pids: Vec<String> = servers.iter().map(|server| server.pid.to_string()).collect();
            let also = if by_service { "; also" } else { "To resolve," };
            write!(f, "{also} end the server that was started by hand: kill {}", pids.join(" "))?;
        }
        Ok(())
    }
}

impl fmt::Display for LauncherState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of T3's own service", shown(&self.path.display().to_string()))?;
        match (&self.active_version, &self.updating_to) {
            (Ok(active), None) => write!(f, " (runs t3 {})", shown(active)),
            (Ok(active), Some(to)) => write!(f, " (runs t3 {}, an update to {} is under way)", shown(active), shown(to)),
            (Err(why), _) => write!(f, " ({})", shown(why)),
        }
    }
}

/// For a terminal and a log: nothing but plain characters, and not too many.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_found_is_named_with_how_it_is_resolved_and_nothing_a_user_wrote_reaches_a_terminal_raw() {
        let state = LauncherState {
            path: "/home/a/.t3/runtime/service-state.json".into(),
            active_version: Ok("0.0.30\u{1b}[2J".to_owned() + &"x".repeat(10_000)),
            updating_to: Some("0.0.31".to_owned()),
        };
        let service = OwnService { units: vec!["/home/a/.config/systemd/user/t3code.service".into()], state: Some(state) };
        let server = StrayServer { pid: 7, name: "node".to_owned(), database: "/home/a/.t3/userdata/state.sqlite".into() };
        let text = Rivals { service, runs: Some(6), servers: vec![server] }.to_string();
        for part in [
            "systemd/user/t3code.service",
            "pid 6",
            "service-state.json",
            "0.0.31",
            "node (pid 7)",
            "t3 service uninstall",
            "kill 7",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\u{1b}') && text.len() < 1500, "{text}");
    }
}
