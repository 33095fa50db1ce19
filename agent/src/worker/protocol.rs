//! What parent and child say to each other: one task in, one answer out, JSON, at most [`MAX_MESSAGE`] bytes each.
//!
//! Each message says which [`PROTOCOL`] it is in, because the two sides may be two versions of the program: the file is
//! replaced by an upgrade while the agent runs.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::domain::{
    Activity, Descriptor, OwnService, PairedLook, PairingLabel, PairingTtl, ProbeReport, RehearsalReport, SeedMethod, SeedReport,
    UnixMs, Version, WorkMarks,
};

/// Bytes that either side reads at most.
pub const MAX_MESSAGE: usize = 1 << 20;

/// The version of the messages below. It goes up with every change of a task or an answer.
pub const PROTOCOL: u32 = 1;

/// A worker that reads uses processor time all along...
const READING: Duration = Duration::from_secs(30);
/// ...and one that waits for a disk to have everything may use none for long.
const SYNCING: Duration = Duration::from_secs(300);

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message<T> {
    protocol: u32,
    message: T,
}

/// `task` as it goes over the pipe: one line.
pub fn task_line(task: &Task) -> io::Result<Vec<u8>> {
    line(task)
}

/// `answer` as it goes over the pipe: one line.
pub fn answer_line(answer: &Answer) -> io::Result<Vec<u8>> {
    line(answer)
}

/// Reads a task strictly, or says in a sentence why it is none.
pub fn read_task(line: &[u8]) -> Result<Task, String> {
    read(line)
}

/// Reads an answer strictly, or says in a sentence why it is none.
pub fn read_answer(line: &[u8]) -> Result<Answer, String> {
    read(line)
}

fn line<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Message { protocol: PROTOCOL, message })?;
    line.push(b'\n');
    Ok(line)
}

fn read<T: DeserializeOwned>(line: &[u8]) -> Result<T, String> {
    protocol_of(line)?;
    let read: Result<Message<T>, _> = serde_json::from_slice(line);
    read.map(|read| read.message).map_err(|error| error.to_string())
}

/// Whether a message is in our [`PROTOCOL`]; else says so. Of one that is in another, no more than that is read.
pub(super) fn protocol_of(line: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Head {
        protocol: u32,
    }
    match serde_json::from_slice(line) {
        Ok(Head { protocol: PROTOCOL }) => Ok(()),
        Ok(Head { protocol }) => Err(super::broker::other_protocol(protocol)),
        Err(error) => Err(error.to_string()),
    }
}

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
    /// While the server runs: make a consistent, checked and synced copy of the state entries of `userdata` at `dest` (created,
    /// mode 0700; replaced if there). Answer: [`Answer::Seeded`]. When it is a live one the worker goes on, holding what keeps later
    /// writes within reach, until it is told [`Task::Finish`]; when it must give up before, it answers [`Answer::Failed`] unasked.
    SeedLive {
        /// The user's `userdata/`.
        userdata: PathBuf,
        /// Where the copy goes.
        dest: PathBuf,
    },
    /// To a worker that has a live copy, with the server stopped: bring it up to the last write and sync it. The originals are
    /// only read. Answer: [`Answer::Seed`].
    Finish,
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
    /// Stay, and look for work in flight whenever a line with a number of ms comes: the time that this look may take. Answer:
    /// one line with an [`Answer::Activity`] each. Ends with its input.
    Lookout {
        /// The user's `userdata/`.
        userdata: PathBuf,
    },
    /// How much work the database holds, and its migration level. Answer: [`Answer::Marks`].
    Marks {
        /// The user's `userdata/`.
        userdata: PathBuf,
    },
    /// Who is paired, which of these sessions live, and which of these links were used. Answer: [`Answer::Paired`].
    Paired {
        /// The user's `userdata/`.
        userdata: PathBuf,
        /// Names of sessions.
        sessions: Vec<String>,
        /// Names of links.
        links: Vec<String>,
    },
    /// Look for T3's own background service in the user's files. Answer: [`Answer::OwnService`].
    OwnService {
        /// The user's home.
        home: PathBuf,
        /// t3's base directory.
        base_dir: PathBuf,
    },
    /// Make one ordinary file of the `state.sqlite` in a directory of the user's and its WAL. Answer: [`Answer::Done`].
    Merge {
        /// The directory.
        dir: PathBuf,
    },
    /// The pairing handshake against a running server. Answer: [`Answer::Probe`].
    Probe(ProbeSpec),
    /// A pairing credential from the CLI of the version that serves. Answer: [`Answer::Minted`].
    Mint(MintSpec),
    /// Only the environment descriptor, one short try. Answer: [`Answer::Descriptor`].
    Describe {
        /// Address and port, e.g. `127.0.0.1:3773`.
        address: String,
    },
    /// Inside the rehearsal sandbox: start the candidate on the copy, probe it, stop it, inspect the copy.
    /// Answer: [`Answer::Rehearsal`].
    Rehearse(RehearseSpec),
}

