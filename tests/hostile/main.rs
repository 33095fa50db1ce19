//! An unprivileged user against the agent, on a real machine: nothing of root's or of another user's is read or written, nothing
//! hangs, and the agent lives on. `attacker.py` has the attacks; its last line here is what `tests/run hostile` prints.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod claws;
#[allow(dead_code, unused_imports)]
#[path = "../e2e/common/mod.rs"]
mod common;
mod hangs;
mod orders;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use common::{GOOD, OLD, Site};
use t3pin_tests::Output;

const ATTACKER: &str = include_str!("attacker.py");
const SOCKETS: &str = include_str!("sockets.py");
const LIES: &str = include_str!("lies.py");
const WATCHER: &str = include_str!("canary.py");
const HANG: &str = include_str!("hang.py");
const CLAWS: &str = include_str!("claws.py");
/// Stands in root's file and in a secret of bob's, and may turn up nowhere else.
const MARK: &str = "canary-7f3a91c2";
/// The longest that anything may take that an attack has a hand in, seconds.
const DEADLINE: u32 = 150;
/// As with everybody at once, a busy host counts too.
const ANSWER: Duration = Duration::from_secs(10);

/// Short deadlines, so that a lying server is found out soon.
const SETTINGS: &str = "[health]\nstart_deadline = \"5s\"\nstart_ceiling = \"10s\"\nsoak = \"1s\"\n";

struct Suite {
    site: Site,
    attacks: u32,
    escapes: Vec<String>,
    hangs: Vec<String>,
    before: String,
}

impl Suite {
    fn begin() -> Self {
        let site = Site::with(&["alice", "bob", "carol"]);
        site.settings(SETTINGS);
        site.write("/opt/attacker.py", ATTACKER);
        site.write("/opt/sockets.py", SOCKETS);
        site.write("/opt/lies.py", LIES);
        site.write("/opt/canary.py", WATCHER);
        site.write("/opt/hang.py", HANG);
        site.write("/opt/claws.py", CLAWS);
        site.write("/root/canary", &format!("{MARK} of root's\n"));
        site.ok(&format!(
            "chmod 600 /root/canary; chmod 700 /home/bob
             echo '{MARK} of bob' >/home/bob/.t3/userdata/secrets/mark && chown bob: /home/bob/.t3/userdata/secrets/mark && chmod 600 /home/bob/.t3/userdata/secrets/mark
             mkdir -p /root/.ssh && echo key >/root/.ssh/id && chmod 700 /root"
        ));
        site.pin_alice(OLD);
        let mut suite = Self { site, attacks: 0, escapes: vec![], hangs: vec![], before: String::new() };
        suite.watch();
        suite.site.ok("cat /root/canary");
        assert!(suite.canary().len() > 1, "the watcher does not see what is read");
        suite.watch();
        // Everything is there that an attack would otherwise have to wait for.
        suite.site.pin_alice(GOOD);
        suite.site.enforce_to(0);
        suite.site.await_state("alice", "settled");
        suite.calm();
        suite.before = suite.fingerprint();
        suite
    }

