//! The simulated host: disk, units, users, clock, and what goes wrong with them. It is the world under the product's own code
//! ([`World`]), and it is where everything can be seen that a promise is about.
//!
//! Every call is counted. At the calls that a schedule names, something happens: the agent dies, the power is cut, a call fails, a user
//! does something. A death of the agent is an unwinding of its stack, from the very call in which it came.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::rc::Rc;

use t3pin::domain::{Account, EntryKind};
use t3pin::simulated::{
    Answer, Errno, LiveCopyReport, Seen, Target, Task, TaskError, TaskErrorKind, WorkerError, World, perform,
};

use crate::disk::{Disk, Ino, Kind, ROOT};
use crate::promises::{self, Broken, Memory};
use crate::rng::Rng;
use crate::schedule::{At, DiskError, Fault, HostError, Order, Stage, Trap, What};
use crate::t3::Database;
use crate::unit::Unit;

/// How the agent died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// SIGKILL.
    Killed,
    /// The power was cut.
    PowerCut(u64),
}

/// The payload of the unwinding that a death is.
#[derive(Debug)]
pub struct Died(pub Death);

/// A user of the host's.
#[derive(Debug)]
pub struct User {
    /// Name, ids, home.
    pub account: Account,
    /// Their server's unit.
    pub unit: Unit,
    /// A turn is in flight.
    pub turn: bool,
    /// So many looks cannot tell.
    pub unreadable: u32,
    /// The last look could not tell.
    pub untold: bool,
    /// Files that processes outside of the server have open.
    pub holders: Vec<Ino>,
    /// The account is gone.
    pub deleted: bool,
    /// The user has changed their own data behind everybody's back.
    pub trapped: bool,
    /// Somebody entitled to it said that work in flight does not count.
    pub forced: bool,
    /// The server is found sick so many times.
    pub sick: u32,
    /// What is remembered of the data, to compare with.
    pub memory: Memory,
    /// When something was last written.
    pub wrote_ms: i64,
}

impl User {
    /// The name.
    pub fn name(&self) -> &str {
        self.account.user.as_str()
    }

    /// Where t3 keeps the data.
    pub fn userdata(&self) -> String {
        format!("/home/{}/.t3/userdata", self.name())
    }
}

/// All of the host.
#[derive(Debug)]
pub struct Inner {
    /// The disk.
    pub disk: Disk,
    /// The users.
    pub users: Vec<User>,
    /// What the schedule is about.
    pub stage: Stage,
    /// The clock.
    pub now_ms: i64,
    /// Calls so far.
    pub calls: u64,
    /// What was broken.
    pub broken: Vec<Broken>,
    /// Orders that wait for the agent.
    pub orders: VecDeque<(usize, Order)>,
    /// Which version has opened which database, ever.
    pub opened: BTreeMap<Ino, String>,
    /// Failures that are still to come.
    pub disk_fails: Option<(DiskError, u32)>,
    /// The same of everything else.
    pub host_fails: Option<(HostError, u32)>,
    /// The same of the ledger: how many, and whether they were written all the same.
    pub ledger_fails: Option<(u32, bool)>,
    /// Looks at soaks that tell nothing.
    pub dim: u32,
    /// Something happened that no check from outside can tell from a fault of the version's.
    pub misleading: bool,
    /// The last number that was given to anything.
    pub number: u64,
    /// What the ledger holds.
    pub book: crate::ledger::Book,
    faults: Vec<Fault>,
    uid: u32,
    trace: Option<Vec<String>>,
    archive: promises::ArchiveCache,
}

/// The host, shared between the world, the agent and whoever looks on.
#[derive(Debug)]
pub struct Machine {
    /// All of it.
    pub inner: RefCell<Inner>,
}

