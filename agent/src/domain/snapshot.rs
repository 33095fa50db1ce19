//! What a user's state consists of, and copies of it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{BumpId, UnixMs, UserName, Version};

/// The entries of `userdata/` that move together (T3-CONTRACT section 7, "backup"): the database with its sidecars, the
/// signing keys, the client's identity of the server, the settings that newer versions extend and the [`ATTACHMENTS`]. Never
/// `worktrees/`, `logs/`, `caches/`. `state.sqlite-shm` is listed so that a stale one is never left beside a restored database; it is
/// rebuilt by SQLite and need not be copied. `state.sqlite-journal` is there only while, or after, something used the
/// database outside of WAL mode: left beside another database it would be played back into that one
/// (SQLite, "Atomic Commit", hot journals).
pub const STATE_ENTRIES: [&str; 9] = [
    "state.sqlite",
    "state.sqlite-wal",
    "state.sqlite-shm",
    "state.sqlite-journal",
    "secrets",
    "environment-id",
    "settings.json",
    "keybindings.json",
    ATTACHMENTS,
];

/// What messages refer to: files that are written once, many of them, and large ones. Moved as one; nothing looks at each of them
/// while a server is down, beyond seeing which have changed.
pub const ATTACHMENTS: &str = "attachments";

/// What SQLite rebuilds by itself: taken into custody, but neither copied nor compared.
pub const REBUILT: &str = "state.sqlite-shm";

/// The entries that are copied, archived and compared: all but [`REBUILT`].
pub fn copied_entries() -> Vec<&'static str> {
    STATE_ENTRIES.into_iter().filter(|name| *name != REBUILT).collect()
}

/// A verified, root-owned copy of a user's state, kept for later rollbacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its name; the directory below `/var/lib/t3pin/snapshots/USER/`.
    pub id: SnapshotId,
    /// Whose state.
    pub user: UserName,
    /// The version that wrote this state, and the only one to run on it.
    pub version: Version,
    /// Highest migration applied, when the database could tell.
    pub migration_level: Option<u32>,
    /// When it was taken.
    pub created_ms: UnixMs,
    /// Bytes on disk.
    pub bytes: u64,
    /// Where it lies.
    pub path: PathBuf,
    /// What it holds, with hashes. Empty in a bump's own record: what counts is the manifest in the archive, which is written once
    /// the bump is settled.
    pub entries: Vec<StateEntry>,
}

/// The name of a snapshot: that of the bump before which it was taken.
pub type SnapshotId = BumpId;

/// One file or directory of a user's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateEntry {
    /// Path below `userdata/`, with `/` between components; only plain components.
    pub path: String,
    /// File or directory.
    pub kind: EntryKind,
    /// Permission bits.
    pub mode: u32,
    /// Size in bytes; 0 for directories.
    pub bytes: u64,
    /// BLAKE3 of the content in hex; empty for directories.
    pub blake3: String,
}

/// What a state entry is. Nothing else (symlinks, FIFOs, sockets, devices) is ever taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
}

/// An original as it lay when it was looked at, without its content. While all of this stays the same nobody has written to it:
/// every write moves the time of the last change (stat(2), `st_mtim`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lying {
    /// Path below `userdata/`, with `/` between components; only plain components.
    pub path: String,
    /// File or directory.
    pub kind: EntryKind,
    /// Permission bits.
    pub mode: u32,
    /// Size in bytes; 0 for directories.
    pub bytes: u64,
    /// Inode.
    pub ino: u64,
    /// Last change of the content, nanoseconds since the Unix epoch; 0 for directories.
    pub mtime_ns: i64,
}

