//! The settings: `/etc/t3pin/agent.toml`, then `/etc/t3pin/conf.d/*.toml` in order of name; later ones win key by key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::drain::Drain;
use super::fragment::{self, dotted};
use super::inputs::Inputs;
use super::{ConfigError, checks};
use crate::root_file::{self, Refusal};

/// Validated settings. Durations are written as `"15min"`, `"30s"`, `"2h"` in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `[store] registry`: use this npm registry and not the one that npm is configured with.
    pub registry: Option<String>,
    /// `[store] node`: the node that runs t3 (default: first `node` in `/usr/local/bin:/usr/bin:/bin`).
    pub node: PathBuf,
    /// `[store] npm`: the npm client (default: first `npm` in `/usr/local/bin:/usr/bin:/bin`).
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
    /// `[health] watch_interval` (default 30 s): how often instances are looked at, in their soak and ever after.
    pub watch_interval: Duration,
    /// `[activity] stale_after` (default 6 h): a turn that has not moved for this long is shown as stale.
    pub stale_after: Duration,
    /// `[activity] quiet` (default 15 min).
    pub quiet: Duration,
    /// `[activity] poll` (default 2 s): how often it is looked whether something has changed at an instance that waits.
    pub poll: Duration,
    /// `[drain]`: when bumps that were put off go on.
    pub drain: Drain,
    /// `[snapshots] keep` (default 5, at least 1).
    pub keep_snapshots: usize,
    /// `[snapshots] max_age` (default none).
    pub snapshots_max_age: Option<Duration>,
    /// `[snapshots] max_bytes` (default none), for each user.
    pub snapshots_max_bytes: Option<u64>,
    /// `[instances] first_port` (default 3773): where `enroll` starts to look for a free port.
    pub first_port: u16,
}

/// Reads and checks the settings below `dir` (`/etc/t3pin`). Missing files are fine: defaults.
pub fn load_settings(dir: &Path) -> Result<Settings, ConfigError> {
    load_settings_of(root_file::ROOT, dir)
}

fn load_settings_of(owner: u32, dir: &Path) -> Result<Settings, ConfigError> {
    let mut inputs = Inputs::default();
    for path in std::iter::once(dir.join("agent.toml")).chain(fragments(owner, &dir.join("conf.d"))?) {
        match root_file::read(&path, owner) {
            Ok(text) => inputs.merge(fragment::parse(&path, &text)?)?,
            Err(Refusal::Missing) => {}
            Err(refusal) => return Err(ConfigError::whole(&path, refusal.to_string())),
        }
    }
    validated(&inputs)
}

/// One file's text alone.
#[cfg(feature = "fuzzing")]
pub fn parse_settings(text: &str) -> Result<Settings, ConfigError> {
    let mut inputs = Inputs::default();
    inputs.merge(fragment::parse(Path::new("agent.toml"), text)?)?;
    validated(&inputs)
}

const MAX_FRAGMENTS: usize = 100;

