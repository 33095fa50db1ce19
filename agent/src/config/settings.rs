//! The settings: `/etc/t3pin/agent.toml`, then `/etc/t3pin/conf.d/*.toml` in order of name; later ones win key by key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ConfigError;

/// Validated settings. Durations are written as `"15min"`, `"30s"`, `"2h"` in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `[store] registry`: use this npm registry and not the one that npm is configured with.
    pub registry: Option<String>,
    /// `[store] node`: the node that runs t3 (default: first `node` in the system's PATH).
    pub node: PathBuf,
    /// `[store] npm`: the npm client (default: first `npm` in the system's PATH).
    pub npm: PathBuf,
    /// `[store] node_headers`: prefix with node's headers below `include/node` (default: beside node, else npm's own way).
    pub node_headers: Option<PathBuf>,
    /// `[store] allow_scripts` (default `["node-pty", "msgpackr-extract"]`).
    pub allow_scripts: Vec<String>,
    /// `[store] install_deadline` (default 20 min).
    pub install_deadline: Duration,
    /// `[health] pair_endpoints` (default browser-session, then bootstrap).
    pub pair_endpoints: Vec<String>,
    /// `[health] request_timeout` (default 3 s).
    pub request_timeout: Duration,
    /// `[health] start_deadline` (default 60 s): the descriptor must answer within it...
    pub start_deadline: Duration,
    /// `[health] start_ceiling` (default 15 min): ...stretched up to this while the migration visibly works.
    pub start_ceiling: Duration,
    /// `[health] dispatch_url`: the site's reverse proxy.
    pub dispatch_url: Option<String>,
    /// `[health] dispatch_header` (default `X-authentik-username`).
    pub dispatch_header: String,
    /// `[health] soak` (default 10 min).
    pub soak: Duration,
    /// `[health] watch_interval` (default 30 s): how often a soaking instance is looked at.
    pub watch_interval: Duration,
    /// `[activity] quiet` (default 15 min).
    pub quiet: Duration,
    /// `[activity] poll` (default 5 s): how often deferred instances are looked at.
    pub poll: Duration,
    /// `[snapshots] keep` (default 5, at least 1).
    pub keep_snapshots: usize,
    /// `[instances] first_port` (default 3773): where `enroll` starts to look for a free port.
    pub first_port: u16,
}

/// Reads and checks the settings below `dir` (`/etc/t3pin`). Missing files are fine: defaults.
pub fn load_settings(dir: &Path) -> Result<Settings, ConfigError> {
    let _ = dir;
    unimplemented!()
}