impl Task {
    /// For how long a worker at this may use no processor time. `None` where it waits for servers and programs.
    pub fn idle(&self) -> Option<Duration> {
        match self {
            // Having gigabytes on a slow disk is one call.
            Self::Seed { .. } | Self::SeedLive { .. } | Self::Finish | Self::SwitchIn { .. } | Self::Merge { .. } => {
                Some(SYNCING)
            }
            Self::CopyLive { .. }
            | Self::Discard { .. }
            | Self::Look { .. }
            | Self::Lookout { .. }
            | Self::Marks { .. }
            | Self::Paired { .. }
            | Self::OwnService { .. } => Some(READING),
            Self::Probe(_) | Self::Mint(_) | Self::Describe { .. } | Self::Rehearse(_) => None,
        }
    }
}

/// What a probe needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProbeSpec {
    /// Address and port of the server, e.g. `127.0.0.1:3773`.
    pub address: String,
    /// The CLI of exactly the version that serves (`.../bin/t3`), T3-CONTRACT section 6.
    pub cli: PathBuf,
    /// The node that runs it.
    pub node: PathBuf,
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
    /// ...stretched up to this many ms while the database or its WAL visibly changes, and by what the host keeps from the server.
    pub start_ceiling_ms: u64,
    /// Directory of the server's control group, where that is known. A rehearsal finds its own.
    pub control_group: Option<PathBuf>,
}

/// What minting needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MintSpec {
    /// The CLI of exactly the version that serves (`.../bin/t3`), T3-CONTRACT section 6.
    pub cli: PathBuf,
    /// The node that runs it.
    pub node: PathBuf,
    /// t3's base directory.
    pub base_dir: PathBuf,
    /// For how long the credential is good.
    pub ttl: PairingTtl,
    /// What it is called.
    pub label: Option<PairingLabel>,
    /// The link that it takes the place of, by its name: revoked before.
    pub replaces: Option<String>,
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
#[serde(tag = "answer", content = "content", rename_all = "kebab-case")]
pub enum Answer {
    /// Done, nothing to say.
    Done,
    /// See [`Task::CopyLive`].
    LiveCopy(LiveCopyReport),
    /// See [`Task::SeedLive`].
    Seeded(Seeded),
    /// See [`Task::Seed`] and [`Task::Finish`].
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
    /// See [`Task::Paired`].
    Paired(PairedLook),
    /// See [`Task::OwnService`].
    OwnService(OwnService),
    /// See [`Task::Probe`].
    Probe(ProbeReport),
    /// See [`Task::Mint`].
    Minted(MintedLink),
    /// See [`Task::Describe`]; `None` when nobody answers.
    Descriptor(Option<Descriptor>),
    /// See [`Task::Rehearse`].
    Rehearsal(Box<RehearsalReport>),
    /// The task could not be done.
    Failed(TaskError),
}

/// What came of [`Task::SeedLive`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "seeded", rename_all = "kebab-case")]
pub enum Seeded {
    /// There is a live copy, and the worker waits for [`Task::Finish`].
    Live(LiveSeed),
    /// The copy has to be made when the server is stopped ([`Task::Seed`]).
    Later {
        /// Why, for people.
        why: String,
    },
}

