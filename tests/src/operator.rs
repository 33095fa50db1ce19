//! What an operator does: enrolls users, writes the pin file, reads the status. And what a user's provider does to their data.

use crate::Machine;
use serde_json::Value;
use std::time::Duration;

/// Settings with which a bump takes seconds: short quiet time, soak and intervals.
const FAST: &str = "[activity]\nquiet = \"1s\"\npoll = \"500ms\"\n\n[health]\nsoak = \"2s\"\nwatch_interval = \"500ms\"\n";

const SEED: &str = include_str!("../standin/seed.mjs");

impl Machine {
    /// A machine with the package installed settings with which a bump takes seconds, pinned to `version`, and `users` enrolled in this order.
    #[track_caller]
    pub fn with_users(version: &str, users: &[&str]) -> Self {
        let machine = Self::boot();
        machine.write("/etc/t3pin/conf.d/50-test.toml", FAST);
        machine.install_deb();
        machine.pin(version);
        for user in users {
            machine.ok(&format!("t3pin enroll {user}"));
            assert_eq!(machine.serving(user).as_deref(), Some(version), "{user} is enrolled");
        }
        machine
    }

    /// Writes the pin file: everybody is to run `version`.
    #[track_caller]
    pub fn pin(&self, version: &str) {
        self.write("/etc/t3pin/pin.toml", &format!("version = \"{version}\"\n"));
    }

    /// One user's instance in the status; null when the status has none.
    #[track_caller]
    pub fn instance(&self, user: &str) -> Value {
        self.status()["instances"].as_array().into_iter().flatten().find(|one| one["user"] == user).cloned().unwrap_or_default()
    }

    /// Waits until a user's bump to `version` has been soaked, and its server serves it.
    #[track_caller]
    pub fn wait_settled(&self, user: &str, version: &str) {
        self.wait_until(&format!("{user} is settled on {version}"), Duration::from_secs(60), |machine| {
            let instance = machine.instance(user);
            instance["state"] == "settled"
                && instance["bound_version"] == version
                && machine.serving(user).as_deref() == Some(version)
        });
    }

    /// The version that answers on a user's port.
    pub fn serving(&self, user: &str) -> Option<String> {
        let port = self.port(user);
        let answer = self.sh(&format!("curl --silent --max-time 3 http://127.0.0.1:{port}/.well-known/t3/environment"));
        let descriptor: Value = serde_json::from_str(&answer.stdout).ok()?;
        descriptor["serverVersion"].as_str().map(str::to_owned)
    }

    /// Makes data in a user's database as a provider would, beside the running server too; options as in `tests/standin/seed.mjs`.
    #[track_caller]
    pub fn seed(&self, user: &str, options: &str) {
        self.write("/opt/seed.mjs", SEED);
        let output = self.as_user(user, &format!("node /opt/seed.mjs .t3/userdata/state.sqlite {options}"));
        assert!(output.code == 0, "seed {options}: {output}");
    }

    /// A hash over all rows of a user's work, whatever file they are in: everything but authentication and migrations.
    #[track_caller]
    pub fn work_hash(&self, user: &str) -> String {
        let tables = "'orchestration%' 'projection%' 'provider%'";
        let script = format!("sqlite3 'file:.t3/userdata/state.sqlite?mode=ro' \".dump {tables}\" | LC_ALL=C sort | sha256sum");
        let output = self.as_user(user, &script);
        assert!(output.code == 0, "{user}'s work: {output}");
        output.stdout
    }

    /// The highest migration applied to a user's database.
    #[track_caller]
    pub fn migration_level(&self, user: &str) -> String {
        let sql = "SELECT max(migration_id) FROM effect_sql_migrations";
        let output =
            self.as_user(user, &format!("sqlite3 -cmd '.timeout 5000' 'file:.t3/userdata/state.sqlite?mode=ro' '{sql}'"));
        assert!(output.code == 0, "{user}'s migration level: {output}");
        output.stdout.trim().to_owned()
    }
}
