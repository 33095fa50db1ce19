//! What the data costs, measured on the disk that holds the temporary directory: `tests/bench/data` runs it and prints a table.
//!
//! The very code that the agent and its worker run, with the worker on a thread and a server that is a process of its own. Prints one
//! line per number, `bench<TAB>name<TAB>value...`, and judges nothing.

use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::process::Process;
use super::stage::{BUMP, FileSystem, Stage, as_user};
use crate::state::secure;
use crate::worker::tasks::seed::begin;

/// Bytes that a server changes between the copy and its stop: one hundredth of the large database.
const CHANGED: u64 = 10 << 20;
/// The large and the small database, in MB.
const LARGE: u64 = 1050;
const SMALL: u64 = 105;

/// A server on a database.
fn server(database: &Path) -> Process {
    Process::start("state::tests::bench::plays_the_server", database)
}

/// `change N`: changes about N bytes in one row each; `commit`: commits 50 times a second until the next line, and says the
/// slowest one's time in ms.
#[test]
#[ignore = "is a process of its own, started by the benchmark"]
fn plays_the_server() {
    let Some(path) = std::env::var_os("T3PIN_TEST_DATABASE").map(PathBuf::from) else { return };
    let db = Connection::open(path).unwrap();
    db.busy_timeout(Duration::from_secs(30)).unwrap();
    db.execute_batch("PRAGMA synchronous=FULL; UPDATE work SET n = n WHERE id = 1").unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || std::io::stdin().lock().lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
    println!("\nsaid ready");
    while let Ok(line) = told.recv() {
        if let Some(bytes) = line.strip_prefix("change ") {
            let rows: i64 = bytes.parse::<i64>().unwrap() / 4096;
            let all: i64 = db.query_row("SELECT max(id) FROM work", [], |row| row.get(0)).unwrap();
            for row in 0..rows {
                let id = 1 + row * all / rows;
                db.execute("UPDATE work SET n = n + 1 WHERE id = ?1", [id]).unwrap();
                if row == 0 {
                    db.execute_batch("PRAGMA synchronous=OFF").unwrap();
                }
            }
            db.execute_batch("PRAGMA synchronous=FULL").unwrap();
            println!("\nsaid changed");
        } else if line == "commit" {
            let mut slowest = Duration::ZERO;
            let mut id = 1;
            while told.try_recv().is_err() {
                let begun = Instant::now();
                db.execute("UPDATE work SET n = n + 1 WHERE id = ?1", [id]).unwrap();
                slowest = slowest.max(begun.elapsed());
                id += 7;
                std::thread::sleep(Duration::from_millis(20).saturating_sub(begun.elapsed()));
            }
            println!("\nsaid {}", slowest.as_secs_f64() * 1000.0);
        }
    }
}

/// `n` begins where counting on does not make a row longer, so that every change writes as many pages.
///
/// A chat store: rows of text with random keys and two indexes, in pages of 4 KiB, `megabytes` altogether.
fn fill(path: &Path, megabytes: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let db = Connection::open(path).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA cache_size=-32000;
         CREATE TABLE work(id INTEGER PRIMARY KEY, key TEXT, thread TEXT, n INTEGER, body TEXT);
         CREATE INDEX work_key ON work(key); CREATE INDEX work_thread ON work(thread, id);",
    )
    .unwrap();
    while fs::metadata(path).unwrap().len() < megabytes * 1_000_000 {
        db.execute_batch(
            "INSERT INTO work(key, thread, n, body)
             WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 2000)
             SELECT hex(randomblob(16)), 'thread ' || abs(random() % 500), 1000, hex(randomblob(1200)) || replace(hex(zeroblob(400)), '0', 'word ') FROM c;
             PRAGMA wal_checkpoint(PASSIVE);",
        )
        .unwrap();
    }
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn say(name: &str, values: &[f64]) {
    let values: String = values.iter().map(|value| format!("\t{value:.2}")).collect();
    println!("bench\t{name}{values}");
}

