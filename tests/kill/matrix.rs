//! A matrix of points to die at: has the agent die at each, lets it come back, and sees that everybody is whole.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
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

/// Restarts without a pause, and as many as it takes: giving up after a few is another story.
const RESTARTS: &str = "[Unit]\nStartLimitBurst=100000\nStartLimitIntervalSec=1s\n[Service]\nRestartSec=100ms\n";

/// How the agent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// SIGKILL.
    Kill,
    /// The power of the whole machine.
    PowerCut,
}

/// Where users die: the points of each are reached in this order, or in any other.
pub type Deaths<'a> = &'a [(&'a str, &'a [&'a str])];

/// Everybody's work before, and what became of each point.
pub struct Matrix {
    /// The machine.
    pub machine: Machine,
    /// Who is on it.
    pub users: Vec<String>,
    work: Vec<String>,
    /// How the agent ends.
    pub death: Death,
    soak: &'static str,
    tried: BTreeSet<String>,
    unsafe_points: Vec<String>,
}

impl Matrix {
    /// A machine with `users` on [`OLD`], each with some work.
    pub fn with(users: &[&str], death: Death) -> Self {
        let machine = Machine::boot();
        let users = users.iter().map(|user| (*user).to_owned()).collect();
        let mut matrix = Self { machine, users, work: vec![], death, soak: "1s", tried: BTreeSet::new(), unsafe_points: vec![] };
        matrix.soak("1s");
        matrix.machine.write("/etc/systemd/system/t3pin.service.d/quick.conf", RESTARTS);
        matrix.machine.install_deb();
        matrix.machine.pin(OLD);
        for user in &matrix.users {
            matrix.machine.ok(&format!("t3pin enroll {user}"));
            matrix.machine.seed(user, "--threads 3 --turns 3");
        }
        matrix.take_work();
        matrix
    }

    /// From here on a bump soaks for so long. One that soaks for longer than a moment counts as at rest.
    pub fn soak(&mut self, soak: &'static str) {
        self.soak = soak;
        let settings = format!(
            "[activity]\nquiet = \"1s\"\npoll = \"200ms\"\n[health]\nsoak = \"{soak}\"\nwatch_interval = \"200ms\"\n[snapshots]\nkeep = 1\n"
        );
        self.machine.write("/etc/t3pin/conf.d/50-test.toml", &settings);
    }

    /// Orders `deaths` and has `order` carried out until each of them has happened and nothing is under way any more; it is given
    /// again as often as the agent comes to rest before. At every rest everybody must be whole.
    pub fn die(&mut self, deaths: Deaths<'_>, order: &str) {
        self.die_until(deaths, order, Self::note);
    }

    /// As [`Matrix::die`], with `rested` for a judge of every rest; it is told what was died at since the last one.
    pub fn die_until(&mut self, deaths: Deaths<'_>, order: &str, mut rested: impl FnMut(&mut Self, &[String])) {
        let how = if self.death == Death::Kill { "kill" } else { "hang" };
        let mut left: Vec<String> = lines(deaths).iter().map(|death| format!("{death} {how}")).collect();
        self.machine.write("/etc/t3pin/kill-points", &left.iter().map(|line| format!("{line}\n")).collect::<String>());
        let mut happened = vec![];
        let mut given = false;
        let mut until = Instant::now() + LONG;
        loop {
            let orders: Vec<String> = self.machine.ok("cat /etc/t3pin/kill-points").lines().map(str::to_owned).collect();
            if orders.len() < left.len() {
                happened.extend(left.iter().filter(|line| !orders.contains(line)).cloned());
                left = orders;
                until = Instant::now() + LONG;
                if self.death == Death::PowerCut {
                    self.machine.power_cut();
                }
                continue;
            }
            match self.resting() {
                Some(true) => {
                    if given {
                        rested(self, &std::mem::take(&mut happened));
                    }
                    if given && left.is_empty() {
                        return;
                    }
                    given = true;
                    // Not waited for: an agent that hangs never answers.
                    self.machine.ok(&format!("systemd-run --quiet --collect --unit=order {order}"));
                }
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
            if Instant::now() > until {
                let journal = self.machine.sh("journalctl -u t3pin -n 150 --no-pager -o short-precise").stdout;
                let status = self.machine.sh("t3pin status --json").stdout;
                panic!("{left:?} did not happen, or it never came to rest\n{journal}\n{status}");
            }
        }
    }

    /// Notes for each of `points` (`USER POINT ...`) whether everybody is whole now: no bump under way, what runs is what is bound,
    /// on data of its own level, with all of the work, and a browser can be paired.
    pub fn note(&mut self, points: &[String]) {
        let until = Instant::now() + LONG;
        // An order goes on by itself after a death: who is in the middle of a bump by now is judged at the next rest.
        let wrong = loop {
            let runs = self.runs();
            let wrong = self.wrong();
            let rests = self.resting() == Some(true) && self.runs() == runs;
            if wrong.is_empty() || rests || Instant::now() > until {
                break wrong;
            }
            while self.resting() != Some(true) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(50));
            }
        };
        self.judge(points, wrong, "");
    }

    /// Who is not whole, and why.
    fn wrong(&self) -> Vec<String> {
        let all = self.users.iter().zip(&self.work);
        all.filter_map(|(user, work)| Some(format!("{user}: {}", whole(&self.machine, user, work).err()?))).collect()
    }

    /// The ids of the runs of everybody's servers.
    fn runs(&self) -> Vec<String> {
        self.users.iter().map(|user| self.machine.invocation(&format!("t3-serve@{user}.service"))).collect()
    }

    /// Notes what is `wrong` after `points`, as far as it was found already; nobody's data may be in our hands but that of `held`.
    pub fn judge(&mut self, points: &[String], mut wrong: Vec<String>, held: &str) {
        let holds = self.machine.ok("ls -A /var/lib/t3pin/holds");
        if holds != held {
            wrong.push(format!("held: {holds:?}"));
        }
        wrong.extend(half_made(&self.machine));
        for point in points {
            let verdict = if wrong.is_empty() { "safe".to_owned() } else { format!("UNSAFE: {}", wrong.join("; ")) };
            let words: Vec<&str> = point.split(' ').collect();
            println!("kill-point {} {} {:?}: {verdict}", words[1], words[0], self.death);
            self.tried.insert(words[1].to_owned());
        }
        if !wrong.is_empty() {
            self.unsafe_points.push(format!("{points:?}: {wrong:?}"));
            println!("{wrong:?}\n{}", self.machine.sh("journalctl -u t3pin -n 200 --no-pager -o short-precise").stdout);
        }
    }

    /// What everybody's work is now is what it has to be from here on.
    pub fn take_work(&mut self) {
        self.work = self.users.iter().map(|user| self.machine.work_hash(user)).collect();
    }

    /// Pins each user to a version of their own; who is not named stays on what they run.
    pub fn pin(&self, pins: &[(&str, &str)]) {
        let named: BTreeMap<_, _> = pins.iter().copied().collect();
        let of = |user: &String| match named.get(user.as_str()) {
            Some(version) => (*version).to_owned(),
            None => self.machine.instance(user)["bound_version"].as_str().unwrap_or(OLD).to_owned(),
        };
        let users: String = self.users.iter().map(|user| format!("[users.{user}]\nversion = \"{}\"\n", of(user))).collect();
        self.machine.write("/etc/t3pin/pin.toml", &format!("version = \"{OLD}\"\n{users}"));
    }

    /// Takes `users` back to [`OLD`], with nothing held against a version.
    pub fn back_to_old(&mut self, users: &[&str]) {
        for user in users {
            if self.machine.instance(user)["bound_version"] != OLD {
                self.machine.ok(&format!("t3pin rollback {user} --force"));
            }
        }
        for version in [GOOD, LIVE_FAULT, BAD] {
            self.machine.sh(&format!("t3pin versions clear {version}"));
        }
    }

    /// All points that the agent knows.
    pub fn known_points(&self) -> BTreeSet<String> {
        self.machine.ok("cat /run/t3pin/kill-points").lines().map(str::to_owned).collect()
    }

    /// The points that the agent knows and that nobody has died at.
    pub fn untried(&self) -> Vec<String> {
        self.known_points().difference(&self.tried).cloned().collect()
    }

    /// Fails when a point left somebody unsafe.
    #[track_caller]
    pub fn end(self) {
        println!("{} points tried", self.tried.len());
        assert!(self.unsafe_points.is_empty(), "unsafe: {}", self.unsafe_points.join("\n"));
    }

    /// Whether nothing is under way, the order neither; `None` while nobody answers.
    fn resting(&self) -> Option<bool> {
        if self.machine.sh("systemctl is-active --quiet order.service").code == 0 {
            return Some(false);
        }
        let status: Value = serde_json::from_str(&self.machine.sh("timeout 5 t3pin status --json").stdout).ok()?;
        let quiet = ["idle", "draining", "stuck"].iter().any(|state| status["agent"]["state"] == *state);
        // An agent that has just started may not have got to what was under way.
        let mut at_rest = vec!["settled", "pending", "held-back", "refused", "deferred", "stuck"];
        if self.soak != "1s" {
            at_rest.push("soaking");
        }
        let rests = |instance: &Value| at_rest.iter().any(|state| instance["state"] == *state);
        Some(quiet && status["instances"].as_array()?.iter().all(rests))
    }
}

/// `USER POINT`, one for each death.
fn lines(deaths: Deaths<'_>) -> Vec<String> {
    deaths.iter().flat_map(|(user, points)| points.iter().map(move |point| format!("{user} {point}"))).collect()
}

/// What is only half of what its name says: a version without its marker, a record that is cut off, a snapshot that is not whole.
pub fn half_made(machine: &Machine) -> Vec<String> {
    let output = machine.sh(
        r#"cd /var/lib/t3pin
        for version in versions/*/; do jq --exit-status .version "$version/ok" >/dev/null || echo "$version is not whole"; done
        find . /.t3pin /home/.t3pin -name '*.json' -not -name '.*' -not -path '*/node_modules/*' 2>/dev/null | while read -r file; do
            jq --exit-status . "$file" >/dev/null || [ ! -e "$file" ] || echo "$file is cut off"
        done
        [ -z "$(ls -d snapshots/*/b* 2>/dev/null)" ] || t3pin snapshots verify >/run/verified 2>&1 || cat /run/verified"#,
    );
    output.stdout.lines().map(str::to_owned).collect()
}

fn whole(machine: &Machine, user: &str, work: &str) -> Result<(), String> {
    let instance = machine.instance(user);
    let (state, bound) = (instance["state"].as_str().unwrap_or_default(), instance["bound_version"].as_str().unwrap_or_default());
    if !["settled", "pending", "held-back", "refused", "soaking"].contains(&state) {
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
    // A bump that waits for its turn or soaks may keep what it is to go on with; one that is over keeps nothing.
    let copies = machine.ok(&format!("ls -A /home/{user}/.t3/.t3pin 2>/dev/null || true"));
    if !copies.is_empty() && instance["phase"] != "ready" && state != "soaking" {
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