impl Machine {
    /// A host as `stage` wants it, with everybody's servers running.
    pub fn new(stage: Stage, faults: &[Fault], traced: bool) -> Rc<Self> {
        let mut disk = Disk::new();
        for path in [
            "/home",
            "/etc",
            "/var/lib/t3pin/snapshots",
            "/var/lib/t3pin/custody",
            "/var/lib/t3pin/holds",
            "/var/lib/t3pin/bindings",
        ] {
            make_directories(
                &mut disk,
                path,
                (0, 0),
                if path.ends_with("custody") || path.ends_with("snapshots") { 0o700 } else { 0o755 },
            );
        }
        put_file(&mut disk, "/etc/precious", (0, 0), promises::PRECIOUS);
        let users = (0..stage.users).map(|at| new_user(&mut disk, at)).collect();
        disk.sync_all();
        let inner = Inner {
            disk,
            users,
            stage,
            now_ms: 1_800_000_000_000,
            calls: 0,
            broken: Vec::new(),
            orders: VecDeque::new(),
            opened: BTreeMap::new(),
            disk_fails: None,
            host_fails: None,
            ledger_fails: None,
            dim: 0,
            misleading: false,
            number: 100,
            book: crate::ledger::Book::default(),
            faults: faults.to_vec(),
            uid: 0,
            trace: traced.then(Vec::new),
            archive: promises::ArchiveCache::default(),
        };
        let machine = Rc::new(Self { inner: RefCell::new(inner) });
        machine.with(|inner| {
            (0..inner.users.len()).for_each(|user| {
                inner.start_unit(user).ok();
                inner.users[user].unit.hand_over();
            });
        });
        machine
    }

    /// Looks at, or changes, the host.
    pub fn with<T>(&self, ask: impl FnOnce(&mut Inner) -> T) -> T {
        ask(&mut self.inner.borrow_mut())
    }

    /// Something is written down for whoever replays the schedule.
    pub fn say(&self, what: impl FnOnce() -> String) {
        self.with(|inner| inner.say(what));
    }

    /// All that was written down since this was asked last.
    pub fn take_trace(&self) -> Vec<String> {
        self.with(|inner| inner.trace.as_mut().map(std::mem::take).unwrap_or_default())
    }

    /// A call begins: time passes, and what the schedule has for it happens.
    fn begin(&self, what: impl FnOnce() -> String) {
        let death = self.with(|inner| {
            inner.now_ms += 2;
            inner.calls += 1;
            let call = inner.calls;
            inner.say(what);
            inner.happen(At::Call(call))
        });
        if let Some(death) = death {
            std::panic::resume_unwind(Box::new(Died(death)));
        }
    }

    /// A round of the agent's begins.
    pub fn begin_round(&self, round: u32) {
        let death = self.with(|inner| {
            inner.say(|| format!("-- round {round}"));
            inner.happen(At::Round(round))
        });
        if let Some(death) = death {
            std::panic::resume_unwind(Box::new(Died(death)));
        }
    }

    /// A call to the disk that changes something or takes its time.
    fn disk_call(&self, what: impl FnOnce() -> String, writes: bool) -> Result<(), Errno> {
        self.begin(what);
        self.with(|inner| {
            let Some((error, left)) =
                inner.disk_fails.filter(|(error, left)| *left > 0 && (writes || *error != DiskError::NoSpace))
            else {
                return Ok(());
            };
            inner.disk_fails = Some((error, left - 1));
            inner.say(|| format!("   fails: {error:?}"));
            Err(match error {
                DiskError::NoSpace => Errno::NOSPC,
                DiskError::Io => Errno::IO,
                DiskError::Access => Errno::ACCESS,
            })
        })
    }

    /// A call to something else than the disk.
    pub fn host_call(&self, what: impl FnOnce() -> String) -> Result<(), HostError> {
        self.begin(what);
        self.with(|inner| {
            let Some((error, left)) = inner.host_fails.filter(|(_, left)| *left > 0) else { return Ok(()) };
            inner.host_fails = Some((error, left - 1));
            inner.say(|| format!("   fails: {error:?}"));
            inner.misleading |= error == HostError::UnitFailed;
            Err(error)
        })
    }

