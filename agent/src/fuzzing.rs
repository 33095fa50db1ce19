//! What parses input that a hostile user, a registry or a broken host may have written, for tests/fuzz: one function per kind of
//! input, which must neither panic nor hang, and whose results must keep their promises. In no program that is shipped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use crate::config::{self, parse_pin};
use crate::domain::Version;

/// The pin file: what is accepted names only users that there are.
pub fn pin(text: &str) {
    if let Ok(pin) = parse_pin(Path::new("pin.toml"), text, &|user| user.as_str() == "alice") {
        assert!(pin.users.keys().all(|user| user.as_str() == "alice"));
    }
}

/// `agent.toml` and its fragments.
pub fn settings(text: &str) {
    if let Ok(settings) = config::parse_settings(text) {
        assert!(settings.start_ceiling >= settings.start_deadline);
    }
}

/// What npm prints: no line that is shown has a control character.
pub fn npm(text: &str) {
    let version: Version = "0.0.25".parse().unwrap();
    crate::versions::fuzz_npm(text, &version);
}

/// What t3 answers over HTTP, and what its CLI prints.
pub fn answers(bytes: &[u8]) {
    crate::worker::tasks::fuzz_answers(bytes);
}

/// A whole HTTP answer, as raw as it comes from whoever has a user's port.
pub fn http(bytes: &[u8]) {
    crate::worker::tasks::fuzz_http(bytes);
}

/// Messages between agent, broker and workers: what is read is said again alike.
pub fn messages(bytes: &[u8]) {
    crate::worker::fuzz_messages(bytes);
}

/// The kernel's tables, with names that users give to their processes.
pub fn proc(bytes: &[u8]) {
    crate::activity::fuzz_stat(bytes);
    let text = String::from_utf8_lossy(bytes);
    crate::host::session::fuzz_groups(&text);
    let mut listeners = crate::host::Listeners::default();
    listeners.take(&text);
    assert!(listeners.ports().iter().all(|port| !listeners.on(*port).is_empty()));
}

/// A write-ahead log beside a database of pages of 512 bytes: no page is taken from outside of the log.
pub fn wal(bytes: &[u8]) {
    crate::worker::tasks::seed::fuzz_wal(bytes);
}
