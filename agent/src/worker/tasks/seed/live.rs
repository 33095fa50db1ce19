//! The copy for the new version, made while the server runs and brought up to its last write afterwards.
//!
//! From [`begin`] until [`Live`] is dropped a read transaction is held. While it is there (sqlite.org/walformat.html, "locks"):
//! no checkpoint writes pages into the database that are newer than its mark; the log is begun anew at most once, and only when
//! all of it was in the database already; and the server's own end is not the last close, so the log stays. So whatever is
//! committed after the mark is in the frames of the log, and nowhere else. The database itself is copied as it lies, the pages of
//! all frames up to the present are laid over the copy. After the server was stopped the pages of the frames that came since are written beside the copy as
//! a log of its own, in one go: written to where they belong, they would be thousands of small writes all over a large file, which a
//! disk takes seconds for. The new version's SQLite lays them over, as it does with any log that it finds.
//!
//! Readers do not lock writers out in WAL mode, and in no other: there nothing is held ([`NotLive::Unfit`]). The log grows
//! while it is held, so it is held for a limited time and a limited growth ([`Live::is_too_much`]).
//!
//! POSIX locks belong to the process, and closing any descriptor of a file drops them all (SNAPSHOTS, trap 4; sqlite.org,
//! "How To Corrupt", 2.2): the database is opened once beside SQLite and closed after it, never in between. The fields of [`Live`]
//! are in that order.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;

use super::super::database::{Database, task_error};
use super::super::work_copy::{DATABASE, empty, fresh, open_userdata};
use super::copy::{self, Copied, lay_over};
use super::wal::{self, Change, Mark};
use crate::domain::{ATTACHMENTS, EntryKind, STATE_ENTRIES, SeedMethod, SeedReport, StateEntry, copied_entries};
use crate::worker::files::{
    Deadline, Dir, FileError, Listing, Seen, close, copy_entries, dress, hash_file, keep_alike, lying, refuse_hollow,
    remove_tree, sync_tree,
};
use crate::worker::protocol::{LiveSeed, TaskError, TaskErrorKind};

const LOG: &str = "state.sqlite-wal";
const JOURNAL: &str = "state.sqlite-journal";
/// So long the read transaction is held at most.
const HELD: Duration = Duration::from_secs(20 * 60);
/// So large the log may become meanwhile, in bytes.
const GROWN: u64 = 512 << 20;
/// Work on a connection is interrupted after this; longer than anything here is allowed to take.
const CONNECTION: Duration = Duration::from_secs(3600);
/// How often the log is asked for before a server that begins it anew at that very moment is given up on.
const TRIES: usize = 3;

/// Why there is no live copy.
#[derive(Debug)]
pub enum NotLive {
    /// It cannot be made here and now; one can be made when the server is stopped.
    Unfit(String),
    /// Something is wrong with the data or the disk: the server is better left running.
    Failed(TaskError),
}

