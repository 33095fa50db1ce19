//! What systemd knows about units, and the small calls on them: enabling, reloading, stopping what is left over.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use zbus::{OwnedObjectPath, OwnedVariant, Variant};

use super::{StartLine, Systemd, SystemdError, UnitState};

/// `ListUnits*`: name, description, load, active, sub state, followed, path, job id, job type, job path.
type Listed = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);
const UNIT_INTERFACE: &str = "org.freedesktop.systemd1.Unit";
const SERVICE_INTERFACE: &str = "org.freedesktop.systemd1.Service";
const NO_STATES: [&str; 0] = [];
/// A left-over sandbox gets this long to go; its own `TimeoutStopSec` is shorter.
const LEFT_OVER_STOP: Duration = Duration::from_secs(30);

impl Systemd {
    /// Names of all `t3-serve@*.service` that are loaded or enabled, sorted, without the template itself.
    /// Masked instances are not listed.
    ///
    /// `ListUnitFilesByPatterns` knows templates, not instances that only exist as a link in a `.wants` directory;
    /// those are looked up in the manager's own search path, as systemd does when it loads the target.
    pub async fn instances(&self) -> Result<Vec<String>, SystemdError> {
        let mut names = BTreeSet::new();
        for unit in self.list("listing the instances", "t3-serve@*.service").await? {
            if !matches!(unit.2.as_str(), "not-found" | "masked") {
                names.insert(unit.0);
            }
        }
        for directory in self.search_path().await? {
            names.extend(wanted_instances(Path::new(directory)));
        }
        names.retain(|name| name.len() > "t3-serve@.service".len());
        Ok(names.into_iter().collect())
    }

    /// Where the manager looks for units. Asked once: it is the same for as long as the manager lives, and who looks every half minute
    /// shall wake nobody for it.
    async fn search_path(&self) -> Result<&[String], SystemdError> {
        let asked = self.search_path.get_or_try_init(async || {
            let what = "asking systemd for its unit path";
            let path = self.property(what, &manager_path(), super::bus::MANAGER_INTERFACE, "UnitPath").await?;
            Ok(strings(Some(&path)))
        });
        Ok(asked.await?)
    }

    /// `active`, `inactive`, `failed`, ... of a unit of any kind (loads it).
    pub async fn active_state(&self, unit: &str) -> Result<String, SystemdError> {
        let what = format!("asking about {unit}");
        let path: OwnedObjectPath = self.manager(&what, "LoadUnit", &(unit,)).await?;
        Ok(text(Some(&self.property(&what, &path, UNIT_INTERFACE, "ActiveState").await?)))
    }

    /// What systemd knows about `unit` (loads it).
    pub async fn unit(&self, unit: &str) -> Result<UnitState, SystemdError> {
        let what = format!("asking about {unit}");
        let path: OwnedObjectPath = self.manager(&what, "LoadUnit", &(unit,)).await?;
        self.unit_at(&what, &path).await
    }

    pub(super) async fn unit_at(&self, what: &str, path: &OwnedObjectPath) -> Result<UnitState, SystemdError> {
        let service = |name| self.property(what, path, SERVICE_INTERFACE, name);
        let (unit, main_pid, n_restarts, control_group, result) = tokio::try_join!(
            self.properties(what, path, UNIT_INTERFACE),
            service("MainPID"),
            service("NRestarts"),
            service("ControlGroup"),
            service("Result"),
        )?;
        let unit = |name| unit.get(name);
        Ok(UnitState {
            load_state: text(unit("LoadState")),
            active_state: text(unit("ActiveState")),
            sub_state: text(unit("SubState")),
            main_pid: number(Some(&main_pid)),
            n_restarts: number(Some(&n_restarts)),
            invocation_id: hex(unit("InvocationID")),
            control_group: text(Some(&control_group)),
            result: text(Some(&result)),
            fragment_path: text(unit("FragmentPath")),
            drop_in_paths: strings(unit("DropInPaths")),
            unit_file_state: text(unit("UnitFileState")),
            freezer_state: text(unit("FreezerState")),
        })
    }

    /// How `unit` starts its service (loads it).
    pub async fn start_line(&self, unit: &str) -> Result<StartLine, SystemdError> {
        let what = format!("asking how {unit} is started");
        let path: OwnedObjectPath = self.manager(&what, "LoadUnit", &(unit,)).await?;
        let exec = self.property(&what, &path, SERVICE_INTERFACE, "ExecStart").await?;
        let environment = self.property(&what, &path, SERVICE_INTERFACE, "Environment").await?;
        // `ExecStart` is an array of: path, arguments, and nine more about how it went (org.freedesktop.systemd1(5)).
        let first = if let Variant::Array(commands) = &*exec { commands.inner().first() } else { None };
        let arguments = if let Some(Variant::Structure(command)) = first { command.fields().get(1) } else { None };
        Ok(StartLine { arguments: words(arguments), environment: strings(Some(&environment)) })
    }

