//! Logs for operators: to the journal with fields (`T3PIN_USER`, `T3PIN_BUMP`, `T3PIN_PHASE`, `T3PIN_VERSION`) when systemd
//! started us (systemd.exec(5), `JOURNAL_STREAM`), else to standard error.

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging; the first call wins.
pub fn start() {
    let journald = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let plain =
        journald.is_none().then(|| tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).without_time());
    let journald = journald.map(|layer| layer.with_field_prefix(None));
    tracing_subscriber::registry().with(LevelFilter::INFO).with(journald).with(plain).try_init().ok();
}
