//! What a user of a server does: pair a browser with it, and come back with the cookie. And a look at their data.

use crate::{Machine, Output};
use serde_json::{Value, json};

impl Machine {
    /// The port of a user's server, as `/etc/t3-serve/USER.env` says.
    #[track_caller]
    pub fn port(&self, user: &str) -> u16 {
        let port = self.ok(&format!("sed -n 's/^T3_PORT=//p' /etc/t3-serve/{user}.env"));
        port.parse().unwrap_or_else(|_| panic!("/etc/t3-serve/{user}.env names no port: {port:?}"))
    }

    /// Pairs a browser with a user's server: mints with the CLI of the version that is bound, exchanges the credential where this version
    /// wants it. Returns the cookie, `NAME=VALUE`.
    #[track_caller]
    pub fn user_pair(&self, user: &str) -> String {
        self.try_user_pair(user).unwrap_or_else(|reason| panic!("{user} cannot pair: {reason}"))
    }

    /// As [`Machine::user_pair`], for when it may well fail; says why.
    pub fn try_user_pair(&self, user: &str) -> Result<String, String> {
        let minted = self.as_user(user, &format!("/var/lib/t3pin/bindings/{user}/bin/t3 auth pairing create --json"));
        let credential = serde_json::from_str::<Value>(&minted.stdout)
            .ok()
            .and_then(|minted| minted["credential"].as_str().map(str::to_owned))
            .ok_or_else(|| format!("minting: {minted}"))?;
        self.exchange(user, &credential)
    }

    /// Exchanges a credential with a user's server as a browser does. Returns the cookie, `NAME=VALUE`, or says why there is none.
    pub fn exchange(&self, user: &str, credential: &str) -> Result<String, String> {
        let port = self.port(user);
        let mut answers = String::new();
        for endpoint in ["browser-session", "bootstrap"] {
            let exchange = self.sh_with_input(
                &format!(
                    "curl --silent --show-error --max-time 20 --include --header 'content-type: application/json' --data-binary @- \
                     http://127.0.0.1:{port}/api/auth/{endpoint}"
                ),
                &json!({ "credential": credential }).to_string(),
            );
            if let Some(cookie) = set_cookie(&exchange.stdout) {
                return Ok(cookie);
            }
            answers += &format!("{endpoint}: {exchange}\n");
        }
        Err(answers)
    }

    /// Whether a user's server still knows this cookie.
    pub fn session_ok(&self, user: &str, cookie: &str) -> bool {
        let port = self.port(user);
        let answer =
            self.sh(&format!("curl --silent --max-time 20 --header 'cookie: {cookie}' http://127.0.0.1:{port}/api/auth/session"));
        serde_json::from_str::<Value>(&answer.stdout).is_ok_and(|session| session["authenticated"] == true)
    }

    /// A hash over a user's database, the main file and what has not been moved from the log into it yet.
    #[track_caller]
    pub fn db_hash(&self, user: &str) -> String {
        self.ok(&format!(
            "cd /home/{user}/.t3/userdata && cat state.sqlite >/dev/null && cat state.sqlite $(ls state.sqlite-wal 2>/dev/null) | sha256sum | cut -c 1-64"
        ))
    }

    /// Runs a bash script as a user, in their home directory, with nothing in the environment but what a login sets.
    pub fn as_user(&self, user: &str, script: &str) -> Output {
        self.sh_with_input(
            &format!("cd /home/{user} && exec runuser -u {user} -- env HOME=/home/{user} USER={user} LOGNAME={user} bash -s"),
            script,
        )
    }
}

/// `NAME=VALUE` of the cookie that an answer sets.
fn set_cookie(answer: &str) -> Option<String> {
    let line = answer.lines().find(|line| line.to_ascii_lowercase().starts_with("set-cookie:"))?;
    Some(line.split_once(':')?.1.split(';').next()?.trim().to_owned())
}
