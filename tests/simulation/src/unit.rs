//! The users' units and the servers in them: what systemd does, and what a t3 of some release does to the data when it starts,
//! works and ends.

use std::ffi::OsStr;

use crate::disk::{Ino, Kind};
use crate::machine::Inner;
use crate::promises;
use crate::schedule::Stage;
use crate::t3::{self, Database, Flaw, level, log_entry, new_log};

/// One `t3-serve@USER.service`.
#[derive(Debug, Default)]
pub struct Unit {
    /// The server, while it runs.
    pub server: Option<Server>,
    /// It ended by itself.
    pub failed: bool,
    /// Automatic restarts.
    pub restarts: u32,
    /// Counts the starts.
    pub invocation: u64,
    /// It stands still.
    pub frozen: bool,
}

/// A t3 that runs.
#[derive(Debug, Clone)]
pub struct Server {
    /// The version.
    pub version: String,
    /// What it calls itself.
    pub says: String,
    /// Its database.
    pub database: Ino,
    /// Whether it answers.
    pub answers: bool,
    /// Whether clients can pair.
    pub pairs: bool,
    /// Its users were let in: it was verified, or has run before.
    pub handed_over: bool,
}

impl Unit {
    /// People work on it from now on.
    pub fn hand_over(&mut self) {
        if let Some(server) = &mut self.server {
            server.handed_over = true;
        }
    }

    /// It goes on.
    pub fn thaw(&mut self) {
        self.frozen = false;
    }

    /// Whether somebody can begin to work on it now.
    pub fn can_be_used(&self) -> bool {
        !self.frozen && self.server.as_ref().is_some_and(|server| server.answers && server.pairs && server.handed_over)
    }
}

/// Why a job failed.
#[derive(Debug)]
pub struct JobFailed;

impl Stage {
    /// What is wrong with `version`, live or in a rehearsal.
    pub fn flaw_of(&self, version: &str, rehearsal: bool) -> Flaw {
        let shows = !rehearsal || !self.only_live;
        if version == t3::RELEASES[1].0 && shows { self.flaw } else { Flaw::None }
    }
}

impl Inner {
    /// What systemd does for `systemctl start`: fine when it runs, and when a condition keeps it from running.
    pub fn start_unit(&mut self, user: usize) -> Result<(), JobFailed> {
        let name = self.users[user].name().to_owned();
        if self.users[user].unit.server.is_some() || self.disk.at(&format!("/var/lib/t3pin/holds/{name}")).is_some() {
            return Ok(());
        }
        let Some(version) = self.binding(&name) else { return Ok(()) };
        let home = self.disk.at(&format!("/home/{name}"));
        let home_there = home.is_some_and(|home| !self.disk.hidden.contains(&home));
        let unit = &mut self.users[user].unit;
        unit.invocation += 1;
        unit.restarts = 0;
        unit.failed = false;
        unit.frozen = false;
        if self.users[user].deleted || !home_there {
            self.users[user].unit.failed = true;
            return Err(JobFailed);
        }
        self.serve(user, &version);
        Ok(())
    }

    /// A server starts on the data.
    fn serve(&mut self, user: usize, version: &str) {
        let flaw = self.stage.flaw_of(version, false);
        let Some(database) = self.open_data(user, version) else {
            self.say(|| format!("   {version} of user {user} finds no data that it can open, and ends"));
            self.users[user].unit.failed = true;
            return;
        };
        let server = Server {
            version: version.to_owned(),
            says: if flaw == Flaw::WrongVersion { "0.0.99".to_owned() } else { version.to_owned() },
            database,
            answers: flaw != Flaw::Hangs,
            pairs: flaw != Flaw::PairingMoved,
            handed_over: false,
        };
        self.say(|| format!("   {version} of user {user} runs on {database}"));
        self.users[user].unit.server = Some(server);
        if matches!(flaw, Flaw::Crashes | Flaw::Corrupts) {
            self.crash_server(user);
        }
    }

