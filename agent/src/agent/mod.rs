//! The long-running process: wiring, the loop, sd-notify, signals.
//!
//! One task, the [`desk`], changes things, one order at a time; the socket's tasks only read, note a freeze, or put an order
//! on the desk. What is to be done is decided by `engine`; [`effects`] has it done by the four works and reports back as
//! events; [`drive`] writes every step to the journal before its effects start.

mod aftermath;
mod attended;
mod board;
mod desk;
mod doctor;
mod drift;
mod drive;
mod effects;
mod enforce;
mod enroll;
mod evidence;
mod explain;
mod exports;
mod guarantee;
mod halt;
mod handler;
mod keeping;
mod last_resort;
mod ledger;
mod lock;
mod logging;
mod mint;
mod notify;
mod own_unit;
mod pins;
mod recovery;
mod reissue;
mod restore;
mod retry;
mod rivals;
mod rollback;
mod room;
mod rounds;
mod runs;
mod sights;
mod snapshots;
mod socket;
mod status;
mod stuck;
mod summary;
mod survey;
mod sweep;
mod unenroll;
mod unit_file;
mod waiting;
mod watch;
mod word;

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use crate::config::{ConfigError, Settings, load_settings};
use crate::domain::UnixMs;
use crate::host::EnvFiles;
use crate::journal::Journal;
use crate::kill_point::{self, Point};
use crate::state::Vault;
use crate::systemd::Systemd;
use crate::versions::Store;

/// Where the operator's files lie.
const ETC: &str = "/etc/t3pin";
/// Where the instances' environment files lie.
const ENV: &str = "/etc/t3-serve";
/// Where the agent's own things lie.
const VAR: &str = "/var/lib/t3pin";

/// At boot, and while it is restarted, the bus may take its time. Less than `TimeoutStartSec=` of both units.
const BUS_PATIENCE: Duration = Duration::from_secs(300);

/// Ends the process; whatever was under way is in the journal.
const BUS_GONE: &str = "the connection to the system bus is gone; what is under way is taken up again at the next start";

/// Everything the agent works with. Shared by the desk and the socket.
#[derive(Debug)]
struct Agent {
    journal: Journal,
    systemd: Systemd,
    store: Store,
    vault: Vault,
    env: EnvFiles,
    pins: pins::Pins,
    settings: RwLock<SettingsNow>,
    board: board::Board,
    runs: runs::Runs,
    exports: exports::Exports,
    sights: sights::Sights,
    retries: retry::Retries,
    mints: mint::Mints,
    glances: reissue::Glances,
    rounds: rounds::Rounds,
    halt: halt::Halt,
    _alone: lock::Alone,
}

/// The settings in force, and what is wrong with the files if they are not what the files say.
#[derive(Debug, Clone)]
struct SettingsNow {
    good: Arc<Settings>,
    error: Option<ConfigError>,
}

impl Agent {
    async fn assemble(alone: lock::Alone, journal: Journal) -> Result<Self, Box<dyn std::error::Error>> {
        let root = Path::new(VAR);
        let settings = match load_settings(Path::new(ETC)) {
            Ok(settings) => SettingsNow { good: Arc::new(settings), error: None },
            Err(error) => {
                tracing::error!("{error}. Until it is repaired the defaults are in force and nothing is enforced");
                let nowhere = load_settings(&root.join("no-settings"))?;
                SettingsNow { good: Arc::new(nowhere), error: Some(error) }
            }
        };
        let pins = pins::Pins::new(Path::new(ETC).join("pin.toml"), journal.good_pin()?);
        Ok(Self {
            pins,
            journal,
            systemd: Box::pin(Systemd::connect_within(BUS_PATIENCE)).await?,
            store: Store::open(root)?,
            vault: Vault::open(root)?,
            env: EnvFiles::at(Path::new(ENV)),
            settings: RwLock::new(settings),
            board: board::Board::new(now_ms()),
            runs: runs::Runs::default(),
            exports: exports::Exports::default(),
            sights: sights::Sights::default(),
            retries: retry::Retries::default(),
            mints: mint::Mints::default(),
            glances: reissue::Glances::default(),
            rounds: rounds::Rounds::default(),
            halt: halt::Halt::default(),
            _alone: alone,
        })
    }