    /// A call to the ledger: `Some` when it is to fail, with whether it is written all the same.
    pub fn ledger_call(&self, what: impl FnOnce() -> String) -> Option<bool> {
        self.begin(what);
        self.with(|inner| {
            let (left, written) = inner.ledger_fails.filter(|(left, _)| *left > 0)?;
            inner.ledger_fails = Some((left - 1, written));
            inner.say(|| format!("   fails, {}", if written { "but is written" } else { "and is not written" }));
            Some(written)
        })
    }

    /// The directory of bindings: what a user is bound to.
    pub fn binding(&self, user: &str) -> Option<String> {
        self.with(|inner| inner.binding(user))
    }

    /// Binds, as the product does: a new file, renamed over the old one, the directory synced.
    pub fn bind(&self, user: &str, version: &str) -> Result<(), Errno> {
        let dir = self.with(|inner| inner.disk.at("/var/lib/t3pin/bindings")).ok_or(Errno::NOENT)?;
        let draft = OsString::from(format!(".{user}.new"));
        self.disk_call(|| format!("bind {user} to {version}: draft"), true)?;
        self.with(|inner| {
            inner.disk.remove(dir, &draft, false).ok();
            let now_ns = inner.now_ms * 1_000_000;
            let made = inner.disk.create(dir, &draft, Kind::File, (0, 0), 0o644, now_ns)?;
            inner.disk.append(made, version.as_bytes(), now_ns)?;
            // A symbolic link is whole as soon as it has a name.
            inner.disk.sync(made)
        })?;
        self.disk_call(|| format!("bind {user} to {version}: rename"), true)?;
        self.with(|inner| inner.disk.rename((dir, &draft), (dir, OsStr::new(user)), Target::Replaced))?;
        self.disk_call(|| format!("bind {user} to {version}: sync"), true)?;
        self.with(|inner| inner.disk.sync(dir))
    }

    /// After a death: what it takes with it, and the start of what starts by itself.
    pub fn after(&self, death: Death) {
        self.with(|inner| {
            inner.uid = 0;
            match death {
                Death::Killed => inner.users.iter_mut().for_each(|user| user.unit.thaw()),
                Death::PowerCut(chance) => {
                    (0..inner.users.len()).for_each(|user| inner.lose_power(user));
                    inner.disk.crash(&mut Rng::new(chance));
                    if inner.stage.servers_first {
                        inner.boot();
                    }
                }
            }
            inner.check();
        });
    }

    /// The servers that the power cut has ended start again.
    pub fn boot(&self) {
        self.with(Inner::boot);
    }
}