    fn watch(&self) {
        self.site.ok("systemctl stop canary 2>/dev/null; rm -f /root/canary.log
             systemd-run --quiet --collect --unit=canary python3 /opt/canary.py /root/canary /root/canary.log
             for i in $(seq 200); do grep -q watching /root/canary.log 2>/dev/null && exit; sleep 0.05; done; exit 1");
    }

    /// What happened to the canary.
    fn canary(&self) -> Vec<String> {
        self.site.ok("cat /root/canary.log").lines().map(str::to_owned).collect()
    }

    /// What no attack may change.
    fn fingerprint(&self) -> String {
        self.site.ok(
            "cd /home/bob && find .t3 -path .t3/userdata/logs -prune -o -type f ! -name '*.sqlite-shm' -printf '%p %i %m %u ' -exec sh -c 'sha256sum <\"$1\"' - {} \\; | sort
             find /root /etc /usr/bin /usr/lib/systemd ! -path /root/canary.log ! -path '/etc/t3pin*' -printf '%p %m %u %s %y\\n' 2>/dev/null | sort
             readlink /var/lib/t3pin/bindings/bob; systemctl show -P InvocationID t3pin.service t3-serve@bob.service",
        )
    }

    /// One attack: what is done, and then what is found.
    fn attack(&mut self, name: &str, act: impl FnOnce(&Site) -> Vec<Output>) {
        if !wanted(name) {
            return;
        }
        self.attacks += 1;
        let hangs = self.hangs.len();
        let began = Instant::now();
        let outputs = act(&self.site);
        let mut found = String::new();
        for output in &outputs {
            if output.code == 124 || output.code == 137 {
                self.hangs.push(format!("{name}: {output}"));
            }
            for line in output.stdout.lines().filter(|line| line.starts_with("escape ")) {
                writeln!(found, "{line}").unwrap();
            }
            // What goes to an operator's terminal must not steer it.
            if output.stdout.contains('\x1b') || output.stderr.contains('\x1b') {
                writeln!(found, "an escape sequence reached the terminal").unwrap();
            }
        }
        let asked = Instant::now();
        let status = self.site.sh("timeout 60 t3pin status --json");
        // 6: alice's server may be stuck by her own doing, and status says so.
        if !matches!(status.code, 0 | 6) || asked.elapsed() > ANSWER {
            self.hangs.push(format!("{name}: status took {:?}: {status}", asked.elapsed()));
        }
        if self.canary().len() > 1 {
            writeln!(found, "the canary was touched: {:?}", self.canary()).unwrap();
            self.watch();
        }
        let leaked = self.site.ok(&format!(
            "find /home/alice /.t3pin/alice /tmp /var/tmp -xdev -type f -size -50M -print0 2>/dev/null | xargs -0 -r grep -laF '{MARK}'
             ls -d /tmp/owned /owned /root/owned 2>/dev/null; grep -x 0 /home/alice/ran-as 2>/dev/null; true"
        ));
        if !leaked.is_empty() {
            writeln!(found, "leaked, or done as root: {leaked}").unwrap();
        }
        let now = self.fingerprint();
        if now != self.before {
            writeln!(found, "something of root's or bob's changed:\n{}", difference(&self.before, &now)).unwrap();
            self.before = now;
        }
        if !found.is_empty() {
            println!("ESCAPE {name}: {found}");
            self.escapes.push(name.to_owned());
        }
        for hang in self.hangs.iter().skip(hangs) {
            println!("HANG {hang}");
        }
        let codes: Vec<i32> = outputs.iter().map(|output| output.code).collect();
        println!("  {name}: {codes:?}, {:.1} s", began.elapsed().as_secs_f64());
    }

    /// alice is back on the old version, with her data as it was and nothing under way.
    fn calm(&self) {
        let site = &self.site;
        site.as_user("alice", "python3 /opt/attacker.py stop; python3 /opt/attacker.py undo");
        site.ok("rm -rf /home/alice/ran-as /home/alice/stolen-port");
        site.sh(&format!("t3pin versions clear {GOOD}"));
        site.pin_alice(OLD);
        if site.sh("readlink /var/lib/t3pin/bindings/alice").stdout.contains(GOOD) || site.instance("alice")["state"] == "stuck" {
            site.sh("timeout 120 t3pin rollback alice --force 2>&1");
        }
        site.sh("systemctl reset-failed t3-serve@alice; systemctl is-active -q t3-serve@alice || systemctl start t3-serve@alice");
        site.until("alice's server answers", |site| site.serves("alice") == OLD);
        site.sh(&format!("timeout {DEADLINE} t3pin enforce --wait; t3pin versions clear {GOOD}"));
    }

    fn names(&self, kind: &str) -> Vec<String> {
        self.site.ok(&format!("python3 /opt/attacker.py list {kind}")).lines().map(str::to_owned).collect()
    }
}

/// The lines that two texts do not share.
fn difference(before: &str, after: &str) -> String {
    let only = |mark: &str, one: &str, other: &str| {
        let lines = one.lines().filter(|line| !other.lines().any(|same| same == *line));
        lines.fold(String::new(), |all, line| all + mark + line + "\n")
    };
    only("- ", before, after) + &only("+ ", after, before)
}

/// Whether an attack is to be tried: all of them, or those that contain one of the words in T3PIN_ATTACKS, for whoever looks into one.
fn wanted(name: &str) -> bool {
    std::env::var("T3PIN_ATTACKS").map_or(true, |words| words.split(' ').any(|word| name.contains(word)))
}

impl Site {
    /// Only alice moves.
    fn pin_alice(&self, version: &str) {
        self.write(
            "/etc/t3pin/pin.toml",
            &format!("version = \"{OLD}\"\n[users.alice]\nversion = \"{version}\"\nreason = \"hostile\"\n"),
        );
    }

