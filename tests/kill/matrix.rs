//! A matrix of points to die at: has the agent die at each, lets it come back, and sees that everybody is whole.

use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use t3pin_tests::Machine;

/// Long enough for anything that does not hang, with another test beside it.
const LONG: Duration = Duration::from_secs(240);
/// What everybody runs at first.
pub const OLD: &str = "0.0.24";
/// A good release after it.
pub const GOOD: &str = "0.0.25";
/// Pairs well in its rehearsal, and not where `T3_STANDIN_LIVE_FAULT` is set.
pub const LIVE_FAULT: &str = "0.0.103";
/// Does not survive its rehearsal.
pub const BAD: &str = "0.0.91";

/// A quick soak; restarts without a pause, and as many as it takes: giving up after a few is another story.
const QUICK: &str = "[activity]\nquiet = \"1s\"\npoll = \"200ms\"\n\n[health]\nsoak = \"1s\"\nwatch_interval = \"200ms\"\n";
const RESTARTS: &str = "[Unit]\nStartLimitBurst=100000\nStartLimitIntervalSec=1s\n[Service]\nRestartSec=100ms\n";

/// How the agent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// SIGKILL.
    Kill,
    /// The power of the whole machine.
    PowerCut,
}

/// Everybody's work before, and what became of each point.
pub struct Matrix {
    /// The machine.
    pub machine: Machine,
    /// Who is on it.
    pub users: Vec<String>,
    work: Vec<String>,
    death: Death,
    tried: usize,
    unsafe_points: Vec<String>,
}

impl Matrix {
    /// A machine with `users` on [`OLD`], each with some work.
    pub fn with(users: &[&str], death: Death) -> Self {
        let machine = Machine::boot();
        machine.write("/etc/t3pin/conf.d/50-test.toml", QUICK);
        machine.write("/etc/systemd/system/t3pin.service.d/quick.conf", RESTARTS);
        machine.install_deb();
        machine.pin(OLD);
        for user in users {
            machine.ok(&format!("t3pin enroll {user}"));
            machine.seed(user, "--threads 3 --turns 3");
        }
        let work = users.iter().map(|user| machine.work_hash(user)).collect();
        let users = users.iter().map(|user| (*user).to_owned()).collect();
        Self { machine, users, work, death, tried: 0, unsafe_points: vec![] }
    }

    /// Orders deaths (user and point), pins `version`, and has it enforced until each of them has happened and nothing is
    /// under way any more.
    pub fn die_while_enforcing(&mut self, deaths: &[(&str, &str)], version: &str) {
        self.machine.pin(version);
        self.die(deaths, "t3pin enforce");
    }