impl<E: Into<TaskError>> From<E> for NotLive {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// A copy that is as new as when it was last caught up, and the transaction that keeps what comes after it. Fields are
/// dropped in this order: see the module's text.
pub struct Live {
    _held: Database,
    asked: Database,
    main: File,
    log: File,
    target: File,
    source: Dir,
    copy: Dir,
    main_seen: Seen,
    log_seen: Seen,
    page_size: u32,
    mark: Option<Mark>,
    others: Vec<StateEntry>,
    attached: Option<Listing>,
    level: Option<u32>,
    method: SeedMethod,
    since: Instant,
}

/// Makes the copy of the state in `userdata` at `dest` (mode 0700; replaced if there) beside the running server, checks it
/// (`quick_check`) and syncs it.
pub fn begin(userdata: &Path, dest: &Path) -> Result<(Live, LiveSeed), NotLive> {
    let owner = rustix::process::geteuid().as_raw();
    let Some(source) = open_userdata(userdata, owner)? else { return unfit("there is no data yet") };
    let path = userdata.join(DATABASE);
    let Some(seen) = source.stat(DATABASE)? else { return unfit("there is no database yet") };
    if seen.check(&path, owner)? != EntryKind::File {
        return Err(FileError::bad(path, "is a directory").into());
    }
    if seen.bytes == 0 {
        return Err(empty(&path).into());
    }
    if source.stat(LOG)?.is_none() {
        return unfit("nobody has the database open");
    }
    let (main, main_seen) = source.file(DATABASE, owner)?;
    let main = main.into_kernel().map_err(source.failed("opening", DATABASE))?;
    let page_size = match page_size_in_wal_mode(&main).map_err(source.failed("reading", DATABASE))? {
        Some(size) => size,
        None => return unfit("the database is not in WAL mode, where a reader would lock the server out"),
    };
    let copy = fresh(dest)?;
    refuse_hollow(&source, DATABASE, &main_seen, &copy)?;
    // As large as they may be, no log grows because of them: what changes until the stop is brought over then.
    let (attached, _) = keep_alike(&source, ATTACHMENTS, owner, &copy, None)?;
    let held = open(&path)?;
    let asked = open(&path)?;
    held.connection().execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;").or_else(|error| locked(&path, error))?;
    let (log, log_seen) = source.file(LOG, owner)?;
    let log = log.into_kernel().map_err(source.failed("opening", LOG))?;
    if !source.stat(DATABASE)?.is_some_and(|now| now.is_same(&main_seen)) {
        return unfit("the database was replaced at this very moment");
    }
    let target = copy.create(DATABASE)?.into_kernel().map_err(copy.failed("making", DATABASE))?;
    let mut live = Live {
        _held: held,
        asked,
        main,
        log,
        target,
        source,
        copy,
        main_seen,
        log_seen,
        page_size,
        mark: None,
        others: Vec::new(),
        attached,
        level: None,
        method: SeedMethod::LiveCopy,
        since: Instant::now(),
    };
    let begun = Instant::now();
    let copied = live.copy_database()?;
    let copied_ms = ms(begun);
    let checking = Instant::now();
    copy::read_back(&live.target, copied).map_err(live.copy.failed("reading back", DATABASE))?;
    live.catch_up().map_err(worthless)?;
    let bytes = live.copy_others()?;
    live.level = live.check()?;
    let checked_ms = ms(checking);
    live.catch_up().map_err(worthless)?;
    live.target.sync_data().map_err(live.copy.failed("syncing", DATABASE))?;
    let report = LiveSeed { bytes, method: live.method, migration_level: live.level, copied_ms, checked_ms };
    Ok((live, report))
}

fn ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn unfit<T>(why: &str) -> Result<T, NotLive> {
    Err(NotLive::Unfit(why.to_owned()))
}

fn locked(path: &Path, error: rusqlite::Error) -> Result<(), NotLive> {
    let error = task_error(&format!("opening {}", path.display()), &error);
    match error.kind {
        TaskErrorKind::Locked => Err(NotLive::Unfit(error.message)),
        _ => Err(NotLive::Failed(error)),
    }
}

/// A connection that leaves everything as it is when it is closed.
fn open(path: &Path) -> Result<Database, TaskError> {
    let database = Database::open_source(path, CONNECTION)?;
    database
        .connection()
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(|error| task_error("opening the database", &error))?;
    Ok(database)
}

/// The page size of a database in WAL mode (sqlite.org/fileformat2.html, section 1.3); `None` when it is in another mode.
fn page_size_in_wal_mode(main: &File) -> std::io::Result<Option<u32>> {
    let mut head = [0; 100];
    wal::read_at(main, &mut head, 0)?;
    let in_wal_mode = head.starts_with(b"SQLite format 3\0") && head[18..20] == [2, 2];
    let size = match u32::from(u16::from_be_bytes([head[16], head[17]])) {
        1 => 65_536,
        size => size,
    };
    Ok((in_wal_mode && size >= 512 && size.is_power_of_two()).then_some(size))
}

impl Live {
    /// The whole database as it lies, synced.
    fn copy_database(&mut self) -> Result<Copied, NotLive> {
        let copied = copy::copy_all(&self.main, &self.target, &|| self.is_too_much());
        let Some(copied) = copied.map_err(self.copy.failed("copying", DATABASE))? else {
            return unfit("the server writes more than a copy beside it can bear");
        };
        if matches!(copied, Copied::Cloned) {
            self.method = SeedMethod::LiveReflink;
        }
        Ok(copied)
    }