impl Inner {
    /// Writes something down.
    pub fn say(&mut self, what: impl FnOnce() -> String) {
        let (calls, now_ms) = (self.calls, self.now_ms);
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{calls:>5} {:>9} {}", now_ms - 1_800_000_000_000, what()));
        }
    }

    /// A promise is broken.
    pub fn broke(&mut self, promise: u8, what: String) {
        self.say(|| format!("!! promise {promise} is broken: {what}"));
        if self.broken.len() < 20 {
            self.broken.push(Broken { promise, what });
        }
    }

    /// A number that nothing has had.
    pub fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// What a user is bound to.
    pub fn binding(&self, user: &str) -> Option<String> {
        let content = self.disk.content(&format!("/var/lib/t3pin/bindings/{user}"))?;
        String::from_utf8(content.to_vec()).ok()
    }

    /// Looks whether everything is where it must be at every instant.
    pub fn check(&mut self) {
        if !self.broken.is_empty() {
            return;
        }
        let mut archive = std::mem::take(&mut self.archive);
        if let Err(broken) = promises::nothing_is_lost(&self.disk, &self.users, &mut archive) {
            self.broke(broken.promise, broken.what);
        }
        self.archive = archive;
    }

    /// Nothing that the schedule has comes any more, and what has come is over.
    pub fn forget_faults(&mut self) {
        self.faults.clear();
        self.orders.clear();
        (self.disk_fails, self.host_fails, self.ledger_fails, self.dim) = (None, None, None, 0);
        self.disk.free = crate::disk::ROOM;
        for user in &mut self.users {
            (user.turn, user.unreadable, user.untold, user.sick) = (false, 0, false, 0);
            user.holders.clear();
        }
    }

    fn boot(&mut self) {
        for user in 0..self.users.len() {
            self.say(|| format!("   boot: starts unit of user {user}"));
            self.start_unit(user).ok();
            self.users[user].unit.hand_over();
        }
    }

    /// Lets happen what the schedule has for this moment. Returns how the agent dies, if it does.
    fn happen(&mut self, now: At) -> Option<Death> {
        if self.faults.iter().all(|fault| fault.at != now) {
            return None;
        }
        let (due, later): (Vec<Fault>, Vec<Fault>) = self.faults.iter().partition(|fault| fault.at == now);
        self.faults = later;
        let mut death = None;
        for fault in due {
            self.say(|| format!("** {:?}", fault.what));
            match fault.what {
                What::Kill => death = death.or(Some(Death::Killed)),
                What::PowerCut(chance) => death = Some(Death::PowerCut(chance)),
                other => self.apply(other),
            }
        }
        death
    }

    fn apply(&mut self, what: What) {
        match what {
            What::Kill | What::PowerCut(_) => {}
            What::Disk(error, times) => self.disk_fails = Some((error, times)),
            What::Host(error, times) => self.host_fails = Some((error, times)),
            What::Ledger { times, written } => self.ledger_fails = Some((times, written)),
            What::Full(free) => self.disk.free = free,
            What::Room => self.disk.free = crate::disk::ROOM,
            What::TurnBegins(user) => {
                if self.users[user].unit.can_be_used() {
                    self.write_row(user);
                    self.users[user].turn = true;
                }
            }
            What::TurnEnds(user) => self.users[user].turn = false,
            What::Writes(user) => self.write_row(user),
            What::Unreadable(user, times) => self.users[user].unreadable = times,
            What::HomeGone(user) => {
                self.misleading = true;
                self.kill_unit(user);
                if let Some(home) = self.disk.at(&format!("/home/{}", self.users[user].name())) {
                    self.disk.hidden.insert(home);
                }
            }
            What::HomeBack(user) => self.home_back(user),
            What::AccountDeleted(user) => {
                self.misleading = true;
                self.kill_unit(user);
                self.users[user].deleted = true;
            }
            What::Opened(user) => {
                if let Some(database) = self.disk.at(&format!("{}/state.sqlite", self.users[user].userdata())) {
                    self.users[user].holders.push(database);
                }
            }
            What::ClosedAgain(user) => self.users[user].holders.clear(),
            What::Clock(by) => self.now_ms += by,
            What::Trap(user, trap) => self.spring(user, trap),
            What::Restarted(user) => {
                self.stop_unit(user);
                self.start_unit(user).ok();
                self.users[user].unit.hand_over();
            }
            What::Order(user, order) => self.orders.push_back((user, order)),
            What::Sick(user, times) => {
                self.misleading = true;
                self.users[user].sick = times;
            }
            What::Dim(times) => self.dim = times,
        }
    }

    /// The home is there again, and the server is started by whoever logs in.
    pub fn home_back(&mut self, user: usize) {
        if let Some(home) = self.disk.at(&format!("/home/{}", self.users[user].name()))
            && self.disk.hidden.remove(&home)
        {
            self.start_unit(user).ok();
            self.users[user].unit.hand_over();
        }
    }

    fn spring(&mut self, user: usize, trap: Trap) {
        let userdata = self.users[user].userdata();
        let owner = (self.users[user].account.uid, self.users[user].account.gid);
        let now_ns = self.now_ms * 1_000_000;
        let away = OsStr::new("away");
        self.misleading = true;
        match trap {
            Trap::NoCopy => {
                let work = format!("/home/{}/.t3/.t3pin", self.users[user].name());
                let copies = self.disk.at(&work).and_then(|dir| self.disk.names(dir).ok().cloned()).unwrap_or_default();
                for copy in copies.keys() {
                    let path = format!("{work}/{}/seed", copy.to_string_lossy());
                    if let Some(seed) = self.disk.at(&path) {
                        self.disk.remove(seed, OsStr::new("state.sqlite"), false).ok();
                    }
                }
            }
            Trap::LinkedUserdata => {
                let Some(base) = self.disk.at(&format!("/home/{}/.t3", self.users[user].name())) else { return };
                let name = OsStr::new("userdata");
                if self.disk.rename((base, name), (base, away), Target::Free).is_ok() {
                    self.users[user].trapped = true;
                    self.disk.create(base, name, Kind::Link, owner, 0o777, now_ns).ok();
                }
            }
            Trap::LinkedDatabase | Trap::HardLink => {
                let Some(dir) = self.disk.at(&userdata) else { return };
                let name = OsStr::new("state.sqlite");
                if self.disk.rename((dir, name), (dir, away), Target::Free).is_err() {
                    return;
                }
                self.users[user].trapped = true;
                match (trap, self.disk.at("/etc/precious")) {
                    (Trap::HardLink, Some(precious)) => drop(self.disk.link(precious, dir, name)),
                    _ => drop(self.disk.create(dir, name, Kind::Link, owner, 0o777, now_ns)),
                }
            }
        }
    }
}