/// What the copy for the new version was made from, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedReport {
    /// The originals as they lay when the copy was finished, parents before children: what custody must hold.
    pub originals: Vec<Lying>,
    /// Highest migration applied in the database; `None` when there is no database yet.
    pub migration_level: Option<u32>,
    /// Bytes of the copy.
    pub bytes: u64,
    /// How the copy was made.
    pub method: SeedMethod,
    /// Bytes of it that were written after the server was stopped.
    pub late_bytes: u64,
    /// The last writes are in a log beside the copy's database: one is worth nothing without the other.
    pub log: bool,
    /// What the [`ATTACHMENTS`] were; `None` when there were none.
    #[serde(default)]
    pub attachments: Option<Attachments>,
}

/// The [`ATTACHMENTS`] in short: there may be more of them than a message or a manifest should hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachments {
    /// Files and directories.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// BLAKE3, in hex, of what [`Lying`] says of an original, of all of them: while it stays the same nobody has written to them.
    pub digest: String,
}

/// How the copy for the new version was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeedMethod {
    /// While the server was stopped, as a clone that shares its blocks with the original (ioctl_ficlone(2)).
    Reflink,
    /// While the server was stopped, by reading and writing all of it.
    Copy,
    /// Beside the running server, as a clone, and brought up to the last write after it was stopped.
    LiveReflink,
    /// Beside the running server, by reading and writing, and brought up to the last write after it was stopped.
    LiveCopy,
    /// It was made from an archived snapshot.
    Archive,
}

/// How much work a database holds: for every table that is not about authentication or migrations, its highest rowid.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkMarks {
    /// Table name -> highest rowid (or row count for tables without one).
    pub tables: std::collections::BTreeMap<String, i64>,
}

impl WorkMarks {
    /// How many rows `later` has gained over `self`, table by table; tables that lost rows count as zero.
    pub fn gained(&self, later: &WorkMarks) -> u64 {
        later
            .tables
            .iter()
            .map(|(table, mark)| mark.saturating_sub(*self.tables.get(table).unwrap_or(&0)).max(0).unsigned_abs())
            .sum()
    }

    /// How many rows of work are gone in `later`, counted in the tables that lost more than half of theirs.
    ///
    /// Not every lost row is lost work: a server tidies up when it starts (sessions of a process that is gone, T3-CONTRACT
    /// section 4: "rows of a killed server can be stale"), so tables of sessions and of the runtime do not count, and neither
    /// does a table that lost a few. A migration that wipes leaves much less than half.
    pub fn lost(&self, later: &WorkMarks) -> u64 {
        let of_a_process = |table: &str| table.ends_with("_sessions") || table.ends_with("_runtime");
        self.tables
            .iter()
            .filter(|(table, _)| !of_a_process(table))
            .filter_map(|(table, before)| {
                let after = later.tables.get(table).copied().unwrap_or(0).max(0);
                (after.saturating_mul(2) < *before).then(|| before.abs_diff(after))
            })
            .sum()
    }
}

/// What the new version wrote before it was rolled back, set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Salvage {
    /// Where it lies (root only).
    pub path: PathBuf,
    /// Bytes in it, without those of the [`ATTACHMENTS`]: nobody counts files while a server is down.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wiped_table_is_lost_work_and_a_tidied_one_is_not() {
        let marks = |pairs: &[(&str, i64)]| WorkMarks { tables: pairs.iter().map(|(t, n)| ((*t).to_owned(), *n)).collect() };
        let before = marks(&[("events", 10), ("threads", 3), ("thread_sessions", 4), ("provider_session_runtime", 2)]);
        let tidied = marks(&[("events", 9), ("threads", 3)]);
        assert_eq!(before.lost(&tidied), 0);
        assert_eq!(before.lost(&marks(&[("events", 10)])), 3);
        assert_eq!(before.lost(&marks(&[])), 13);
    }

    #[test]
    fn gained_counts_only_growth() {
        let marks = |pairs: &[(&str, i64)]| WorkMarks { tables: pairs.iter().map(|(t, n)| ((*t).to_owned(), *n)).collect() };
        assert_eq!(marks(&[("a", 5), ("b", 9)]).gained(&marks(&[("a", 8), ("b", 2), ("new", 4)])), 7);
    }
}