    /// The other entries, synced. Returns the bytes of the whole copy.
    fn copy_others(&mut self) -> Result<u64, NotLive> {
        let owner = self.main_seen.uid;
        let others: Vec<&str> = copied_entries().into_iter().filter(|name| is_small(name)).collect();
        if let Some(name) = super::stopped::misplaced(&self.source)? {
            return Err(FileError::bad(self.source.path().join(name), "is a directory, or is none where one belongs").into());
        }
        self.others = copy_entries(&self.source, &others, owner, &self.copy, Deadline::NONE)?.0;
        for entry in self.others.iter().filter(|entry| !entry.path.contains('/')) {
            match entry.kind {
                EntryKind::Directory => sync_tree(&self.copy.dir(&entry.path)?, owner)?,
                EntryKind::File => {
                    self.copy.file(&entry.path, owner)?.0.sync_all().map_err(self.copy.failed("syncing", &entry.path))?;
                }
            }
        }
        self.copy.sync()?;
        let database = self.target.metadata().map_err(self.copy.failed("looking at", DATABASE))?.len();
        let attached = self.attached.as_ref().map_or(0, |listing| listing.summary().bytes);
        Ok(database + attached + self.others.iter().map(|entry| entry.bytes).sum::<u64>())
    }

    /// Frames in the log that count, by SQLite's word (`SQLITE_CHECKPOINT_NOOP` does nothing but tell).
    fn frames(&self) -> Result<u64, TaskError> {
        let told = self.asked.connection().query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get::<_, i64>(1));
        told.map(|frames| u64::try_from(frames).unwrap_or(0)).map_err(|error| task_error("asking for the log", &error))
    }

    /// Lays what was committed since the last time over the copy.
    fn catch_up(&mut self) -> Result<(), TaskError> {
        if self.frames()? == 0 {
            return Ok(());
        }
        let (salts, change) = self.committed(false)?;
        lay_over(&self.log, &self.target, &change, self.page_size).map_err(self.copy.failed("writing", DATABASE))?;
        self.refuse_begun_anew(salts)?;
        self.mark = Some(change.mark);
        Ok(())
    }

    /// What was committed since the last time, and the salts of the log that it is in. With the server stopped that is all that is in
    /// the log, as SQLite would recover it; else what SQLite says is committed.
    fn committed(&self, stopped: bool) -> Result<(Option<[u8; 8]>, Change), TaskError> {
        let reading = || self.source.failed::<std::io::Error, _>("reading", LOG);
        for _ in 0..TRIES {
            let salts = wal::salts(&self.log).map_err(reading())?;
            let frames = self.frames()?;
            let most = (!stopped).then_some(frames);
            let Some(change) = wal::changes(&self.log, self.page_size, self.mark.as_ref(), most).map_err(reading())? else {
                if frames == 0 {
                    return Ok((salts, Change::default()));
                }
                return Err(lost("the log has no header, although it has frames"));
            };
            // Fewer frames than were read before, in the same round: it was begun anew, and nothing was committed to it yet.
            let nothing_new = salts == self.mark.map(|mark| mark.salts()) && frames < self.mark.map_or(0, |mark| mark.frames);
            if change.mark.frames >= frames || nothing_new {
                return Ok((salts, change));
            }
            // Begun anew between the question and the answer.
        }
        Err(lost("the server's log could not be read to its end"))
    }

    fn refuse_begun_anew(&self, salts: Option<[u8; 8]>) -> Result<(), TaskError> {
        match wal::salts(&self.log).map_err(self.source.failed("reading", LOG))? == salts {
            true => Ok(()),
            false => Err(lost("the server began its log anew while it was being read")),
        }
    }

    /// Writes what was committed since the last time as the copy's own log, synced. Returns its bytes.
    fn write_log(&self) -> Result<u64, TaskError> {
        let (salts, change) = self.committed(true)?;
        if change.page_count.is_none() {
            return Ok(0);
        }
        let log = self.copy.create(LOG)?.into_kernel().map_err(self.copy.failed("making", LOG))?;
        let bytes = wal::write(&change, &self.log, &log, self.page_size).map_err(self.copy.failed("writing", LOG))?;
        log.sync_data().map_err(self.copy.failed("syncing", LOG))?;
        self.refuse_begun_anew(salts)?;
        Ok(bytes)
    }

    /// `quick_check` of the copy as it is, and its migration level.
    fn check(&self) -> Result<Option<u32>, TaskError> {
        let database = Database::open_finished(&self.database_path(), CONNECTION)?;
        database.quick_check()?;
        let level = database.level()?;
        database.close()?;
        Ok(level)
    }

    fn database_path(&self) -> PathBuf {
        self.copy.path().join(DATABASE)
    }

    /// Whether the read transaction was held for too long, or the log has grown too much because of it.
    pub fn is_too_much(&self) -> bool {
        self.since.elapsed() > HELD || self.log.metadata().is_ok_and(|meta| meta.len() > GROWN)
    }

