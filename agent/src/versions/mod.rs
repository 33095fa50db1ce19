//! The version store: the installed versions, side by side, sealed, never modified in place; and the bindings.
//!
//! Promises: a half-made version is never usable ([`Store::get`] wants the `ok` marker, which is written last);
//! a failed install leaves everything as it was; a sealed tree belongs to root and has no write bits; files that versions have in
//! common are stored once; and no version goes while somebody is bound to it or a process runs from it.

mod bindings;
mod engines;
mod inspect;
mod install;
#[cfg(test)]
mod machine_tests;
mod manifest;
mod npm;
mod npm_output;
mod remove;
mod retire;
mod running;
mod seal;
mod share;
mod store;
mod tree;
mod verify;
mod warm;

/// See `crate::fuzzing`.
#[cfg(feature = "fuzzing")]
pub fn fuzz_npm(text: &str, version: &crate::domain::Version) {
    npm_output::read_view(text, version).ok();
    npm_output::error_code(text, text);
    let shown = npm_output::last_lines(text);
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
    npm_output::blank(text);
}

pub use retire::Retired;
pub use verify::Depth;

use std::path::PathBuf;
use std::time::Duration;

use crate::domain::Version;

/// Names of the units that installs run in begin with this; [`crate::systemd::Systemd::stop_left_over`] takes it when the
/// agent starts, before [`Store::clean_half_made`].
pub const UNIT_PREFIX: &str = "t3pin-install-";

/// `/var/lib/t3pin/versions` and its neighbours `staging` and `bindings`.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// A usable version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Which.
    pub version: Version,
    /// `/var/lib/t3pin/versions/V`.
    pub path: PathBuf,
    /// Bytes of its files.
    pub bytes: u64,
    /// When it was sealed, ms since the epoch.
    pub sealed_ms: i64,
    /// Integrity of the npm tarball (`sha512-...`).
    pub integrity: String,
}

/// How to install.
#[derive(Debug, Clone)]
pub struct InstallSettings {
    /// Registry to use instead of the one npm is configured with.
    pub registry: Option<String>,
    /// The node that will run it, absolute.
    pub node: PathBuf,
    /// The npm client, absolute.
    pub npm: PathBuf,
    /// Where node's headers are (`include/node` below it); `None` to look beside node, else leave it to npm.
    pub node_headers: Option<PathBuf>,
    /// Packages whose install scripts may run.
    pub allow_scripts: Vec<String>,
    /// System user that npm runs as.
    pub user: String,
    /// The whole install may take this long.
    pub deadline: Duration,
}

/// Why a version could not be installed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The registry does not know the version.
    #[error("the registry {registry} has no t3 {version}; check the pin, or the registry npm is configured with")]
    NoSuchVersion {
        /// Which version.
        version: Version,
        /// Where it was looked for.
        registry: String,
    },
    /// The registry could not be asked.
    #[error(
        "the npm registry could not be asked about t3 {version}; nothing was changed and it will be tried again. npm said:\n{npm}"
    )]
    Registry {
        /// Which version.
        version: Version,
        /// npm's last lines.
        npm: String,
    },
    /// node on this host is too old or too new.
    #[error("t3 {version} wants node {wanted}, and {node} is {found}; install a fitting node or set [store] node")]
    Node {
        /// Which version.
        version: Version,
        /// `engines.node`.
        wanted: String,
        /// Which node.
        node: String,
        /// Its version.
        found: String,
    },
    /// The tarball is not the one that the pin names.
    #[error("t3 {version} has integrity {found}, and the pin file wants {wanted}; refused")]
    Integrity {
        /// Which version.
        version: Version,
        /// From the pin.
        wanted: String,
        /// From the registry.
        found: String,
    },
    /// npm failed.
    #[error("npm could not install t3 {version}; nothing was changed. npm said:\n{npm}")]
    Npm {
        /// Which version.
        version: Version,
        /// npm's last lines.
        npm: String,
    },
    /// The installed tree is not right (no native module, wrong version, links that leave it, ...).
    #[error("the installed t3 {version} is not usable: {why}; nothing was changed")]
    BadTree {
        /// Which version.
        version: Version,
        /// What is wrong.
        why: String,
    },
    /// Disk, permissions, systemd.
    #[error("t3 {version} could not be installed: {context}: {source}")]
    Io {
        /// Which version.
        version: Version,
        /// What was being done.
        context: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// systemd refused.
    #[error("t3 {version} could not be installed: {source}")]
    Systemd {
        /// Which version.
        version: Version,
        /// Why.
        source: crate::systemd::SystemdError,
    },
}
