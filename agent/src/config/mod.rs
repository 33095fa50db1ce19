//! The pin file and the settings: fragments -> inputs -> validated settings; errors name file, line, key and what is allowed.
//!
//! A file that others than root may write, an unknown key, a range, a dist-tag, an unknown user: refused whole, nothing
//! of it is used. The caller keeps what it had.

mod checks;
mod drain;
mod fragment;
mod inputs;
mod pin;
mod settings;
mod window;

pub use pin::{Pin, load_pin};
pub use settings::{Settings, load_settings};
#[cfg(feature = "fuzzing")]
pub use {pin::parse_pin, settings::parse_settings};

use std::path::{Path, PathBuf};

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{}: {problem}", path.display(), line.map(|n| format!(", line {n}")).unwrap_or_default(), key.as_deref().map(|k| format!(", {k}")).unwrap_or_default())]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: Option<usize>,
    /// The key, dotted.
    pub key: Option<String>,
    /// What is wrong, and what is allowed.
    pub problem: String,
}

impl ConfigError {
    /// A problem of the file as a whole.
    fn whole(path: &Path, problem: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: None, key: None, problem: problem.into() }
    }
}
