//! A site: a machine with the package on it, quick settings, a pin, and users who have a server and some work in it.

mod leftovers;
mod poller;
mod state;

use serde_json::Value;
use std::ops::{Deref, DerefMut};
use std::time::Duration;
use t3pin_tests::{Machine, Output};

pub use poller::Poller;
pub use state::stopped_states;

/// What all sites start with.
pub const OLD: &str = "0.0.24";
/// A good release after it: the pairing endpoint has moved, and its migration drops all sessions.
pub const GOOD: &str = "0.0.25";
/// Long enough for anything that does not hang, with another test beside it.
const LONG: Duration = Duration::from_secs(90);

/// Nobody wants to wait for a quarter of an hour here.
const QUICK: &str = r#"
[activity]
quiet = "1s"
poll = "500ms"
[health]
soak = "3s"
watch_interval = "500ms"
"#;

/// A machine with t3pin on it.
pub struct Site {
    machine: Machine,
}

impl Deref for Site {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl DerefMut for Site {
    fn deref_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }
}

impl Site {
    /// The package is installed, the settings are quick, nothing is pinned and nobody is enrolled.
    pub fn bare() -> Self {
        let site = Self { machine: Machine::boot() };
        site.write("/etc/t3pin/conf.d/50-test.toml", QUICK);
        site.install_deb();
        site
    }

    /// As [`Site::bare`], pinned to [`OLD`], with a server for each of `users` and a finished turn in it: the first one's is the
    /// oldest, so that the bumps come in this order.
    pub fn with(users: &[&str]) -> Self {
        let site = Self::bare();
        site.enroll(users);
        site
    }

    /// Pins [`OLD`], and gives each of `users` a server with a finished turn in it.
    pub fn enroll(&self, users: &[&str]) {
        self.pin(OLD);
        for user in users {
            self.ok(&format!("t3pin enroll {user} 2>&1"));
        }
        for user in users {
            self.turn(user, "old-work", "start");
            self.turn(user, "old-work", "end");
        }
    }

    /// Writes a fragment of settings that wins over the quick ones; read at the next order to enforce.
    pub fn settings(&self, text: &str) {
        self.write("/etc/t3pin/conf.d/60-more.toml", text);
    }

    /// Writes the pin file; enforces nothing.
    pub fn pin(&self, version: &str) {
        self.write("/etc/t3pin/pin.toml", &format!("version = \"{version}\"\n"));
    }

    /// `t3pin enforce --wait`.
    pub fn enforce(&self) -> Output {
        self.sh("t3pin enforce --wait")
    }

    /// Enforces, and expects this exit code.
    #[track_caller]
    pub fn enforce_to(&self, code: i32) -> Output {
        let output = self.enforce();
        assert_eq!(output.code, code, "t3pin enforce --wait: {output}\n{}", self.journal());
        output
    }

    /// The agent's journal, for messages of failed tests.
    pub fn journal(&self) -> String {
        self.sh("journalctl -u t3pin -n 200 --no-pager -o short-precise").stdout
    }

    /// What `t3pin status --json` says of one user.
    #[track_caller]
    pub fn instance(&self, user: &str) -> Value {
        let status = self.status();
        let mut instances = status["instances"].as_array().into_iter().flatten();
        instances.find(|instance| instance["user"] == user).unwrap_or_else(|| panic!("{user} is not in {status:#}")).clone()
    }

    /// Waits until `done` says so, as long as anything may take that does not hang.
    #[track_caller]
    pub fn until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        self.wait_until(what, LONG, |_| done(self));
    }

    /// Waits until a user is in this state.
    #[track_caller]
    pub fn await_state(&self, user: &str, state: &str) {
        self.until(&format!("{user} is {state}"), |site| site.instance(user)["state"] == state);
    }

    /// The ids of the runs of the users' servers: the same as long as none was stopped or started.
    #[track_caller]
    pub fn runs(&self, users: &[&str]) -> Vec<String> {
        users.iter().map(|user| self.invocation(&format!("t3-serve@{user}.service"))).collect()
    }

    /// Everything of these users that nobody may have touched: runs of their servers, bindings, databases, secrets and settings.
    #[track_caller]
    pub fn untouched(&self, users: &[&str]) -> Vec<String> {
        let mut all = self.runs(users);
        for user in users {
            all.push(self.ok(&format!("readlink /var/lib/t3pin/bindings/{user}")));
            all.push(self.db_hash(user));
            all.push(self.ok(&format!(
                "cd /home/{user}/.t3/userdata && find . -path ./logs -prune -o -type f ! -name state.sqlite-shm -printf '%p %i %m %u %s\\n' | sort"
            )));
        }
        all
    }

    /// Has a turn begin (`start`) or end on a user's live server.
    #[track_caller]
    pub fn turn(&self, user: &str, thread: &str, state: &str) {
        let port = self.port(user);
        self.ok(&format!(
            "curl --silent --show-error --fail --max-time 20 --data '{{\"thread\":\"{thread}\",\"state\":\"{state}\"}}' \
             http://127.0.0.1:{port}/standin/turn"
        ));
    }

    /// All rows of a user's work: threads, turns, messages, events.
    #[track_caller]
    pub fn work(&self, user: &str) -> String {
        let tables = ["projection_threads", "projection_turns", "projection_thread_messages", "orchestration_events"];
        let queries: String = tables.iter().map(|table| format!("SELECT * FROM {table} ORDER BY rowid;")).collect();
        self.query(user, &queries)
    }

    /// Asks a user's database.
    #[track_caller]
    pub fn query(&self, user: &str, sql: &str) -> String {
        self.ok(&format!("sqlite3 -readonly -cmd '.timeout 5000' /home/{user}/.t3/userdata/state.sqlite \"{sql}\""))
    }

    /// The migration that a user's database is at.
    #[track_caller]
    pub fn level(&self, user: &str) -> String {
        self.query(user, "SELECT max(migration_id) FROM effect_sql_migrations")
    }

    /// The version that answers on a user's port.
    pub fn serves(&self, user: &str) -> String {
        let port = self.port(user);
        self.sh(&format!("curl --silent --max-time 5 http://127.0.0.1:{port}/.well-known/t3/environment | jq -r .serverVersion"))
            .stdout
            .trim()
            .to_owned()
    }

    /// Binding, server, status and data of a user are all of this version, and a browser can be paired.
    #[track_caller]
    pub fn is_whole(&self, user: &str, version: &str, level: &str) {
        let instance = self.instance(user);
        assert_eq!(instance["bound_version"], version, "{instance:#}");
        assert_eq!(instance["running_version"], version, "{instance:#}");
        assert_eq!(self.serves(user), version);
        assert_eq!(self.level(user), level);
        let cookie = self.user_pair(user);
        assert!(self.session_ok(user, &cookie), "{user}'s new session is not known");
    }
}
