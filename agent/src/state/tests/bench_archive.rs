//! What the archive costs, with the alternatives beside it. Prints rows, judges nothing: tests/bench/archive does.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use rusqlite::Connection;

use super::stage::{BUMP, FileSystem, Stage, as_user};
use crate::domain::BumpId;
use crate::state::archive::shelf::Shelf;
use crate::state::archive::{check, fetch, put};
use crate::state::vault_dirs::own_uid;
use crate::worker::files::{Deadline, Dir};

/// A chat store: messages and events with text that compresses about three times, random keys, and indexes on them.
struct Chat {
    state: u64,
}

impl Chat {
    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn text(&mut self, words: usize) -> String {
        const SYLLABLES: [&str; 16] =
            ["ka", "to", "ren", "mi", "sol", "ver", "ta", "no", "ik", "lu", "per", "an", "dis", "qua", "os", "em"];
        let mut text = String::new();
        for _ in 0..words {
            // Few words are frequent, many are rare.
            let mut word = self.next() % 4000;
            word = word * word / 4000;
            for _ in 0..3 {
                text.push_str(SYLLABLES[(word % 16) as usize]);
                word /= 16;
            }
            text.push(' ');
        }
        text
    }

    fn key(&mut self) -> String {
        format!("{:016x}{:016x}", self.next(), self.next())
    }

    fn fill(&mut self, connection: &Connection, bytes: u64, path: &Path) {
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
                 CREATE TABLE messages (id TEXT PRIMARY KEY, thread TEXT, at INTEGER, body TEXT);
                 CREATE INDEX by_thread ON messages (thread, at);",
            )
            .unwrap();
        while fs::metadata(path).map_or(0, |meta| meta.len()) < bytes {
            connection.execute_batch("BEGIN").unwrap();
            for _ in 0..2000 {
                let (id, thread, at, body) = (self.key(), self.key(), self.next() as i64, self.text(200));
                connection.execute("INSERT INTO messages VALUES (?1, ?2, ?3, ?4)", (id, thread, at, body)).unwrap();
            }
            connection.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE);").unwrap();
        }
    }

    /// Writes to one page in a hundred.
    fn change(&mut self, connection: &Connection) {
        let rows: i64 = connection.query_row("SELECT max(rowid) FROM messages", [], |row| row.get(0)).unwrap();
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        connection.execute_batch("BEGIN").unwrap();
        for _ in 0..pages / 100 {
            let (at, row) = (self.next() as i64, (self.next() % rows.unsigned_abs()) as i64 + 1);
            connection
                .execute("UPDATE messages SET body = substr(body, 1, 20) || ?1 || substr(body, 40) WHERE rowid = ?2", (at, row))
                .unwrap();
        }
        connection.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE);").unwrap();
    }
}

fn on_disk(dir: &Path) -> u64 {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap())
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => on_disk(&entry.path()),
            false => entry.metadata().unwrap().blocks() * 512,
        })
        .sum()
}

fn zstd_bytes(path: &Path) -> u64 {
    let mut file = fs::File::open(path).unwrap();
    let mut counted = 0u64;
    struct Count<'c>(&'c mut u64);
    impl Write for Count<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            *self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut encoder = zstd::stream::Encoder::new(Count(&mut counted), 1).unwrap();
    std::io::copy(&mut file, &mut encoder).unwrap();
    encoder.finish().unwrap();
    counted
}

