//! Installing a version: asked for, fetched, built and looked at in sandboxes, sealed as root, and only then usable.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use rustix::fs::{CWD, RenameFlags, renameat_with, statvfs, syncfs};

use super::engines::fits;
use super::inspect::{agrees, inspect};
use super::manifest::{Content, Entry, Marker, write_manifest, write_new};
use super::npm::{Npm, Ran};
use super::npm_output::{Resolved, blank, error_code, is_network, is_unknown, read_view};
use super::remove::remove;
use super::seal::{SealError, seal};
use super::tree::{open_directory, sync_directory};
use super::{InstallError, InstallSettings, Installed, Store};
use crate::domain::Version;
use crate::kill_point::{self, Point};
use crate::systemd::Systemd;

/// An install of 0.0.28 is 0.6 GB, and its cache and build files lie beside it until it is done (T3-CONTRACT section 9).
const LEAST_FREE: u64 = 2 << 30;
/// Where sandboxes see nothing (`ProtectHome=`).
const HIDDEN: [&str; 3] = ["/home", "/root", "/run/user"];

impl Store {
    /// Installs `version` with the real npm client in a sandbox and seals it. Installed already: returned as it is, if its
    /// integrity is the wanted one. `progress` gets one short line per step. Never changes anything on failure.
    /// One install of a version at a time: a second one would stop the first.
    pub async fn install(
        &self,
        systemd: &Systemd,
        version: &Version,
        integrity: Option<&str>,
        settings: &InstallSettings,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<Installed, InstallError> {
        let io = |context: &'static str| move |source| InstallError::io(version, context.to_owned(), source);
        if let Some(installed) = self.get(version).map_err(io("looking into the version store"))? {
            check_integrity(version, integrity, Some(&installed.integrity))?;
            return Ok(installed);
        }
        check_visible(settings).map_err(io("checking node and npm"))?;
        self.check_space().map_err(io("checking the free space"))?;
        systemd
            .stop_left_over(&Npm::unit_prefix(version))
            .await
            .map_err(|source| InstallError::Systemd { version: version.clone(), source })?;
        let builder = system_user(&settings.user).map_err(io("looking up npm's system user"))?;
        let name = version.to_string();
        let made = self.make_staging(&name, &Npm::package(settings), builder).map_err(io("preparing the staging directory"))?;
        let npm = Npm {
            systemd,
            settings,
            version,
            tree: made.join("tree"),
            home: made.join("home"),
            until: Instant::now() + settings.deadline,
        };
        let outcome = self.install_into(&npm, integrity, builder.0, progress).await;
        let store = self.clone();
        let cleaned = in_background(move || remove(&store.staging(), &name)).await;
        if let Err(error) = cleaned {
            tracing::warn!(%version, %error, "the staging directory could not be removed; the next start of the agent does it");
        }
        outcome
    }

    async fn install_into(
        &self,
        npm: &Npm<'_>,
        wanted: Option<&str>,
        builder: u32,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<Installed, InstallError> {
        let version = npm.version;
        kill_point::reach(None, Point::Amid("install-staged"));
        progress(&format!("asking the registry about t3 {version}"));
        let resolved = resolve(npm).await?;
        check_integrity(version, wanted, resolved.integrity.as_deref())?;
        check_node(npm, &resolved).await?;
        progress(&format!("fetching t3 {version} and its dependencies"));
        expect_success(version, npm.fetch().await?)?;
        kill_point::reach(None, Point::Amid("install-fetched"));
        if !npm.settings.allow_scripts.is_empty() {
            progress(&format!("building native modules of t3 {version}"));
            expect_success(version, npm.build().await?)?;
        }
        kill_point::reach(None, Point::Amid("install-built"));
        progress(&format!("checking and sealing t3 {version}"));
        let (tree, sealed_version) = (npm.tree.clone(), version.clone());
        let (entries, inspected) = in_background(move || {
            let entries = seal(&tree, builder, (0, 0))?;
            let inspected = inspect(&tree, &sealed_version, resolved.integrity.as_deref()).map_err(SealError::Refused)?;
            Ok((entries, inspected))
        })
        .await
        .map_err(|error: SealError| unusable(version, error))?;
        if inspected.needs_pty {
            let ran = npm.load_pty().await?;
            if !ran.succeeded() {
                let why = format!("its native module node-pty does not load with this node:\n{}", ran.explain());
                return Err(InstallError::BadTree { version: version.clone(), why });
            }
        }
        kill_point::reach(None, Point::Amid("install-sealed"));
        let (store, tree, version, node) = (self.clone(), npm.tree.clone(), version.clone(), npm.settings.node.clone());
        let integrity = inspected.integrity.unwrap_or_default();
        let made = version.clone();
        in_background(move || store.publish(&tree, &version, &node, &inspected.entry, integrity, entries))
            .await
            .map_err(|source| InstallError::io(&made, "publishing it".to_owned(), source))
    }

    /// Adds wrapper, manifest and marker to a sealed tree, makes all of it durable, and moves it to its place.
    fn publish(
        &self,
        tree: &Path,
        version: &Version,
        node: &Path,
        entry: &str,
        integrity: String,
        mut entries: Vec<Entry>,
    ) -> io::Result<Installed> {
        let wrapper = wrapper(node, &self.path(version).join(entry));
        std::fs::create_dir(tree.join("bin"))?;
        write_new(&tree.join("bin/t3"), wrapper.as_bytes(), 0o555)?;
        std::fs::set_permissions(tree.join("bin"), std::fs::Permissions::from_mode(0o555))?;
        let blake3 = blake3::hash(wrapper.as_bytes()).to_hex().to_string();
        entries.push(Entry { path: "bin".to_owned(), content: Content::Directory { mode: 0o555 } });
        let size = wrapper.len() as u64;
        entries.push(Entry { path: "bin/t3".to_owned(), content: Content::File { mode: 0o555, size, blake3 } });
        let bytes = entries.iter().map(|entry| if let Content::File { size, .. } = entry.content { size } else { 0 }).sum();
        let manifest_blake3 = write_manifest(tree, &entries)?;
        self.share(version, tree, &entries);
        syncfs(open_directory(tree)?)?;
        let sealed_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let sealed_ms = i64::try_from(sealed_ms).unwrap_or(i64::MAX);
        Marker { version: version.clone(), integrity, bytes, sealed_ms, manifest_blake3 }.write(tree)?;
        self.move_into_place(tree, version)?;
        kill_point::reach(None, Point::Amid("install-published"));
        self.get(version)?.ok_or_else(|| io::Error::other("the marker that was just written cannot be read"))
    }

    /// Renames the finished tree. Something unusable in its place is removed, unless somebody is bound to it.
    fn move_into_place(&self, tree: &Path, version: &Version) -> io::Result<()> {
        let place = self.path(version);
        if place.symlink_metadata().is_ok() {
            if self.bound()?.contains(version) {
                let why = format!("{} has no ok marker, and users are bound to it", place.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
            }
            remove(&self.versions(), &version.to_string())?;
        }
        renameat_with(CWD, tree, CWD, &place, RenameFlags::NOREPLACE)?;
        sync_directory(&self.versions())
    }

    /// `staging/V` of root with `tree` and `home` of npm's user in it.
    fn make_staging(&self, name: &str, package: &str, builder: (u32, u32)) -> io::Result<PathBuf> {
        remove(&self.staging(), name)?;
        let made = self.staging().join(name);
        std::fs::DirBuilder::new().mode(0o755).create(&made)?;
        for directory in ["tree", "home"] {
            std::fs::DirBuilder::new().mode(0o700).create(made.join(directory))?;
        }
        let package_file = made.join("tree/package.json");
        write_new(&package_file, package.as_bytes(), 0o644)?;
        for path in [package_file, made.join("tree"), made.join("home")] {
            chown(path, Some(builder.0), Some(builder.1))?;
        }
        Ok(made)
    }

    fn check_space(&self) -> io::Result<()> {
        let last = self.list()?.last().map_or(0, |installed| installed.bytes);
        let need = LEAST_FREE.max(last.saturating_mul(3));
        let file_system = statvfs(self.staging())?;
        let free = file_system.f_bavail.saturating_mul(file_system.f_frsize);
        if free < need {
            let why = format!("{} has {} MiB free, and an install needs {} MiB", self.root.display(), free >> 20, need >> 20);
            return Err(io::Error::new(io::ErrorKind::StorageFull, why));
        }
        Ok(())
    }
}

impl InstallError {
    pub(super) fn io(version: &Version, context: String, source: io::Error) -> Self {
        Self::Io { version: version.clone(), context, source }
    }
}

async fn resolve(npm: &Npm<'_>) -> Result<Resolved, InstallError> {
    let version = npm.version;
    let ran = npm.view().await?;
    let unknown = if ran.succeeded() {
        match read_view(&ran.stdout, version) {
            Ok(Some(resolved)) => return Ok(resolved),
            Ok(None) => true,
            Err(why) => return Err(InstallError::Registry { version: version.clone(), npm: why }),
        }
    } else {
        error_code(&ran.stdout, &ran.log).is_some_and(|code| is_unknown(&code))
    };
    if !unknown {
        return Err(InstallError::Registry { version: version.clone(), npm: ran.explain() });
    }
    let asked = npm.registry().await?;
    let registry = blank(asked.stdout.lines().last().unwrap_or("that npm is configured with").trim());
    Err(InstallError::NoSuchVersion { version: version.clone(), registry })
}

fn check_integrity(version: &Version, wanted: Option<&str>, found: Option<&str>) -> Result<(), InstallError> {
    match wanted {
        Some(wanted) if !agrees(wanted, found.unwrap_or_default()) => Err(InstallError::Integrity {
            version: version.clone(),
            wanted: wanted.to_owned(),
            found: found.filter(|found| !found.is_empty()).unwrap_or("none").chars().take(200).collect(),
        }),
        _ => Ok(()),
    }
}

async fn check_node(npm: &Npm<'_>, resolved: &Resolved) -> Result<(), InstallError> {
    let Some(wanted) = &resolved.node else { return Ok(()) };
    let ran = npm.node_version().await?;
    let found = ran.stdout.trim().to_owned();
    if ran.succeeded() && fits(wanted, &found) == Some(true) {
        return Ok(());
    }
    Err(InstallError::Node {
        version: npm.version.clone(),
        wanted: wanted.chars().take(200).collect(),
        node: npm.settings.node.display().to_string(),
        found: if ran.succeeded() { found } else { ran.explain() },
    })
}

fn expect_success(version: &Version, ran: Ran) -> Result<(), InstallError> {
    if ran.succeeded() {
        return Ok(());
    }
    let (version, npm) = (version.clone(), ran.explain());
    match error_code(&ran.stdout, &ran.log) {
        Some(code) if is_network(&code) => Err(InstallError::Registry { version, npm }),
        _ => Err(InstallError::Npm { version, npm }),
    }
}

fn unusable(version: &Version, error: SealError) -> InstallError {
    match error {
        SealError::Refused(why) => InstallError::BadTree { version: version.clone(), why },
        SealError::Io { path, source } => InstallError::io(version, format!("sealing \"{path}\""), source),
    }
}

/// Sandboxes, and the users' servers, must be able to reach both.
fn check_visible(settings: &InstallSettings) -> io::Result<()> {
    for program in [&settings.node, &settings.npm] {
        let real = std::fs::canonicalize(program)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))?;
        if HIDDEN.iter().any(|hidden| real.starts_with(hidden)) {
            let why = format!("{} is in somebody's home; install it for the whole host", real.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
    }
    Ok(())
}

/// User and group id of a system user. systemd-sysusers(8) writes those into /etc/passwd.
fn system_user(name: &str) -> io::Result<(u32, u32)> {
    let ids = std::fs::read_to_string("/etc/passwd")?.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then_some(())?;
        Some((fields.nth(1)?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?))
    });
    ids.filter(|(uid, _)| *uid != 0).ok_or_else(|| {
        let why = format!("there is no unprivileged system user {name}; systemd-sysusers makes it when the package is installed");
        io::Error::new(io::ErrorKind::NotFound, why)
    })
}

/// `bin/t3`: runs t3's program with the node that it was built for, whatever the PATH of the caller says.
fn wrapper(node: &Path, program: &Path) -> String {
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    format!("#!/bin/sh\nexec {} {} \"$@\"\n", quoted(node), quoted(program))
}

/// Runs work that reads and writes hundreds of megabytes beside the event loop.
async fn in_background<T: Send + 'static, E: From<io::Error> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(E::from(io::Error::other(error))),
    }
}