    /// As [`Matrix::die_while_enforcing`], while `order` is carried out; it is given again as often as the agent comes to rest.
    pub fn die(&mut self, deaths: &[(&str, &str)], order: &str) {
        let how = if self.death == Death::Kill { "kill" } else { "hang" };
        let lines: String = deaths.iter().map(|(user, point)| format!("{user} {point} {how}\n")).collect();
        self.machine.write("/etc/t3pin/kill-points", &lines);
        let until = Instant::now() + LONG;
        let mut left = deaths.len();
        let mut given = false;
        loop {
            let orders = self.machine.ok("cat /etc/t3pin/kill-points").lines().count();
            if orders < left {
                left = orders;
                if self.death == Death::PowerCut {
                    self.machine.power_cut();
                }
                continue;
            }
            match self.resting() {
                Some(true) if left == 0 => return,
                Some(true) if !given || left > 0 => {
                    given = true;
                    self.machine.sh(order);
                }
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
            if Instant::now() > until {
                let journal = self.machine.sh("journalctl -u t3pin -n 150 --no-pager -o short-precise").stdout;
                let status = self.machine.sh("t3pin status --json").stdout;
                panic!("{deaths:?}: {left} of them did not happen, or it never came to rest\n{journal}\n{status}");
            }
        }
    }

    /// Notes for each point whether everybody is whole now: no bump under way, what runs is what is bound, on data of its own level, with
    /// all of the work, and a browser can be paired.
    pub fn note(&mut self, points: &[(&str, &str)]) {
        let mut wrong = vec![];
        for (user, work) in self.users.iter().zip(&self.work) {
            if let Err(what) = whole(&self.machine, user, work) {
                wrong.push(format!("{user}: {what}"));
            }
        }
        let left = self.machine.ok("ls -A /var/lib/t3pin/holds");
        if !left.is_empty() {
            wrong.push(format!("left behind: {left}"));
        }
        for (user, point) in points {
            self.tried += 1;
            let verdict = if wrong.is_empty() { "safe".to_owned() } else { format!("UNSAFE: {}", wrong.join("; ")) };
            println!("kill-point {point} {user} {:?}: {verdict}", self.death);
            if !wrong.is_empty() {
                self.unsafe_points.push((*point).to_owned());
            }
        }
        if !wrong.is_empty() {
            println!("{}", self.machine.sh("journalctl -u t3pin -n 200 --no-pager -o short-precise").stdout);
        }
    }

    /// What everybody's work is now is what it has to be from here on.
    pub fn take_work(&mut self) {
        self.work = self.users.iter().map(|user| self.machine.work_hash(user)).collect();
    }

    /// Back to [`OLD`] with everybody, nothing held against a version.
    pub fn back_to_old(&mut self) {
        self.machine.pin(OLD);
        for user in &self.users {
            if self.machine.instance(user)["bound_version"] != OLD {
                self.machine.ok(&format!("t3pin rollback {user} --force"));
            }
        }
        for version in [GOOD, LIVE_FAULT, BAD] {
            self.machine.sh(&format!("t3pin versions clear {version}"));
        }
        self.machine.sh("t3pin enforce --wait");
    }

    /// All points that the agent knows.
    pub fn known_points(&self) -> BTreeSet<String> {
        self.machine.ok("cat /run/t3pin/kill-points").lines().map(str::to_owned).collect()
    }

    /// Says how many there were; fails when one left somebody unsafe.
    #[track_caller]
    pub fn end(self) {
        println!("{} points tried", self.tried);
        assert!(self.unsafe_points.is_empty(), "unsafe: {:?}", self.unsafe_points);
    }

    /// Whether nothing is under way; `None` while nobody answers.
    fn resting(&self) -> Option<bool> {
        let status: Value = serde_json::from_str(&self.machine.sh("timeout 5 t3pin status --json").stdout).ok()?;
        let quiet = ["idle", "draining", "stuck"].iter().any(|state| status["agent"]["state"] == *state);
        // An agent that has just started may not have got to what was under way.
        let rests = |instance: &Value| {
            ["settled", "pending", "held-back", "deferred", "stuck"].iter().any(|state| instance["state"] == *state)
        };
        Some(quiet && status["instances"].as_array()?.iter().all(rests))
    }
}

fn whole(machine: &Machine, user: &str, work: &str) -> Result<(), String> {
    let instance = machine.instance(user);
    let (state, bound) = (instance["state"].as_str().unwrap_or_default(), instance["bound_version"].as_str().unwrap_or_default());
    if !["settled", "pending", "held-back"].contains(&state) {
        return Err(format!("is {state}: {instance}"));
    }
    let serving = machine.serving(user).unwrap_or_default();
    if serving != bound {
        return Err(format!("{serving:?} answers, {bound} is bound"));
    }
    let (level, wanted) = (
        machine.migration_level(user),
        if bound == OLD {
            "30"
        } else if bound == GOOD {
            "31"
        } else {
            "32"
        },
    );
    if level != wanted {
        return Err(format!("{bound} runs on data of level {level}"));
    }
    // A bump that waits for its turn may keep what it is to go on with; one that is over keeps nothing.
    let copies = machine.ok(&format!("ls -A /home/{user}/.t3/.t3pin 2>/dev/null || true"));
    if !copies.is_empty() && instance["phase"] != "ready" {
        return Err(format!("left behind: {copies}"));
    }
    if machine.work_hash(user) != work {
        return Err("some of the work is not as it was".to_owned());
    }
    let freezer = machine.ok(&format!("systemctl show --property=FreezerState --value t3-serve@{user}"));
    if freezer != "running" {
        return Err(format!("the unit is {freezer}"));
    }
    machine.try_user_pair(user).map(drop)
}