    /// How the main process of the service at `path` ended: `ExecMainStatus`, an exit code or a signal number.
    pub(super) async fn main_status(&self, what: &str, path: &OwnedObjectPath) -> Result<i32, SystemdError> {
        let status = self.property(what, path, SERVICE_INTERFACE, "ExecMainStatus").await?;
        Ok(if let Variant::I32(status) = &*status { *status } else { 0 })
    }

    /// Enables `unit` at boot (`EnableUnitFiles`), persistent; already enabled is fine. Like the D-Bus method, and unlike
    /// `systemctl enable`, it does not reload.
    pub async fn enable(&self, unit: &str) -> Result<(), SystemdError> {
        let (runtime, force) = (false, false);
        let _: (bool, Vec<(String, String, String)>) =
            self.manager(&format!("enabling {unit}"), "EnableUnitFiles", &(vec![unit], runtime, force)).await?;
        Ok(())
    }

    /// Reloads unit files (`Reload`).
    pub async fn daemon_reload(&self) -> Result<(), SystemdError> {
        self.manager("reloading unit files", "Reload", &()).await
    }

    /// Stops every left-over unit whose name starts with `prefix` (from an agent that died), e.g. `t3pin-rehearse-`.
    pub async fn stop_left_over(&self, prefix: &str) -> Result<(), SystemdError> {
        for unit in self.list(&format!("listing left-over units {prefix}*"), &format!("{prefix}*")).await? {
            tracing::info!(unit = unit.0, state = unit.3, "stopping a unit that a former agent left over");
            self.stop(&unit.0, LEFT_OVER_STOP).await?;
            self.reset_failed(&unit.0).await?;
        }
        Ok(())
    }

    pub(super) async fn list(&self, what: &str, pattern: &str) -> Result<Vec<Listed>, SystemdError> {
        self.manager(what, "ListUnitsByPatterns", &(NO_STATES.as_slice(), [pattern].as_slice())).await
    }
}

fn manager_path() -> OwnedObjectPath {
    zbus::ObjectPath::from_static_str_unchecked(super::bus::MANAGER).into()
}

/// Instances linked from `DIRECTORY/*.wants` and `*.requires`. A directory that cannot be read has none.
fn wanted_instances(directory: &Path) -> Vec<String> {
    let names_in = |directory: &Path| -> Vec<String> {
        std::fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    };
    names_in(directory)
        .iter()
        .filter(|name| name.ends_with(".wants") || name.ends_with(".requires"))
        .flat_map(|name| names_in(&directory.join(name)))
        .filter(|name| name.starts_with("t3-serve@") && name.ends_with(".service"))
        .collect()
}

fn text(property: Option<&OwnedVariant>) -> String {
    match property.map(|value| &**value) {
        Some(Variant::Str(text)) => text.to_string(),
        _ => String::new(),
    }
}

fn number(property: Option<&OwnedVariant>) -> u32 {
    match property.map(|value| &**value) {
        Some(Variant::U32(number)) => *number,
        _ => 0,
    }
}

fn strings(property: Option<&OwnedVariant>) -> Vec<String> {
    words(property.map(|value| &**value))
}

fn words(value: Option<&Variant<'_>>) -> Vec<String> {
    let Some(Variant::Array(array)) = value else { return Vec::new() };
    array.iter().filter_map(|item| if let Variant::Str(text) = item { Some(text.to_string()) } else { None }).collect()
}

fn hex(property: Option<&OwnedVariant>) -> String {
    let Some(Variant::Array(array)) = property.map(|value| &**value) else { return String::new() };
    array.iter().filter_map(|item| if let Variant::U8(byte) = item { Some(format!("{byte:02x}")) } else { None }).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn instances_enabled_in_any_wants_or_requires_directory_are_found() {
        let root = tempfile::tempdir().unwrap();
        for path in [
            "multi-user.target.wants/t3-serve@alice.service",
            "site.target.requires/t3-serve@bob.service",
            "multi-user.target.wants/ssh.service",
            "t3-serve@.service",
        ] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink("/nowhere", path).unwrap();
        }
        let mut found = wanted_instances(root.path());
        found.sort();
        assert_eq!(found, ["t3-serve@alice.service", "t3-serve@bob.service"]);
        assert!(wanted_instances(&root.path().join("missing")).is_empty());
    }
}
