//! The real npm client in sandboxes: each step a transient unit, as npm's own system user, with its output kept.
//!
//! Nothing that a package brings along runs while the network and root's npm credentials are at hand: packages are
//! fetched with `--ignore-scripts`, and the scripts of the allowed packages run afterwards by `npm rebuild`, which needs
//! neither when node's headers are on the host. That also makes the list of allowed packages hold for every npm.
//! npm 12 wants them named in `allowScripts` of package.json as well (npm-install-scripts(1)); it refuses the
//! command line option `--allow-scripts` for installs into a directory, and older npm ignores the field.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinHandle;

use super::npm_output::last_lines;
use super::{InstallError, InstallSettings, UNIT_PREFIX};
use crate::domain::Version;
use crate::systemd::{Sandbox, SandboxEnd, Systemd};

/// Root's own npm settings: registry, proxies, credentials.
const ROOT_NPMRC: &str = "/root/.npmrc";
const CREDENTIAL: &str = "npmrc";
/// npm's peak is 0.85 GB, the compiler's less (T3-CONTRACT section 9); the page cache counts too.
const MEMORY: u64 = 3 << 30;
const TASKS: u64 = 512;
/// More than any real answer of `npm view`.
const KEEP_FIRST: usize = 4 << 20;
/// Enough for the last lines.
const KEEP_LAST: usize = 64 << 10;
/// The pipes end with the sandbox; this is for a descriptor that systemd still holds.
const DRAIN: Duration = Duration::from_secs(5);
/// What npm and the compiler get from the agent's own environment.
const HANDED_ON: [&str; 7] =
    ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "NODE_EXTRA_CA_CERTS"];

/// npm for one install.
pub(super) struct Npm<'a> {
    pub systemd: &'a Systemd,
    pub settings: &'a InstallSettings,
    pub version: &'a Version,
    /// The tree that npm fills.
    pub tree: PathBuf,
    /// npm's home and cache, thrown away afterwards.
    pub home: PathBuf,
    /// When the whole install must be over.
    pub until: Instant,
}

/// How a step ended.
pub(super) struct Ran {
    pub end: SandboxEnd,
    pub stdout: String,
    /// Everything else it said, its last part.
    pub log: String,
}

impl Ran {
    pub(super) fn succeeded(&self) -> bool {
        self.end.result == "success"
    }

    /// npm's last lines, with what systemd knows about a violent end.
    pub(super) fn explain(&self) -> String {
        let lines = last_lines(&self.log);
        match self.end.result.as_str() {
            "timeout" => format!("{lines}\n(stopped: it took too long; see [store] install_deadline)"),
            "oom-kill" => format!("{lines}\n(killed: it needed more than {} MiB of memory)", MEMORY >> 20),
            "exit-code" => format!("{lines}\n(exit code {})", self.end.status),
            other => format!("{lines}\n({other}, status {})", self.end.status),
        }
    }
}

/// What a step may do.
struct Step {
    name: &'static str,
    exec: Vec<String>,
    network: bool,
    writes: Vec<PathBuf>,
    npmrc: bool,
    compiles: bool,
    /// Where it runs. npm works on the package of that directory; it is not told by `--prefix`, because that option also moves
    /// npm's global configuration (`PREFIX/etc/npmrc`), and the host's registry would not be seen.
    directory: PathBuf,
}