impl World for Machine {
    fn open(&self, from: Option<u64>, path: &Path) -> Result<u64, Errno> {
        self.with(|inner| {
            let found = inner.disk.walk(from.unwrap_or(ROOT), path)?;
            match inner.disk.look(found)?.0 {
                Kind::Directory => Ok(found),
                Kind::Link => Err(Errno::LOOP),
                Kind::File => Err(Errno::NOTDIR),
            }
        })
    }

    fn find(&self, dir: u64, name: &OsStr) -> Result<u64, Errno> {
        self.with(|inner| inner.disk.find(dir, name))
    }

    fn look(&self, node: u64) -> Result<Seen, Errno> {
        self.with(|inner| {
            let (kind, inside, links) = inner.disk.look(node)?;
            let (kind, what) = match kind {
                Kind::File => (Some(EntryKind::File), "is a regular file"),
                Kind::Directory => (Some(EntryKind::Directory), "is a directory"),
                Kind::Link => (None, "is a symbolic link"),
            };
            Ok(Seen {
                kind,
                what,
                uid: inside.owner.0,
                mode: inside.mode,
                nlink: u64::from(links),
                bytes: inside.data.len() as u64,
                allocated: inside.data.len() as u64,
                dev: 1,
                ino: node,
                mtime_ns: i128::from(inside.mtime_ns),
            })
        })
    }

    fn names(&self, dir: u64) -> Result<Vec<OsString>, Errno> {
        self.with(|inner| Ok(inner.disk.names(dir)?.keys().cloned().collect()))
    }

    fn create(&self, dir: u64, name: &OsStr, kind: EntryKind) -> Result<u64, Errno> {
        self.disk_call(|| format!("create {} in {dir}", name.to_string_lossy()), true)?;
        self.with(|inner| {
            inner.may_change(dir)?;
            let kind = if kind == EntryKind::File { Kind::File } else { Kind::Directory };
            if inner.uid == 0 && inner.disk.look(dir)?.1.owner.0 != 0 && kind == Kind::File && !inner.in_custody(dir) {
                inner.broke(8, format!("root made the file {} in a user's directory", name.to_string_lossy()));
            }
            let (mode, now_ns) = (if kind == Kind::File { 0o600 } else { 0o700 }, inner.now_ms * 1_000_000);
            inner.disk.create(dir, name, kind, (inner.uid, inner.uid), mode, now_ns)
        })
    }

    fn rename(&self, from: (u64, &OsStr), to: (u64, &OsStr), target: Target) -> Result<(), Errno> {
        let words = || format!("rename {} in {} to {} in {}", from.1.to_string_lossy(), from.0, to.1.to_string_lossy(), to.0);
        self.disk_call(words, true)?;
        self.with(|inner| {
            inner.may_change(from.0)?;
            inner.may_change(to.0)?;
            inner.disk.rename(from, to, target)?;
            inner.check();
            Ok(())
        })
    }