    /// The settings in force.
    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(std::sync::PoisonError::into_inner).good)
    }

    /// Reads the settings again. Bad files change nothing and are reported.
    fn reload_settings(&self) -> Result<(), ConfigError> {
        let loaded = load_settings(Path::new(ETC));
        let mut now = self.settings.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        match loaded {
            Ok(settings) => {
                *now = SettingsNow { good: Arc::new(settings), error: None };
                Ok(())
            }
            Err(error) => {
                now.error = Some(error.clone());
                Err(error)
            }
        }
    }
}

/// The only one at work on this host.
async fn alone() -> std::io::Result<lock::Alone> {
    #[cfg(feature = "kill-points")]
    crate::kill_point::arm()?;
    std::fs::create_dir_all(VAR)?;
    lock::Alone::on(&Path::new(VAR).join("agent.lock")).await
}

fn open_journal() -> Result<Journal, crate::journal::JournalError> {
    Journal::open(&Path::new(VAR).join("journal.sqlite"))
}

/// The time, in ms since the epoch.
fn now_ms() -> UnixMs {
    jiff::Timestamp::now().as_millisecond()
}

/// `t3pin agent`: runs until it is told to stop (SIGTERM) or cannot go on.
pub fn main() -> ExitCode {
    logging::start();
    run(async {
        let agent = Arc::new(Agent::assemble(alone().await?, open_journal()?).await?);
        kill_point::reach(None, Point::Amid("agent-up"));
        let listener = socket::listener()?;
        let (desk, orders) = desk::desk();
        let handler = Arc::new(handler::Doors::new(Arc::clone(&agent), desk.clone()));
        let stop = notify::stop_signal()?;
        let watchdog = tokio::spawn(notify::watchdog());
        let door = tokio::spawn(crate::api::server::serve(listener, handler));
        let work = tokio::spawn(desk::work(Arc::clone(&agent), orders));
        let sweep = tokio::spawn(sweep::sweep(Arc::clone(&agent)));
        notify::ready(&agent.board.doing().1);
        tokio::select! {
            () = stop => tracing::info!("told to stop; a bump under way is taken up again at the next start"),
            () = agent.systemd.lost() => return Err(BUS_GONE.into()),
            ended = door => tracing::error!("the socket is closed: {ended:?}"),
            ended = work => tracing::error!("the work has ended: {ended:?}"),
            ended = sweep => tracing::error!("the watch over deferred users has ended: {ended:?}"),
        }
        notify::stopping();
        watchdog.abort();
        Ok(())
    })
}

/// `t3pin recover`: finishes or undoes what is under way, without the agent.
pub fn recover() -> ExitCode {
    logging::start();
    run(async {
        let alone = alone().await?;
        recover_alone(alone).await.inspect_err(|_| last_resort::tell_held())
    })
}

async fn recover_alone(alone: lock::Alone) -> Result<(), Box<dyn std::error::Error>> {
    let journal = match open_journal() {
        Ok(journal) => journal,
        Err(why) => return last_resort::recover(alone, why).await,
    };
    let agent = Agent::assemble(alone, journal).await?;
    tokio::select! {
        () = agent.recover() => Ok(()),
        () = agent.systemd.lost() => Err(BUS_GONE.into()),
    }
}

/// `t3pin release-frozen`: lets servers go on that stand still for an agent that has ended, or does not get on.
pub fn release_frozen() -> ExitCode {
    logging::start();
    run(async {
        for user in crate::systemd::release_frozen().await? {
            tracing::warn!(T3PIN_USER = %user, "{user}'s server was left standing still; it goes on");
        }
        Ok(())
    })
}

fn run(task: impl Future<Output = Result<(), Box<dyn std::error::Error>>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("the runtime could not be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("t3pin cannot go on: {error}");
            ExitCode::FAILURE
        }
    }
}