    fn alice(&self, arguments: &str) -> Output {
        self.as_user("alice", &format!("timeout 60 python3 /opt/attacker.py {arguments}"))
    }

    /// What root asks for while the attack lies in wait: a look, and a bump.
    fn provoke(&self) -> Vec<Output> {
        self.pin_alice(GOOD);
        vec![self.sh("timeout 60 t3pin plan"), self.sh(&format!("timeout {DEADLINE} t3pin enforce --wait"))]
    }
}

#[test]
fn hostile_users_get_nowhere() {
    let mut suite = Suite::begin();
    for name in suite.names("socket") {
        suite.attack(&format!("socket {name}"), |site| vec![site.alice(&format!("socket {name}"))]);
    }
    for name in suite.names("file").into_iter().filter(|name| wanted(&format!("file {name}"))) {
        suite.attack(&format!("file {name}"), |site| {
            let set = site.alice(&format!("file {name}"));
            assert_eq!(set.code, 0, "the attack {name} could not be made: {set}");
            site.provoke()
        });
        suite.calm();
    }
    for name in suite.names("race").into_iter().filter(|name| wanted(&format!("race {name}"))) {
        suite.attack(&format!("race {name}"), |site| {
            let begun = site.alice(&format!("race {name}"));
            assert_eq!(begun.code, 0, "{name}: {begun}");
            let mut all = site.provoke();
            all.extend(site.provoke());
            // What looks for leaks below is root, too, and would follow the same links.
            site.alice("stop");
            all
        });
        suite.calm();
    }
    for name in suite.names("thief").into_iter().filter(|name| wanted(&format!("thief {name}"))) {
        suite.attack(&format!("thief {name}"), |site| {
            let port = site.port("alice");
            site.alice(&format!("thief {name} {port}"));
            site.provoke()
        });
        suite.calm();
    }
    suite.attack("crowd of processes that hold the database", |site| {
        site.alice("crowd");
        let mut all = site.provoke();
        all.push(site.sh("timeout 60 t3pin snapshots alice"));
        all
    });
    suite.calm();
    for crowd in ["namespaces", "thousands"] {
        suite.attack(&format!("crowd of {crowd}"), |site| {
            site.alice(crowd);
            let mut all = site.provoke();
            all.push(site.sh("cat /home/alice/seen-as-root 2>/dev/null | sed 's/^/escape seen in a name space: /'"));
            all
        });
        suite.calm();
    }
    suite.attack("base is a mount of its own", |site| {
        site.ok("mount --bind /home/alice/.t3 /home/alice/.t3");
        let all = site.provoke();
        site.ok("umount -l /home/alice/.t3");
        all
    });
    suite.calm();
    suite.attack("titles that steer a terminal", |site| {
        site.turn("alice", "evil", "start");
        let title = "char(27) || '[2J' || char(10) || 'Agent   idle' || char(7)";
        site.as_user(
            "alice",
            &format!("sqlite3 -cmd '.timeout 5000' .t3/userdata/state.sqlite \"UPDATE projection_threads SET title = {title}\""),
        );
        let mut all = site.provoke();
        all.extend([site.sh("t3pin status"), site.sh("t3pin explain alice"), site.sh("t3pin instances")]);
        site.turn("alice", "evil", "end");
        all
    });
    suite.calm();
    claws::all(&mut suite);
    orders::all(&mut suite);
    hangs::all(&mut suite);
    println!("hostile: {} attacks, {} escapes, {} hangs", suite.attacks, suite.escapes.len(), suite.hangs.len());
    assert!(suite.escapes.is_empty() && suite.hangs.is_empty(), "{:?} {:?}", suite.escapes, suite.hangs);
}