    fn remove(&self, dir: u64, name: &OsStr, directory: bool) -> Result<(), Errno> {
        self.disk_call(|| format!("remove {} in {dir}", name.to_string_lossy()), false)?;
        self.with(|inner| {
            inner.may_change(dir)?;
            inner.disk.remove(dir, name, directory)?;
            inner.check();
            Ok(())
        })
    }

    fn sync(&self, node: u64) -> Result<(), Errno> {
        self.disk_call(|| format!("sync {node}"), true)?;
        self.with(|inner| inner.disk.sync(node))
    }

    fn dress(&self, node: u64, owner: Option<(u32, u32)>, mode: u32) -> Result<(), Errno> {
        self.disk_call(|| format!("dress {node} {owner:?} {mode:o}"), false)?;
        self.with(|inner| inner.disk.dress(node, owner, mode))
    }

    fn read(&self, node: u64) -> Result<Rc<[u8]>, Errno> {
        self.with(|inner| {
            if let Some((error, left)) = inner.disk_fails.filter(|(error, left)| *left > 0 && *error != DiskError::NoSpace) {
                inner.disk_fails = Some((error, left - 1));
                return Err(if error == DiskError::Io { Errno::IO } else { Errno::ACCESS });
            }
            let content: &[u8] = &inner.disk.look(node)?.1.data;
            Ok(content.into())
        })
    }

    fn append(&self, node: u64, content: &[u8]) -> Result<(), Errno> {
        self.disk_call(|| format!("write {} bytes to {node}", content.len()), true)?;
        self.with(|inner| {
            let now_ns = inner.now_ms * 1_000_000;
            inner.disk.append(node, content, now_ns)
        })
    }

    fn free(&self, _node: u64) -> Result<u64, Errno> {
        Ok(self.with(|inner| inner.disk.free))
    }

    fn uid(&self) -> u32 {
        self.with(|inner| inner.uid)
    }

    fn holders(&self, owner: u32, _server: &str, files: &[u64]) -> Vec<String> {
        self.with(|inner| {
            let users = inner.users.iter().filter(|user| user.account.uid == owner);
            let held: BTreeSet<Ino> = users.flat_map(|user| user.holders.iter().copied()).collect();
            files.iter().filter(|file| held.contains(file)).map(|file| format!("a process ({file})")).collect()
        })
    }

    fn work(&self, account: &Account, task: &Task) -> Result<Answer, WorkerError> {
        let failed = |error: HostError| WorkerError::Io {
            user: account.user.to_string(),
            source: std::io::Error::other(format!("{error:?}")),
        };
        self.host_call(|| format!("worker of {}", account.user)).map_err(failed)?;
        self.with(|inner| inner.uid = account.uid);
        let as_user = AsUser(self);
        let answer = match task.clone() {
            Task::CopyLive { userdata, dest } => perform(Task::Seed { userdata, dest }).map(|answer| match answer {
                Answer::Seed(seed) => Answer::LiveCopy(LiveCopyReport {
                    bytes: seed.bytes,
                    migration_level: seed.migration_level,
                    sessions: 0,
                    taken_ms: self.with(|inner| inner.now_ms),
                }),
                other => other,
            }),
            task => perform(task),
        };
        drop(as_user);
        answer.map_err(WorkerError::Task)
    }

    fn finish_database(&self, dir: u64) -> Result<Option<u32>, TaskError> {
        self.with(|inner| inner.finish_database(dir))
    }

    fn now_ns(&self) -> i64 {
        self.with(|inner| inner.now_ms) * 1_000_000
    }
}

/// While a worker works.
struct AsUser<'m>(&'m Machine);

impl Drop for AsUser<'_> {
    fn drop(&mut self) {
        if let Ok(mut inner) = self.0.inner.try_borrow_mut() {
            inner.uid = 0;
        }
    }
}

impl Inner {
    fn may_change(&self, dir: Ino) -> Result<(), Errno> {
        let owner = self.disk.look(dir)?.1.owner.0;
        if self.uid == 0 || owner == self.uid { Ok(()) } else { Err(Errno::ACCESS) }
    }

