//! The simulation of t3pin (docs/crash-safety.md): the product's own engine, conduct and vault on a host that is not real, which dies,
//! fails and is meddled with as schedules have it, while the promises of DESIGN section 2 are looked after.
//!
//! `simulation [--schedules N] [--for DURATION] [--first SEED] [--threads N]` runs many; `simulation --seed SEED` runs one, and tells all
//! that happens. The last line is `simulation: N schedules, M broken promises, T of U transitions`; the exit code is 0 only when M
//! is 0 and T is U.
#![allow(clippy::expect_used)]

mod disk;
mod host;
mod ledger;
mod machine;
mod promises;
mod rng;
mod run;
mod schedule;
mod shrink;
mod t3;
mod transitions;
mod unit;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use run::{Seen, run};
use schedule::{Schedule, Stage};

/// So many schedules are run when nothing else is asked for.
const SCHEDULES: u64 = 20_000;
/// So many of those that broke a promise are made small and told of.
const TOLD: usize = 3;

struct Arguments {
    schedules: u64,
    time: Option<Duration>,
    first: u64,
    threads: usize,
    one: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!(
                "simulation: {why}\nusage: simulation [--schedules N] [--for DURATION] [--first SEED] [--threads N] | --seed SEED"
            );
            return ExitCode::from(2);
        }
    };
    match arguments.one {
        Some(seed) => replay(seed),
        None => many(&arguments),
    }
}

fn arguments() -> Result<Arguments, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut found = Arguments { schedules: SCHEDULES, time: None, first: 0, threads, one: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} wants a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{value} is no number"));
        match word.as_str() {
            "--schedules" => found.schedules = number()?,
            "--first" => found.first = number()?,
            "--threads" => found.threads = usize::try_from(number()?).unwrap_or(1).max(1),
            "--seed" => found.one = Some(number()?),
            "--for" => {
                let split =
                    value.find(|c: char| !c.is_ascii_digit()).ok_or_else(|| format!("{value} lacks a unit: s, m or h"))?;
                let (count, unit) = value.split_at(split);
                let seconds = match unit {
                    "s" => 1,
                    "m" => 60,
                    "h" => 3600,
                    _ => return Err(format!("{value} is no duration, as 90s, 10m or 8h are")),
                };
                let count: u64 = count.parse().map_err(|_| format!("{value} is no duration"))?;
                found.time = Some(Duration::from_secs(count.saturating_mul(seconds)));
                found.schedules = u64::MAX;
            }
            _ => return Err(format!("there is no {word}")),
        }
    }
    Ok(found)
}

/// How many calls a stage takes when nothing goes wrong; found out once.
fn calls(stage: Stage) -> u64 {
    static KNOWN: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());
    let plain = Stage { servers_first: false, proxy_down: false, with_log: false, keep: 1, ..stage };
    let name = format!("{plain:?}");
    if let Some(calls) = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get(&name) {
        return *calls;
    }
    let calls = run(&Schedule { seed: 0, stage: plain, faults: Vec::new() }, false).calls;
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).insert(name, calls);
    calls
}

fn many(arguments: &Arguments) -> ExitCode {
    let begun = Instant::now();
    let (next, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    let done = AtomicU64::new(0);
    let visited = Mutex::new(BTreeSet::new());
    let broken: Mutex<BTreeMap<u64, Seen>> = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| {
                let mut mine = BTreeSet::new();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= arguments.schedules || arguments.time.is_some_and(|time| begun.elapsed() >= time) {
                        break;
                    }
                    let seed = arguments.first.wrapping_add(at);
                    let mut seen = run(&Schedule::of(seed, calls), false);
                    mine.append(&mut seen.visited);
                    done.fetch_add(1, Ordering::Relaxed);
                    if !seen.broken.is_empty() {
                        broken.lock().unwrap_or_else(PoisonError::into_inner).insert(seed, seen);
                    }
                }
                visited.lock().unwrap_or_else(PoisonError::into_inner).append(&mut mine);
            });
        }
        scope.spawn(|| {
            while std::io::stderr().is_terminal() && !ended.load(Ordering::Relaxed) {
                let done = done.load(Ordering::Relaxed);
                if done >= arguments.schedules || arguments.time.is_some_and(|time| begun.elapsed() >= time) {
                    break;
                }
                eprint!("\r{done} schedules in {} s ", begun.elapsed().as_secs());
                std::io::stderr().flush().ok();
                std::thread::sleep(Duration::from_millis(500));
            }
        });
    });
    if std::io::stderr().is_terminal() {
        eprintln!("\r");
    }
    let visited = visited.into_inner().unwrap_or_else(PoisonError::into_inner);
    let broken = broken.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (seed, seen) in broken.iter().take(TOLD) {
        tell(*seed, seen);
    }
    for (seed, seen) in broken.iter().skip(TOLD).take(20) {
        let first = seen.broken.first();
        println!("seed {seed}: {}", first.map_or_else(String::new, |first| format!("promise {}: {}", first.promise, first.what)));
    }
    let all = transitions::all();
    for (phase, cue) in all.difference(&visited) {
        println!("never seen: {phase:?} by {cue:?}");
    }
    let (done, taken) = (done.into_inner(), all.intersection(&visited).count());
    println!("{} schedules a second", done * 1000 / (begun.elapsed().as_millis() as u64).max(1));
    println!("simulation: {done} schedules, {} broken promises, {taken} of {} transitions", broken.len(), all.len());
    if broken.is_empty() && taken == all.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says what was broken, and by how little.
fn tell(seed: u64, seen: &Seen) {
    for broken in &seen.broken {
        println!("seed {seed}: promise {} is broken: {}", broken.promise, broken.what);
    }
    let small = shrink::shrink(&Schedule::of(seed, calls), seen);
    println!("  as little as this is enough ({} of its faults), on {:?}:", small.faults.len(), small.stage);
    for fault in &small.faults {
        println!("    {:?}: {:?}", fault.at, fault.what);
    }
    println!("  to see it happen: simulation --seed {seed}");
}

/// Runs one schedule, and tells all that happens in the small one when it breaks a promise, else in itself.
fn replay(seed: u64) -> ExitCode {
    let whole = Schedule::of(seed, calls);
    println!("{whole:#?}");
    let seen = run(&whole, false);
    let schedule = if seen.broken.is_empty() { whole } else { shrink::shrink(&whole, &seen) };
    let seen = run(&schedule, true);
    for line in &seen.trace {
        println!("{line}");
    }
    if !seen.broken.is_empty() {
        tell(seed, &seen);
    }
    println!(
        "simulation: 1 schedules, {} broken promises, {} of {} transitions",
        usize::from(!seen.broken.is_empty()),
        seen.visited.len(),
        transitions::all().len()
    );
    if seen.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