/// The fragments in `dir`, in order of name. Hidden files (an editor's) and other endings are not fragments.
fn fragments(owner: u32, dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let refuse = |problem: String| ConfigError::whole(dir, problem);
    match root_file::open_directory(dir, owner) {
        Ok(_) => {}
        Err(Refusal::Missing) => return Ok(Vec::new()),
        Err(refusal) => return Err(refuse(refusal.to_string())),
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|error| refuse(format!("could not be read: {error}")))? {
        let path = entry.map_err(|error| refuse(format!("could not be read: {error}")))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|ending| ending == "toml") {
            paths.push(path);
        }
    }
    if paths.len() > MAX_FRAGMENTS {
        return Err(refuse(format!("has {} fragments; at most {MAX_FRAGMENTS} are read", paths.len())));
    }
    paths.sort();
    Ok(paths)
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn validated(inputs: &Inputs) -> Result<Settings, ConfigError> {
    let default = Settings::default();
    let start_deadline = inputs.duration("health", "start_deadline", SECOND..=HOUR)?.unwrap_or(default.start_deadline);
    let start_ceiling = inputs.duration("health", "start_ceiling", SECOND..=DAY)?;
    if let (Some(ceiling), Some(input)) = (start_ceiling, inputs.get("health", "start_ceiling"))
        && ceiling < start_deadline
    {
        return Err(input.refuse("is less than health.start_deadline, which it can only stretch"));
    }
    Ok(Settings {
        registry: inputs.text("store", "registry", checks::registry)?,
        node: inputs.path("store", "node")?.unwrap_or(default.node),
        npm: inputs.path("store", "npm")?.unwrap_or(default.npm),
        node_headers: inputs.path("store", "node_headers")?,
        allow_scripts: inputs.texts("store", "allow_scripts", checks::package)?.unwrap_or(default.allow_scripts),
        install_deadline: inputs
            .duration("store", "install_deadline", 10 * SECOND..=6 * HOUR)?
            .unwrap_or(default.install_deadline),
        pair_endpoints: pair_endpoints(inputs)?.unwrap_or(default.pair_endpoints),
        request_timeout: inputs.duration("health", "request_timeout", 100 * MS..=MINUTE)?.unwrap_or(default.request_timeout),
        start_deadline,
        start_ceiling: start_ceiling.unwrap_or(default.start_ceiling.max(start_deadline)),
        dispatch_url: inputs.text("health", "dispatch_url", checks::web_address)?,
        dispatch_header: inputs.text("health", "dispatch_header", checks::header)?.unwrap_or(default.dispatch_header),
        soak: inputs.duration("health", "soak", Duration::ZERO..=7 * DAY)?.unwrap_or(default.soak),
        watch_interval: inputs.duration("health", "watch_interval", 100 * MS..=HOUR)?.unwrap_or(default.watch_interval),
        stale_after: inputs.duration("activity", "stale_after", SECOND..=30 * DAY)?.unwrap_or(default.stale_after),
        quiet: inputs.duration("activity", "quiet", Duration::ZERO..=30 * DAY)?.unwrap_or(default.quiet),
        poll: inputs.duration("activity", "poll", 100 * MS..=HOUR)?.unwrap_or(default.poll),
        drain: super::drain::validated(inputs)?,
        keep_snapshots: whole(inputs.number("snapshots", "keep", 1..=1000)?, default.keep_snapshots),
        snapshots_max_age: inputs.duration("snapshots", "max_age", SECOND..=3650 * DAY)?,
        snapshots_max_bytes: inputs.size("snapshots", "max_bytes", 1_000_000..=1_000_000_000_000_000)?,
        first_port: whole(inputs.number("instances", "first_port", 1024..=65535)?, default.first_port),
    })
}

/// A number that its bounds have made fit.
fn whole<T: TryFrom<i64>>(number: Option<i64>, default: T) -> T {
    number.and_then(|number| number.try_into().ok()).unwrap_or(default)
}

fn pair_endpoints(inputs: &Inputs) -> Result<Option<Vec<String>>, ConfigError> {
    let endpoints = inputs.texts("health", "pair_endpoints", checks::endpoint)?;
    match (endpoints, inputs.get("health", "pair_endpoints")) {
        (Some(list), Some(input)) if list.is_empty() || list.len() > 16 => {
            Err(input.refuse(format!("{} has {} entries; allowed is 1 to 16, tried in order", dotted(&input.keys), list.len())))
        }
        (endpoints, _) => Ok(endpoints),
    }
}

impl Default for Settings {
    fn default() -> Self {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Self {
            registry: None,
            node: program("node"),
            npm: program("npm"),
            node_headers: None,
            allow_scripts: owned(&["node-pty", "msgpackr-extract"]),
            install_deadline: 20 * MINUTE,
            pair_endpoints: owned(&["/api/auth/browser-session", "/api/auth/bootstrap"]),
            request_timeout: 3 * SECOND,
            start_deadline: MINUTE,
            start_ceiling: 15 * MINUTE,
            dispatch_url: None,
            dispatch_header: "X-authentik-username".to_owned(),
            soak: 10 * MINUTE,
            watch_interval: 30 * SECOND,
            stale_after: 6 * HOUR,
            quiet: 15 * MINUTE,
            poll: 2 * SECOND,
            drain: Drain::default(),
            keep_snapshots: 5,
            snapshots_max_age: None,
            snapshots_max_bytes: None,
            first_port: 3773,
        }
    }
}

/// The first `name` in the system's PATH; where a package would put it when there is none yet.
fn program(name: &str) -> PathBuf {
    let executable = |path: &PathBuf| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file();
    ["/usr/local/bin", "/usr/bin", "/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(executable)
        .unwrap_or_else(|| Path::new("/usr/bin").join(name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