    /// Opens and migrates the data in place. `None` when it cannot.
    fn open_data(&mut self, user: usize, version: &str) -> Option<Ino> {
        let userdata = self.users[user].userdata();
        let (uid, now_ns) = (self.users[user].account.uid, self.now_ms * 1_000_000);
        let dir = self.disk.at(&userdata)?;
        self.disk.names(dir).ok()?;
        let found = self.disk.find(dir, OsStr::new("state.sqlite")).ok();
        if let Some(ino) = found
            && (self.disk.look(ino).ok()?.0 != Kind::File || self.disk.look(ino).ok()?.1.owner.0 != uid)
        {
            if !self.users[user].trapped {
                self.broke(1, format!("the database of user {user} is not one that its server may open"));
            }
            return None;
        }
        let kept = promises::kept(&self.disk, dir);
        if !self.users[user].trapped
            && let Err(broken) =
                promises::opens(&self.disk, &mut self.users[user].memory, &self.opened, version, found, &kept, self.stage.keep)
        {
            self.broke(broken.promise, format!("user {user}: {}", broken.what));
        }
        let ino = match found {
            Some(ino) => ino,
            None => {
                let made = self.disk.create(dir, OsStr::new("state.sqlite"), Kind::File, (uid, uid), 0o644, now_ns).ok()?;
                let new = Database { id: 0, level: 0, by: version.to_owned(), rows: [].into() };
                self.disk.store(made, new.content(), now_ns);
                made
            }
        };
        self.opened.insert(ino, version.to_owned());
        let mut database = Database::parse(&self.disk.look(ino).ok()?.1.data)?;
        if let Some(log) = self.disk.content(&format!("{userdata}/state.sqlite-wal"))
            && !database.replay(&log)
            && !self.users[user].trapped
        {
            self.broke(1, format!("user {user}: {version} finds the log of another database beside its own"));
        }
        self.disk.remove(dir, OsStr::new("state.sqlite-wal"), false).ok();
        match self.stage.flaw_of(version, false) {
            Flaw::Wipes => database.rows.clear(),
            Flaw::Corrupts => {
                self.disk.store(ino, b"garbage".to_vec(), now_ns);
                return Some(ino);
            }
            _ => {}
        }
        database.id = self.next_number();
        database.level = level(version);
        database.by = version.to_owned();
        self.disk.store(ino, database.content(), now_ns);
        let log = self.disk.create(dir, OsStr::new("state.sqlite-wal"), Kind::File, (uid, uid), 0o644, now_ns).ok()?;
        self.disk.store(log, new_log(database.id), now_ns);
        // What SQLite never syncs.
        self.disk.remove(dir, OsStr::new("state.sqlite-shm"), false).ok();
        self.disk.create(dir, OsStr::new("state.sqlite-shm"), Kind::File, (uid, uid), 0o644, now_ns).ok();
        if let Ok(settings) = self.disk.find(dir, OsStr::new("settings.json")) {
            self.disk.store(settings, format!("{{\"by\":\"{version}\"}}").into_bytes(), now_ns);
        }
        Some(ino)
    }

    /// The user writes a row of work, if the server lets them.
    pub fn write_row(&mut self, user: usize) {
        let now_ms = self.now_ms;
        let log = format!("{}/state.sqlite-wal", self.users[user].userdata());
        if !self.users[user].unit.can_be_used() || self.users[user].trapped {
            return;
        }
        let (Some(log), row) = (self.disk.at(&log), self.next_number()) else { return };
        let Ok((_, inside, _)) = self.disk.look(log) else { return };
        let mut content = inside.data.to_vec();
        content.extend(log_entry(row));
        self.disk.store(log, content, now_ms * 1_000_000);
        self.users[user].wrote_ms = now_ms;
    }

    /// What systemd does for `systemctl stop`.
    pub fn stop_unit(&mut self, user: usize) {
        if !self.stage.with_log && !self.users[user].trapped {
            self.checkpoint(user);
        }
        self.kill_unit(user);
        self.users[user].unit.failed = false;
    }

    /// A server that ends in order takes its log in.
    fn checkpoint(&mut self, user: usize) {
        let Some(server) = self.users[user].unit.server.clone() else { return };
        let userdata = self.users[user].userdata();
        let now_ns = self.now_ms * 1_000_000;
        let Some(dir) = self.disk.at(&userdata) else { return };
        let Some(mut database) = self.disk.look(server.database).ok().and_then(|(_, inside, _)| Database::parse(&inside.data))
        else {
            return;
        };
        if let Some(log) = self.disk.content(&format!("{userdata}/state.sqlite-wal")) {
            database.replay(&log);
            database.id = self.next_number();
            self.disk.store(server.database, database.content(), now_ns);
            for sidecar in ["state.sqlite-wal", "state.sqlite-shm"] {
                self.disk.remove(dir, OsStr::new(sidecar), false).ok();
            }
            // SQLite syncs the directory when it has removed its log in order.
            self.disk.sync(dir).ok();
        }
    }

    /// Whatever runs in the unit ends at once.
    pub fn kill_unit(&mut self, user: usize) {
        let Some(server) = self.users[user].unit.server.take() else { return };
        self.users[user].unit.frozen = false;
        self.users[user].turn = false;
        if self.stage.flaw_of(&server.version, false) == Flaw::Forks {
            self.users[user].holders.push(server.database);
        }
        self.remember(user, &server.version);
    }

    /// The server ends by itself, again and again.
    pub fn crash_server(&mut self, user: usize) {
        self.kill_unit(user);
        self.users[user].unit.failed = true;
        self.users[user].unit.restarts = 10;
    }

    /// The power is cut.
    pub fn lose_power(&mut self, user: usize) {
        self.kill_unit(user);
        self.users[user].holders.clear();
        self.users[user].unit = Unit { invocation: self.users[user].unit.invocation, ..Unit::default() };
    }

    fn remember(&mut self, user: usize, version: &str) {
        let userdata = self.users[user].userdata();
        let kept = self.disk.at(&userdata).map(|dir| promises::kept(&self.disk, dir)).unwrap_or_default();
        self.users[user].memory.left = Some((version.to_owned(), kept));
    }
}