impl Npm<'_> {
    /// Unit names of the install of one version begin with this. `_` is in no version, so `0.0.2` is no prefix of `0.0.25`.
    pub(super) fn unit_prefix(version: &Version) -> String {
        format!("{UNIT_PREFIX}{version}_")
    }

    /// `npm view`: what the registry that npm is configured with says about the version.
    pub(super) async fn view(&self) -> Result<Ran, InstallError> {
        let mut exec = self.npm(&["view", &format!("t3@{}", self.version), "--json"]);
        exec.extend(["version", "dist.integrity", "dist.tarball", "engines.node"].map(String::from));
        // The agent itself tries again later; here a dead registry has to be noticed soon.
        exec.extend(["--fetch-retries=1", "--fetch-retry-mintimeout=1000"].map(String::from));
        self.run(Step {
            name: "view",
            exec,
            network: true,
            writes: vec![self.home.clone()],
            npmrc: true,
            compiles: false,
            directory: self.home.clone(),
        })
        .await
    }

    /// The registry that npm uses, for messages.
    pub(super) async fn registry(&self) -> Result<Ran, InstallError> {
        let exec = self.npm(&["config", "get", "registry"]);
        self.run(Step {
            name: "config",
            exec,
            network: false,
            writes: vec![self.home.clone()],
            npmrc: true,
            compiles: false,
            directory: self.home.clone(),
        })
        .await
    }

    /// `node --version`.
    pub(super) async fn node_version(&self) -> Result<Ran, InstallError> {
        let exec = vec![display(&self.settings.node), "--version".to_owned()];
        self.run(Step {
            name: "node",
            exec,
            network: false,
            writes: vec![],
            npmrc: false,
            compiles: false,
            directory: self.home.clone(),
        })
        .await
    }

    /// Fetches t3 and what it depends on into the tree. Runs none of their code.
    pub(super) async fn fetch(&self) -> Result<Ran, InstallError> {
        let mut exec = self.npm(&["install", &format!("t3@{}", self.version)]);
        let options = [
            "--ignore-scripts",
            "--omit=dev",
            "--include=optional",
            "--install-links=false",
            "--package-lock=true",
            "--save=true",
            "--save-exact",
            "--bin-links=true",
            "--dry-run=false",
            "--fetch-retries=2",
            "--fetch-retry-mintimeout=1000",
            "--fetch-retry-maxtimeout=10000",
        ];
        exec.extend(options.map(String::from));
        let writes = vec![self.home.clone(), self.tree.clone()];
        self.run(Step { name: "fetch", exec, network: true, writes, npmrc: true, compiles: false, directory: self.tree.clone() })
            .await
    }

    /// Runs the install scripts of the allowed packages; packages that t3 does not depend on are passed over.
    pub(super) async fn build(&self) -> Result<Ran, InstallError> {
        let mut exec = self.npm(&["rebuild", "--foreground-scripts", "--ignore-scripts=false"]);
        exec.extend(self.settings.allow_scripts.iter().cloned());
        // Without headers on the host, node-gyp fetches them, by the way that npm is configured for.
        let fetch_headers = self.headers().is_none();
        let writes = vec![self.home.clone(), self.tree.clone()];
        self.run(Step {
            name: "build",
            exec,
            network: fetch_headers,
            writes,
            npmrc: fetch_headers,
            compiles: true,
            directory: self.tree.clone(),
        })
        .await
    }

    /// Loads node-pty the way t3 does. A module that was built for another node fails here and not in front of users.
    pub(super) async fn load_pty(&self) -> Result<Ran, InstallError> {
        let program = "require('module').createRequire(process.argv[1])('node-pty')";
        let package = display(&self.tree.join("node_modules/t3/package.json"));
        let exec = vec![display(&self.settings.node), "-e".to_owned(), program.to_owned(), package];
        self.run(Step {
            name: "load",
            exec,
            network: false,
            writes: vec![],
            npmrc: false,
            compiles: false,
            directory: self.home.clone(),
        })
        .await
    }

    /// npm with what every call has in common.
    fn npm(&self, arguments: &[&str]) -> Vec<String> {
        let mut exec = vec![display(&self.settings.npm)];
        exec.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        exec.extend(["--no-audit", "--no-fund", "--no-update-notifier", "--no-progress", "--color=false"].map(String::from));
        exec.push("--global=false".to_owned());
        exec.push(format!("--cache={}", display(&self.home.join("cache"))));
        if let Some(registry) = &self.settings.registry {
            exec.push(format!("--registry={registry}"));
        }
        exec
    }

    /// Prefix with node's headers: the setting, else beside the node that will run t3, if they are there.
    fn headers(&self) -> Option<PathBuf> {
        if let Some(set) = &self.settings.node_headers {
            return Some(set.clone());
        }
        let node = std::fs::canonicalize(&self.settings.node).ok()?;
        let prefix = node.parent()?.parent()?;
        prefix.join("include/node/node.h").exists().then(|| prefix.to_owned())
    }

    /// The package that t3 is installed into. npm looks for one upwards when there is none.
    pub(super) fn package(settings: &InstallSettings) -> String {
        let allowed: serde_json::Map<_, _> = settings.allow_scripts.iter().map(|name| (name.clone(), true.into())).collect();
        serde_json::json!({ "private": true, "allowScripts": allowed }).to_string()
    }

    fn environment(&self, unit: &str, step: &Step, npmrc: bool) -> Vec<(String, String)> {
        let node = self.settings.node.parent().map(display).unwrap_or_default();
        let mut environment = vec![
            ("HOME".to_owned(), display(&self.home)),
            ("PATH".to_owned(), format!("{node}:/usr/local/bin:/usr/bin:/bin")),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ];
        if npmrc {
            // systemd.exec(5), "Credentials": the directory of a system unit is /run/credentials/UNIT.
            environment.push(("npm_config_userconfig".to_owned(), format!("/run/credentials/{unit}/{CREDENTIAL}")));
        }
        if let (true, Some(headers)) = (step.compiles, self.headers()) {
            environment.push(("npm_config_nodedir".to_owned(), display(&headers)));
        }
        for name in HANDED_ON {
            if let Ok(value) = std::env::var(name) {
                environment.push((name.to_owned(), value));
            }
        }
        environment
    }

    async fn run(&self, step: Step) -> Result<Ran, InstallError> {
        let io = |source| InstallError::io(self.version, format!("running npm ({})", step.name), source);
        let deadline = self.until.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        let name = format!("{}{}.service", Self::unit_prefix(self.version), step.name);
        let npmrc = step.npmrc && Path::new(ROOT_NPMRC).is_file();
        let (out, stdout) = std::io::pipe().map_err(io)?;
        let (log, stderr) = std::io::pipe().map_err(io)?;
        let out = keep(out.into(), KEEP_FIRST, usize::MAX).map_err(io)?;
        let log = keep(log.into(), usize::MAX, KEEP_LAST).map_err(io)?;
        let sandbox = Sandbox {
            description: format!("t3pin: npm ({}) for t3 {}", step.name, self.version),
            environment: self.environment(&name, &step, npmrc),
            exec: step.exec,
            user: self.settings.user.clone(),
            working_directory: display(&step.directory),
            private_network: !step.network,
            read_write: step.writes.iter().map(|path| display(path)).collect(),
            bind: Vec::new(),
            credentials: if npmrc { vec![(CREDENTIAL.to_owned(), ROOT_NPMRC.to_owned())] } else { Vec::new() },
            memory_max: MEMORY,
            tasks_max: TASKS,
            deadline,
            stdin: None,
            stdout: Some(stdout.into()),
            stderr: Some(stderr.into()),
            name,
        };
        let end = self.systemd.run_sandbox(sandbox).await;
        let end = end.map_err(|source| InstallError::Systemd { version: self.version.clone(), source })?;
        let (stdout, stderr) = (drained(out).await, drained(log).await);
        tracing::debug!(version = %self.version, step = step.name, result = end.result, status = end.status, "npm step ended");
        // Scripts print on stdout, npm itself on stderr: the end of what went wrong is in the second.
        let log = format!("{}\n{stderr}", tail(&stdout));
        Ok(Ran { end, stdout, log })
    }
}

fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(KEEP_LAST);
    (from..text.len()).find_map(|at| text.get(at..)).unwrap_or_default()
}

/// Reads a pipe to its end, keeping no more than its first `first` or last `last` bytes.
fn keep(pipe: OwnedFd, first: usize, last: usize) -> std::io::Result<JoinHandle<Vec<u8>>> {
    let mut pipe = Receiver::from_owned_fd(pipe)?;
    Ok(tokio::spawn(async move {
        let mut kept = Vec::new();
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
            let room = first.saturating_sub(kept.len());
            kept.extend_from_slice(buffer.get(..read.min(room)).unwrap_or_default());
            if kept.len() > last.saturating_mul(2) {
                kept.drain(..kept.len() - last);
            }
        }
        kept
    }))
}

async fn drained(reader: JoinHandle<Vec<u8>>) -> String {
    let stop = reader.abort_handle();
    let bytes = tokio::time::timeout(DRAIN, reader).await.ok().and_then(Result::ok).unwrap_or_default();
    stop.abort();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn display(path: &Path) -> String {
    path.display().to_string()
}
