//! Asks every user's server again and again, from within the machine, and remembers when nobody answered.

use super::Site;
use serde_json::Value;

/// Every 100 ms one request on a fresh connection to each server; what fails is one line: port, when it was begun, why. Requests are
/// begun on time, also while others wait for their answers.
const POLL: &str = r#"
import { get } from "node:http";
const ports = process.argv.slice(2).map(Number);
setInterval(() => {
  for (const port of ports) {
    const begun = Date.now();
    const failed = (why) => console.log(`${port} ${begun} ${why}`);
    const request = get({ port, host: "127.0.0.1", path: "/.well-known/t3/environment", agent: false, timeout: 8000 }, (response) => {
      if (response.statusCode !== 200) failed(response.statusCode);
      response.resume();
    });
    request.on("timeout", () => request.destroy(new Error("timeout")));
    request.on("error", (error) => failed(error.code ?? error.message));
  }
}, 100);
"#;

/// A poller at work in a site.
pub struct Poller {
    ports: Vec<(u16, String)>,
}

impl Poller {
    /// Starts to ask the servers of `users`.
    #[track_caller]
    pub fn start(site: &Site, users: &[&str]) -> Self {
        let ports: Vec<(u16, String)> = users.iter().map(|user| (site.port(user), (*user).to_owned())).collect();
        site.write("/root/poll.mjs", POLL);
        let list: String = ports.iter().map(|(port, _)| format!(" {port}")).collect();
        site.ok(&format!(
            "systemd-run --quiet --unit=poller --property=StandardOutput=append:/root/polls node /root/poll.mjs{list}"
        ));
        Self { ports }
    }

    /// Every request that nobody answered was to a user who was being bumped at that moment; and each of them was noticed.
    #[track_caller]
    pub fn assert_gaps_only_in_own_bumps(&self, site: &Site, history: &[Value]) {
        site.ok("systemctl stop poller");
        let failures = site.ok("cat /root/polls");
        for (port, user) in &self.ports {
            let bumps: Vec<(u64, u64)> = history.iter().filter(|bump| bump["user"] == user.as_str()).map(span).collect();
            let mut noticed = false;
            for failure in failures.lines().filter(|line| line.starts_with(&format!("{port} "))) {
                let begun: u64 = failure.split(' ').nth(1).unwrap().parse().unwrap();
                noticed = true;
                assert!(
                    bumps.iter().any(|(from, to)| (from..=to).contains(&&begun)),
                    "{user}'s server did not answer outside of {user}'s bump {bumps:?}: {failure}\nall:\n{failures}\n{}",
                    site.journal()
                );
            }
            assert!(noticed || bumps.is_empty(), "{user}'s server was restarted and the poller did not notice: it is blind");
        }
    }
}

/// From when to when a bump kept its user waiting, in ms since the epoch.
fn span(bump: &Value) -> (u64, u64) {
    let from = bump["started_ms"].as_u64().unwrap();
    let lasted = std::time::Duration::from_secs_f64(bump["seconds"].as_f64().unwrap());
    (from, from + u64::try_from(lasted.as_millis()).unwrap())
}