    /// With the server stopped: brings the copy up to its last write and syncs it; the names in its directory are synced when it is
    /// put in place. The originals are only read.
    pub fn finish(mut self) -> Result<SeedReport, TaskError> {
        let owner = self.main_seen.uid;
        for (name, then) in [(DATABASE, &self.main_seen), (LOG, &self.log_seen)] {
            if !self.source.stat(name)?.is_some_and(|now| now.is_same(then)) {
                return Err(lost(&format!("{name} was replaced since the copy was begun")));
            }
        }
        if self.source.stat(JOURNAL)?.is_some_and(|seen| seen.bytes > 0) {
            return Err(lost("the database was used outside of WAL mode"));
        }
        // Looked at before anything is read: what is written meanwhile shows.
        let originals = lying(&self.source, &copied_entries(), owner)?;
        let late = self.write_log()?;
        let others = self.refresh_others(owner)?;
        let (attached, brought) = keep_alike(&self.source, ATTACHMENTS, owner, &self.copy, self.attached.as_ref())?;
        let mode = originals.iter().find(|entry| entry.path == DATABASE).map_or(0o600, |entry| entry.mode);
        let mut dressed = self.others.clone();
        for name in [DATABASE, LOG] {
            if let Some(seen) = self.copy.stat(name)? {
                let (path, kind) = (name.to_owned(), EntryKind::File);
                dressed.push(StateEntry { path, kind, mode, bytes: seen.bytes, blake3: String::new() });
            }
        }
        dress(&self.copy, &dressed, None)?;
        attached.as_ref().map(|listing| close(&self.copy, listing)).transpose()?;
        let attachments = attached.map(|listing| listing.summary());
        Ok(SeedReport {
            bytes: dressed.iter().map(|entry| entry.bytes).sum::<u64>() + attachments.as_ref().map_or(0, |all| all.bytes),
            originals,
            migration_level: self.level,
            method: self.method,
            late_bytes: late + others + brought.bytes,
            log: late > 0,
            attachments,
        })
    }

    /// Copies again which of the small entries are not as they were; returns the bytes.
    fn refresh_others(&mut self, owner: u32) -> Result<u64, TaskError> {
        let mut bytes = 0;
        let mut now = Vec::new();
        for name in STATE_ENTRIES.into_iter().filter(|name| is_small(name)) {
            let lie = lying(&self.source, &[name], owner)?;
            let then: Vec<&StateEntry> = self.others.iter().filter(|entry| is_below(&entry.path, name)).collect();
            let mut same = lie.len() == then.len();
            for (is, was) in lie.iter().zip(&then) {
                same = same && is.path == was.path && is.kind == was.kind && is.bytes == was.bytes;
                if same && is.kind == EntryKind::File {
                    let (holder, last) = self.source.holder(&is.path)?;
                    same = hash_file(&holder, last, owner, Deadline::NONE)?.1 == was.blake3;
                }
            }
            if same {
                now.extend(lie.iter().zip(then).map(|(is, was)| StateEntry { mode: is.mode, ..was.clone() }));
                continue;
            }
            remove_tree(&self.copy, name)?;
            let (entries, _) = copy_entries(&self.source, &[name], owner, &self.copy, Deadline::NONE)?;
            bytes += entries.iter().map(|entry| entry.bytes).sum::<u64>();
            match entries.first().map(|entry| entry.kind) {
                Some(EntryKind::Directory) => sync_tree(&self.copy.dir(name)?, owner)?,
                Some(EntryKind::File) => {
                    self.copy.file(name, owner)?.0.sync_all().map_err(self.copy.failed("syncing", name))?;
                }
                None => {}
            }
            now.extend(entries);
        }
        self.others = now;
        Ok(bytes)
    }
}

/// An entry that is read whole in the gap: neither the database nor the attachments.
fn is_small(name: &str) -> bool {
    !name.starts_with(DATABASE) && name != ATTACHMENTS
}

fn is_below(path: &str, name: &str) -> bool {
    path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A copy that cannot keep up with its server (a log begun anew at the wrong moment) is no fault of anybody's: another one is made in
/// the gap.
fn worthless(error: TaskError) -> NotLive {
    match error.kind {
        TaskErrorKind::Theirs | TaskErrorKind::Other => NotLive::Unfit(error.message),
        _ => NotLive::Failed(error),
    }
}

/// The live copy cannot be finished; one made from scratch can take its place.
fn lost(why: &str) -> TaskError {
    TaskError { kind: TaskErrorKind::Other, message: format!("the copy made beside the server cannot be used: {why}") }
}