/// Bump and rollback of a database of `megabytes`: the work in the gap (bringing the copy up to date, custody, switch) and that of the
/// rollback.
fn gap(stage: &Stage, megabytes: u64, round: usize) {
    let database = stage.userdata().join("state.sqlite");
    let mut server = server(&database);
    secure::prepare(&stage.vault, &stage.place, BUMP).unwrap();
    let (live, _) = as_user(|| begin(&stage.userdata(), &stage.seed_dir())).unwrap();
    server.tell(&format!("change {CHANGED}"));
    server.hear();
    server.close();
    let begun = Instant::now();
    let seed = as_user(|| live.finish()).unwrap();
    let finished = ms(begun);
    let late = seed.late_bytes;
    {
        let _lock = stage.vault.lock(&stage.place.account.user).unwrap();
        secure::begin(&stage.vault, &stage.place, BUMP, &"0.0.24".parse().unwrap(), 1, seed).unwrap();
    }
    let taken = ms(begun);
    stage.switch_in().unwrap();
    let switched = ms(begun);
    say(&format!("gap {megabytes}"), &[switched, finished, taken - finished, switched - taken, late as f64]);
    let begun = Instant::now();
    stage.restore(true).unwrap();
    say(&format!("rollback {megabytes}"), &[ms(begun)]);
    // What the next round must not find.
    fs::remove_dir_all(stage.custody().join(if round == 0 { "salvage".to_owned() } else { format!("salvage.{}", round + 1) }))
        .unwrap();
}

fn slowest_commit(server: &mut Process, during: impl FnOnce()) -> f64 {
    server.tell("commit");
    std::thread::sleep(Duration::from_millis(300));
    during();
    server.tell("enough");
    server.hear().parse().unwrap()
}

fn run(program: &str, arguments: &[&str]) {
    assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program}");
}

#[test]
#[ignore = "takes minutes and gigabytes: tests/bench/data"]
fn the_data_is_measured() {
    let rounds: usize = std::env::var("T3PIN_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let fs = FileSystem::on_disk();
    let other = fs.path().join("other");
    let other_name = other.to_str().unwrap();
    for (user, megabytes) in [("small", SMALL), ("large", LARGE)] {
        let stage = Stage::new(&fs, user);
        let database = stage.userdata().join("state.sqlite");
        as_user(|| fill(&database, megabytes));
        let name = database.to_str().unwrap();
        for round in 0..rounds {
            gap(&stage, megabytes, round);
        }
        if megabytes != LARGE {
            continue;
        }
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        for _ in 0..rounds {
            let server = server(&database);
            let begun = Instant::now();
            run("cp", &[name, other_name]);
            run("sync", &[other_name]);
            let cp = ms(begun);
            std::fs::remove_file(&other).unwrap();
            let begun = Instant::now();
            run("sqlite3", &[name, &format!("VACUUM INTO '{other_name}'")]);
            let vacuum = ms(begun);
            std::fs::remove_file(&other).unwrap();
            let (live, report) = as_user(|| begin(&stage.userdata(), &stage.seed_dir())).unwrap();
            say("seed", &[report.copied_ms as f64, cp, vacuum, report.checked_ms as f64]);
            drop(live);
            server.close();
        }
        for _ in 0..rounds {
            let mut server = server(&database);
            let idle = slowest_commit(&mut server, || std::thread::sleep(Duration::from_secs(2)));
            let dd = slowest_commit(&mut server, || {
                run("dd", &[&format!("if={name}"), &format!("of={other_name}"), "bs=1M", "conv=fsync", "status=none"]);
            });
            std::fs::remove_file(&other).unwrap();
            run("sync", &[]);
            let seed = slowest_commit(&mut server, || drop(as_user(|| begin(&stage.userdata(), &stage.seed_dir())).unwrap()));
            server.close();
            say("commit", &[seed, dd, idle]);
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB").trim();
        say("peak", &[peak.parse::<f64>().unwrap() / 1024.0]);
    }
}