#[test]
#[ignore = "a measurement: tests/bench/archive"]
fn ten_bumps_of_a_hundred_megabytes() {
    let fs = FileSystem::on_disk();
    let stage = Stage::new(&fs, "alice");
    stage.write("environment-id", b"id", 0o644);
    let path = stage.userdata().join("state.sqlite");
    let open = path.clone();
    as_user(move || {
        let connection = Connection::open(&open).unwrap();
        Chat { state: 88_172_645_463_325_252 }.fill(&connection, 100_000_000, &open);
    });
    let size = fs::metadata(&path).unwrap().len();
    let (mut full, mut vacuumed) = (0, 0);
    for n in 0..10u32 {
        if n > 0 {
            let open = path.clone();
            as_user(move || Chat { state: u64::from(n) * 7_919 + 1 }.change(&Connection::open(&open).unwrap()));
        }
        full += zstd_bytes(&path);
        let other = fs.path().join("vacuumed");
        Connection::open(&path).unwrap().execute("VACUUM INTO ?1", [other.to_str().unwrap()]).unwrap();
        vacuumed = fs::metadata(&other).unwrap().len();
        fs::remove_file(other).unwrap();
        let (_, snapshot) = stage.secure("0.0.24").unwrap();
        stage.switch_in().unwrap();
        stage.vault.archive(&stage.place, BUMP).unwrap();
        let dir = snapshot.path.parent().unwrap().join(BumpId(n + 100).to_string());
        fs::rename(&snapshot.path, dir).unwrap();
    }
    let archive = on_disk(stage.vault.user_dir("snapshots", &stage.place.account.user).unwrap().path());
    let mb = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "ROW ten bumps of a {:.0} MB database, 1 % change each, on disk | {:.1} MB | 80 MB | {}",
        mb(size),
        mb(archive),
        archive < 80_000_000
    );
    println!(
        "ALT ten full zstd -1 copies: {:.1} MB ({:.1} x); VACUUM INTO, the last six kept: {:.1} MB ({:.1} x)",
        mb(full),
        mb(full) / mb(archive),
        mb(6 * vacuumed),
        mb(6 * vacuumed) / mb(archive)
    );
}

#[test]
#[ignore = "a measurement: tests/bench/archive"]
fn a_gigabyte_into_the_archive_and_back() {
    let root = tempfile::tempdir().unwrap();
    let vault = crate::state::Vault::open(root.path()).unwrap();
    let from = root.path().join("from");
    fs::create_dir(&from).unwrap();
    let path = from.join("state.sqlite");
    Chat { state: 88_172_645_463_325_252 }.fill(&Connection::open(&path).unwrap(), 1_000_000_000, &path);
    let size = fs::metadata(&path).unwrap().len();
    let start = Instant::now();
    fs::copy(&path, root.path().join("copied")).unwrap();
    fs::File::open(root.path().join("copied")).unwrap().sync_all().unwrap();
    let copied = start.elapsed().as_secs_f64();
    fs::remove_file(root.path().join("copied")).unwrap();
    let shelf = Shelf::open(&vault, &"alice".parse().unwrap()).unwrap();
    let source = Dir::open(&from).unwrap();
    let mut took = Vec::new();
    for changed in [false, true] {
        if changed {
            Chat { state: 5 }.change(&Connection::open(&path).unwrap());
        }
        let start = Instant::now();
        let put = put::put(&shelf, &source, &["state.sqlite"], own_uid(), &put::Damage::new(), Deadline::NONE).unwrap();
        took.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        let subject = check::Subject { entries: &put.entries, recipe: &put.recipe, pages_digest: &put.pages_digest };
        assert!(check::check(&shelf, &[subject], Deadline::NONE, |_, _| ()).unwrap().wrong[0].is_none());
        took.push(start.elapsed().as_secs_f64());
        let to = root.path().join("to");
        fs::create_dir(&to).unwrap();
        let start = Instant::now();
        fetch::fetch(&shelf, &put.entries, &put.recipe, |_| true, &Dir::open(&to).unwrap(), Deadline::NONE).unwrap();
        fs::File::open(to.join("state.sqlite")).unwrap().sync_all().unwrap();
        took.push(start.elapsed().as_secs_f64());
        fs::remove_dir_all(to).unwrap();
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse::<u64>()
        .unwrap();
    println!(
        "ROW peak memory of archiving, verifying and restoring {:.0} MB | {:.1} MB | 64 MB | {}",
        size as f64 / 1e6,
        peak as f64 * 1024.0 / 1e6,
        peak * 1024 < 64_000_000
    );
    println!(
        "ALT cp and sync {copied:.1} s; first snapshot {:.1} s, read back {:.1} s, restored {:.1} s; after 1 % change {:.1} s, read back {:.1} s, restored {:.1} s",
        took[0], took[1], took[2], took[3], took[4], took[5]
    );
}
