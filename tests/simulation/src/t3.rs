//! What a t3 does with its data, as far as it matters here (T3-CONTRACT sections 2, 6 and 7), and what releases can be like.
//!
//! A database says which it is, which version wrote it last, how far it was migrated, and which rows of work it holds; what was
//! written since is in its log, which says what database it belongs to. A server gives its database a new name of its own at every
//! checkpoint, as SQLite's salts change.

use std::collections::BTreeSet;

/// The releases there are, oldest first, each with its migration level.
pub const RELEASES: [(&str, u32); 3] = [("0.0.24", 30), ("0.0.25", 31), ("0.0.28", 32)];

/// The migration level of a release.
pub fn level(version: &str) -> u32 {
    RELEASES.iter().find(|(name, _)| *name == version).map_or(0, |(_, level)| *level)
}

/// What is wrong with the new release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing.
    None,
    /// Ends by itself when it has migrated.
    Crashes,
    /// Never answers.
    Hangs,
    /// Answers, but nobody can pair.
    PairingMoved,
    /// Says that it is another version.
    WrongVersion,
    /// Loses the user's work when it migrates.
    Wipes,
    /// Leaves no database that could be read.
    Corrupts,
    /// Leaves a process behind that has the database open.
    Forks,
    /// Starts well, and later ends by itself.
    DiesLater,
    /// Starts well, and later nobody can pair.
    FailsLater,
}

impl Flaw {
    /// All that can be wrong.
    pub const ALL: [Flaw; 9] = [
        Flaw::Crashes,
        Flaw::Hangs,
        Flaw::PairingMoved,
        Flaw::WrongVersion,
        Flaw::Wipes,
        Flaw::Corrupts,
        Flaw::Forks,
        Flaw::DiesLater,
        Flaw::FailsLater,
    ];
}

/// A database without its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Which.
    pub id: u64,
    /// The migration level.
    pub level: u32,
    /// The version that wrote it last.
    pub by: String,
    /// The user's work.
    pub rows: BTreeSet<u64>,
}

impl Database {
    /// Reads it; `None` when it is none.
    pub fn parse(content: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(content).ok()?;
        let mut words = text.strip_prefix("T3DB ")?.strip_suffix(" END")?.split(' ');
        let (id, level, by) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.to_owned());
        let rows = words.map(|row| row.parse().ok()).collect::<Option<_>>()?;
        Some(Self { id, level, by, rows })
    }

    /// As it lies in its file.
    pub fn content(&self) -> Vec<u8> {
        let rows: String = self.rows.iter().map(|row| format!(" {row}")).collect();
        format!("T3DB {} {} {}{rows} END", self.id, self.level, self.by).into_bytes()
    }

    /// Takes in the log; `false` when the log is that of another database, or damaged.
    pub fn replay(&mut self, log: &[u8]) -> bool {
        let Some(rows) = log_rows(log, self.id) else { return false };
        self.rows.extend(rows);
        true
    }
}

/// A log without rows.
pub fn new_log(id: u64) -> Vec<u8> {
    format!("T3LOG {id}").into_bytes()
}

/// What is added to a log with a row.
pub fn log_entry(row: u64) -> Vec<u8> {
    format!(" {row}").into_bytes()
}

fn log_rows(log: &[u8], id: u64) -> Option<Vec<u64>> {
    let mut words = std::str::from_utf8(log).ok()?.split(' ');
    if words.next()? != "T3LOG" || words.next()?.parse() != Ok(id) {
        return None;
    }
    words.map(|row| row.parse().ok()).collect()
}
