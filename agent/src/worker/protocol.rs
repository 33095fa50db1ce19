//! What parent and child say to each other: one task in, one answer out, JSON, at most [`MAX_MESSAGE`] bytes each.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::domain::{Activity, Descriptor, ProbeReport, RehearsalReport, SeedReport, UnixMs, Version, WorkMarks};

/// Bytes that either side reads at most.
pub const MAX_MESSAGE: usize = 1 << 20;

/// What a worker is asked to do, as the user whose ids it has. All paths are absolute.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Task {
    /// Make a consistent copy of the state entries of `userdata` at `dest` (created, mode 0700; replaced if there),
    /// while the server may be running: the database in one read transaction. Answer: [`Answer::LiveCopy`].
    CopyLive {
        /// The user's `userdata/`.
        userdata: PathBuf,
        /// The new `userdata/` to make.
        dest: PathBuf,
    },
    /// With the server stopped: copy the state entries of `userdata` to `dest` (FICLONE where possible), bring the copy's
    /// database up to the last write (WAL recovered, no sidecars left), check it (`quick_check`), sync it.
    /// The originals are only read. Answer: [`Answer::Seed`].
    Seed {
        /// The user's `userdata/`.
        userdata: PathBuf,
        /// Where the copy goes (created, mode 0700; replaced if there).
        dest: PathBuf,
    },
    /// Put the seeded copy in place: rename every entry of `seed` into `userdata`, sync both. Entries already moved
    /// are skipped, so it can be repeated. Answer: [`Answer::Done`].
    SwitchIn {
        /// What [`Task::Seed`] made.
        seed: PathBuf,
        /// The user's `userdata/`, from which the originals have gone into custody.
        userdata: PathBuf,
    },
    /// Remove a work directory of t3pin's in the user's base directory; missing is fine. Answer: [`Answer::Done`].
    Discard {
        /// The directory; its parent must be named `.t3pin`.
        path: PathBuf,
    },
    /// Look for work in flight. Answer: [`Answer::Activity`].
    Look {
        /// The user's `userdata/`.
        userdata: PathBuf,
    },
    /// How much work the database holds, and its migration level. Answer: [`Answer::Marks`].
    Marks {
        /// The user's `userdata/`.
        userdata: PathBuf,
    },
    /// The pairing handshake against a running server. Answer: [`Answer::Probe`].
    Probe(ProbeSpec),
    /// Only the environment descriptor, one short try. Answer: [`Answer::Descriptor`].
    Describe {
        /// Address and port, e.g. `127.0.0.1:3773`.
        address: String,
    },
    /// Inside the rehearsal sandbox: start the candidate on the copy, probe it, stop it, inspect the copy.
    /// Answer: [`Answer::Rehearsal`].
    Rehearse(RehearseSpec),
}

/// What a probe needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProbeSpec {
    /// Address and port of the server, e.g. `127.0.0.1:3773`.
    pub address: String,
    /// The CLI of exactly the version that serves (`.../bin/t3`), T3-CONTRACT section 6.
    pub cli: PathBuf,
    /// t3's base directory.
    pub base_dir: PathBuf,
    /// The version that must answer.
    pub expect_version: Version,
    /// The environment id that must answer; `None` to take any.
    pub expect_environment_id: Option<String>,
    /// Pair endpoints in the order to try; 404 means try the next.
    pub pair_endpoints: Vec<String>,
    /// The site's reverse proxy: URL, header name; the user's name is the header's value.
    pub dispatch: Option<(String, String)>,
    /// One HTTP request may take this long, in ms; it is repeated on a fresh connection (T3-CONTRACT, "More facts").
    pub request_timeout_ms: u64,
    /// The descriptor must answer within this many ms...
    pub start_deadline_ms: u64,
    /// ...stretched up to this many ms while the database or its WAL visibly changes.
    pub start_ceiling_ms: u64,
}

/// What a rehearsal needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RehearseSpec {
    /// The probe to run; its `address` is inside the sandbox and its `base_dir` the copy.
    pub probe: ProbeSpec,
    /// Port for `serve --host 0.0.0.0 --port`.
    pub port: u16,
    /// Home directory for the candidate: the copy's.
    pub home: PathBuf,
}

/// What a worker answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// Done, nothing to say.
    Done,
    /// See [`Task::CopyLive`].
    LiveCopy(LiveCopyReport),
    /// See [`Task::Seed`].
    Seed(SeedReport),
    /// See [`Task::Look`].
    Activity(Activity),
    /// See [`Task::Marks`].
    Marks {
        /// How much work.
        marks: WorkMarks,
        /// Highest migration applied.
        migration_level: Option<u32>,
        /// Sessions neither revoked nor expired.
        sessions: u64,
    },
    /// See [`Task::Probe`].
    Probe(ProbeReport),
    /// See [`Task::Describe`]; `None` when nobody answers.
    Descriptor(Option<Descriptor>),
    /// See [`Task::Rehearse`].
    Rehearsal(Box<RehearsalReport>),
    /// The task could not be done.
    Failed(TaskError),
}

/// What a live copy holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveCopyReport {
    /// Bytes copied.
    pub bytes: u64,
    /// Highest migration applied; `None` without a database.
    pub migration_level: Option<u32>,
    /// Sessions neither revoked nor expired.
    pub sessions: u64,
    /// When the copy was consistent.
    pub taken_ms: UnixMs,
}

/// A pairing link fresh from `t3 auth pairing create --json`. The credential is a secret: never log it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MintedLink {
    /// Its id, for `revoke`.
    pub id: String,
    /// The one-time credential.
    pub credential: String,
}

impl std::fmt::Debug for MintedLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MintedLink").field("id", &self.id).field("credential", &"***").finish()
    }
}

/// Why a task could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct TaskError {
    /// What kind of failure, for decisions.
    pub kind: TaskErrorKind,
    /// What happened, for the operator: path and cause.
    pub message: String,
}

/// Kinds of failure that are decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskErrorKind {
    /// No room (ENOSPC, EDQUOT).
    NoSpace,
    /// A path is not what it must be: symlink, FIFO, hard link, foreign owner, not a directory.
    BadPath,
    /// The database is corrupt or is not one.
    Corrupt,
    /// The database is locked.
    Locked,
    /// Anything else.
    Other,
}