/// A live copy for the new version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveSeed {
    /// Bytes copied.
    pub bytes: u64,
    /// How it was made.
    pub method: SeedMethod,
    /// Highest migration applied.
    pub migration_level: Option<u32>,
    /// How long it took to copy and sync everything, in ms.
    pub copied_ms: u64,
    /// How long the check of the copy took, in ms.
    pub checked_ms: u64,
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
    /// Until when it is good, as t3 says it.
    #[serde(default, rename = "expiresAt")]
    pub expires_at: Option<String>,
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
    /// Something else that is the user's: a name that is gone or shut, a database of another shape.
    Theirs,
    /// Anything else.
    Other,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::domain::{BusyReason, Device, LauncherState, Paired, ProbeStep, StepOutcome, StepRecord};

    fn spec() -> ProbeSpec {
        ProbeSpec {
            address: "127.0.0.1:3773".to_owned(),
            cli: "/v/bin/t3".into(),
            node: "/usr/bin/node".into(),
            base_dir: "/home/a/.t3".into(),
            expect_version: "0.0.25".parse().unwrap(),
            expect_environment_id: None,
            pair_endpoints: vec!["/a".to_owned()],
            dispatch: Some(("https://h".to_owned(), "X".to_owned())),
            request_timeout_ms: 1,
            start_deadline_ms: 2,
            start_ceiling_ms: 3,
            control_group: None,
        }
    }

    fn probe() -> ProbeReport {
        let outcome = StepOutcome::Failed { reason: "r".to_owned(), contract_moved: true };
        let steps = vec![StepRecord { step: ProbeStep::Exchange, outcome, ms: 1 }];
        ProbeReport { steps, descriptor: None, endpoint: None, ms: 1 }
    }

    #[test]
    fn every_task_crosses_the_pipe_unchanged() {
        let dir = || PathBuf::from("/home/a");
        let tasks = [
            Task::CopyLive { userdata: dir(), dest: dir() },
            Task::SeedLive { userdata: dir(), dest: dir() },
            Task::Finish,
            Task::Seed { userdata: dir(), dest: dir() },
            Task::SwitchIn { seed: dir(), userdata: dir() },
            Task::Discard { path: dir() },
            Task::Look { userdata: dir() },
            Task::Lookout { userdata: dir() },
            Task::Marks { userdata: dir() },
            Task::Paired { userdata: dir(), sessions: vec!["s".to_owned()], links: vec!["l".to_owned()] },
            Task::OwnService { home: dir(), base_dir: dir() },
            Task::Merge { dir: dir() },
            Task::Probe(spec()),
            Task::Describe { address: "x".to_owned() },
            Task::Mint(MintSpec {
                cli: dir(),
                node: dir(),
                base_dir: dir(),
                ttl: PairingTtl::default(),
                label: Some("phone".parse().unwrap()),
                replaces: Some("l".to_owned()),
            }),
            Task::Rehearse(RehearseSpec { probe: spec(), port: 1, home: dir() }),
        ];
        for task in tasks {
            let heard = read_task(&task_line(&task).unwrap()).unwrap();
            assert_eq!(format!("{heard:?}"), format!("{task:?}"));
        }
    }

    #[test]
    fn every_answer_crosses_the_pipe_unchanged() {
        let rehearsal = RehearsalReport {
            probe: probe(),
            level_before: Some(30),
            level_after: None,
            start_ms: 1,
            total_ms: 2,
            sessions_lost: 3,
            lost: Paired { devices: vec![Device { session: "s".to_owned(), ..Device::default() }], more: 2 },
            work_lost: 4,
            intact: true,
            output_tail: vec!["x".to_owned()],
        };
        let marks = WorkMarks { tables: [("t".to_owned(), 1)].into() };
        let seed = SeedReport {
            originals: vec![],
            migration_level: None,
            bytes: 1,
            method: SeedMethod::Copy,
            late_bytes: 0,
            log: true,
            attachments: None,
        };
        let answers = [
            Answer::Done,
            Answer::LiveCopy(LiveCopyReport { bytes: 1, migration_level: Some(1), sessions: 2, taken_ms: 3 }),
            Answer::Seed(seed),
            Answer::Seeded(Seeded::Later { why: "w".to_owned() }),
            Answer::Seeded(Seeded::Live(LiveSeed {
                bytes: 1,
                method: SeedMethod::LiveCopy,
                migration_level: None,
                copied_ms: 2,
                checked_ms: 3,
            })),
            Answer::Activity(Activity::Idle { last_activity_ms: None }),
            Answer::Activity(Activity::Busy { reasons: vec![BusyReason::PendingInput { count: 1 }] }),
            Answer::OwnService(OwnService {
                units: vec![],
                state: Some(LauncherState { path: "/s".into(), active_version: Err("e".to_owned()), updating_to: None }),
            }),
            Answer::Marks { marks, migration_level: None, sessions: 0 },
            Answer::Paired(PairedLook { used: ["l".to_owned()].into(), ..PairedLook::default() }),
            Answer::Probe(probe()),
            Answer::Descriptor(None),
            Answer::Descriptor(Some(Descriptor { server_version: None, environment_id: "e".to_owned() })),
            Answer::Rehearsal(Box::new(rehearsal)),
            Answer::Failed(TaskError { kind: TaskErrorKind::Locked, message: "m".to_owned() }),
        ];
        for answer in answers {
            let heard = read_answer(&answer_line(&answer).unwrap()).unwrap();
            assert_eq!(format!("{heard:?}"), format!("{answer:?}"));
        }
    }

    #[test]
    fn a_message_of_another_version_of_the_program_is_told_from_nonsense() {
        let line = String::from_utf8(answer_line(&Answer::Done).unwrap()).unwrap();
        let newer = line.replace("\"protocol\":1", "\"protocol\":2").replace("done", "never-heard-of");
        assert!(read_answer(newer.as_bytes()).unwrap_err().contains("upgraded in between"));
        for nonsense in [
            "",
            "{}",
            "[]",
            "{\"protocol\":1}",
            "{\"protocol\":-1,\"message\":{\"answer\":\"done\"}}",
            &line.replace("done", "x"),
        ] {
            let said = read_answer(nonsense.as_bytes()).unwrap_err();
            assert!(!said.contains("upgraded"), "{nonsense}: {said}");
        }
    }

    #[test]
    fn a_minted_link_never_shows_its_credential() {
        let link = MintedLink { id: "i".to_owned(), credential: "ABCD2345EFGH".to_owned(), expires_at: None };
        assert!(!format!("{link:?}").contains("ABCD"));
    }
}