    /// Whether a directory lies in the custody of root's: there, what is to be a user's again is built.
    fn in_custody(&self, dir: Ino) -> bool {
        fn below(disk: &Disk, at: Ino, wanted: Ino, depth: u32) -> bool {
            at == wanted
                || depth > 0
                    && disk.names(at).is_ok_and(|names| names.values().any(|child| below(disk, *child, wanted, depth - 1)))
        }
        self.disk.at("/.t3pin").is_some_and(|top| below(&self.disk, top, dir, 5))
    }

    fn finish_database(&mut self, dir: Ino) -> Result<Option<u32>, TaskError> {
        let corrupt = |what: &str| TaskError { kind: TaskErrorKind::Corrupt, message: format!("the database {what}") };
        let content = |inner: &Self, name: &str| {
            let found = inner.disk.find(dir, OsStr::new(name)).ok()?;
            inner.disk.look(found).ok().map(|(_, inside, _)| inside.data.clone())
        };
        let Some(bytes) = content(self, "state.sqlite") else { return Ok(None) };
        let mut database = Database::parse(&bytes).ok_or_else(|| corrupt("is malformed"))?;
        let now_ns = self.now_ms * 1_000_000;
        if let Some(log) = content(self, "state.sqlite-wal") {
            if !database.replay(&log) {
                return Err(corrupt("and its log do not belong together"));
            }
            database.id = self.next_number();
            if let Ok(ino) = self.disk.find(dir, OsStr::new("state.sqlite")) {
                self.disk.store(ino, database.content(), now_ns);
            }
        }
        for sidecar in ["state.sqlite-wal", "state.sqlite-shm", "state.sqlite-journal"] {
            self.disk.remove(dir, OsStr::new(sidecar), false).ok();
        }
        Ok(Some(database.level))
    }
}

fn make_directories(disk: &mut Disk, path: &str, owner: (u32, u32), mode: u32) -> Ino {
    let mut at = ROOT;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        at = match disk.find(at, OsStr::new(part)) {
            Ok(found) => found,
            Err(_) => disk.create(at, OsStr::new(part), Kind::Directory, owner, mode, 0).unwrap_or(at),
        };
    }
    at
}

fn put_file(disk: &mut Disk, path: &str, owner: (u32, u32), content: &[u8]) {
    if let Some((dir, name)) = path.rsplit_once('/') {
        let dir = make_directories(disk, dir, owner, 0o755);
        if let Ok(made) = disk.create(dir, OsStr::new(name), Kind::File, owner, 0o644, 0) {
            disk.store(made, content.to_vec(), 0);
        }
    }
}

#[allow(clippy::expect_used)] // The names are ours.
fn new_user(disk: &mut Disk, at: usize) -> User {
    let name = ["alice", "bob", "carol"][at];
    let uid = 1001 + at as u32;
    let account = Account {
        user: name.parse().expect("a user name"),
        uid,
        gid: uid,
        home: format!("/home/{name}").into(),
        shell: "/bin/bash".into(),
    };
    let userdata = format!("/home/{name}/.t3/userdata");
    let (old, level) = crate::t3::RELEASES[0];
    let rows = (1..=3).map(|row| row + 10 * at as u64).collect();
    let database = Database { id: 10 + at as u64, level, by: old.to_owned(), rows };
    put_file(disk, &format!("{userdata}/state.sqlite"), (uid, uid), &database.content());
    put_file(disk, &format!("{userdata}/secrets/key"), (uid, uid), format!("key of {name}").as_bytes());
    put_file(disk, &format!("{userdata}/environment-id"), (uid, uid), format!("environment-{name}").as_bytes());
    put_file(disk, &format!("{userdata}/settings.json"), (uid, uid), format!("{{\"by\":\"{old}\"}}").as_bytes());
    put_file(disk, &format!("/var/lib/t3pin/bindings/{name}"), (0, 0), old.as_bytes());
    User {
        account,
        unit: Unit::default(),
        turn: false,
        unreadable: 0,
        untold: false,
        holders: Vec::new(),
        deleted: false,
        trapped: false,
        forced: false,
        sick: 0,
        memory: Memory::default(),
        wrote_ms: 0,
    }
}
