#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::domain::AttendedTry;
use crate::engine::bump::sample;
use crate::engine::{Outcome, Phase};

fn at(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("journal.sqlite")
}

fn closed(journal: &Journal, user: &str, to: &str, now: UnixMs) -> Bump {
    let mut bump = sample(journal.new_bump_id().unwrap(), user);
    bump.to = to.parse().unwrap();
    bump.phase = Phase::Closed(Outcome::Done);
    journal.record(&bump, None, now).unwrap();
    bump
}

/// What must never be taken wrongly: open bumps, freeze, quarantine, the number of the next bump.
#[derive(Debug, Clone, PartialEq)]
struct Truth {
    open: Vec<Bump>,
    freeze: Option<Freeze>,
    quarantine: Vec<Quarantine>,
    last: BumpId,
}

fn truth(journal: &Journal) -> Truth {
    Truth {
        open: journal.open_bumps().unwrap(),
        freeze: journal.freeze().unwrap(),
        quarantine: journal.quarantine().unwrap(),
        last: BumpId(journal.value(LAST_ID).unwrap().unwrap().parse().unwrap()),
    }
}

/// A journal with a past, an open bump that has got far, a quarantined version and a freeze.
fn lived(journal: &Journal) -> Truth {
    for n in 0..4 {
        closed(journal, "bob", "0.0.25", n);
    }
    journal.add_quarantine(&"0.0.91".parse().unwrap(), "it crashes", 3).unwrap();
    journal.set_freeze(Some(&Freeze { since_ms: 4, reason: Some("conference".to_owned()) })).unwrap();
    let mut bump = sample(journal.new_bump_id().unwrap(), "alice");
    for phase in [Phase::Planned, Phase::Secured, Phase::Switched, Phase::Started] {
        bump.phase = phase;
        journal.record(&bump, Some(&Event::GoAhead), 5).unwrap();
    }
    truth(journal)
}

/// The files of a journal whose agent was killed: the write-ahead log is still there.
fn killed() -> (tempfile::TempDir, Truth) {
    static ONCE: LazyLock<(tempfile::TempDir, Truth)> = LazyLock::new(|| {
        let (living, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let journal = Journal::open(&at(&living)).unwrap();
        journal.settle_finding().unwrap();
        let truth = lived(&journal);
        copy_tree(living.path(), dir.path());
        assert!(disk::beside(&at(&dir), "-wal").metadata().unwrap().len() > 0);
        (dir, truth)
    });
    another(&ONCE)
}

/// The files of a journal that was closed.
fn ended() -> (tempfile::TempDir, Truth) {
    static ONCE: LazyLock<(tempfile::TempDir, Truth)> = LazyLock::new(|| {
        let (dir, truth) = killed();
        drop(Journal::open(&at(&dir)).unwrap());
        (dir, truth)
    });
    another(&ONCE)
}

fn another((dir, truth): &(tempfile::TempDir, Truth)) -> (tempfile::TempDir, Truth) {
    let copy = tempfile::tempdir().unwrap();
    copy_tree(dir.path(), copy.path());
    (copy, truth.clone())
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn names(dir: &tempfile::TempDir) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Opened, it says the truth, tells what it found and what was done, and has kept what was there; opened again, all is well.
fn found_and_repaired(dir: &tempfile::TempDir, truth_before: &Truth, what: &str) {
    let journal = Journal::open(&at(dir)).unwrap();
    assert_eq!(truth(&journal), *truth_before, "{what}");
    let reports = journal.reports();
    assert_eq!(reports.len(), 1, "{what}: {reports:?}");
    assert!(reports[0].found.contains(what), "{what}: {}", reports[0].found);
    assert!(reports[0].aside.is_dir());
    drop(journal);
    let again = Journal::open(&at(dir)).unwrap();
    assert_eq!((truth(&again), again.reports().len()), (truth_before.clone(), 1), "{what}");
}

#[test]
fn what_was_recorded_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let bump = {
        let journal = Journal::open(&at(&dir)).unwrap();
        let bump = sample(journal.new_bump_id().unwrap(), "alice");
        journal.record(&bump, Some(&Event::GoAhead), 5).unwrap();
        bump
    };
    let journal = Journal::open(&at(&dir)).unwrap();
    assert_eq!(journal.open_bumps().unwrap(), vec![bump.clone()]);
    assert_eq!(journal.open_bump(bump.instance.user()).unwrap(), Some(bump.clone()));
    let told = journal.story(bump.id).unwrap();
    assert_eq!((told.len(), told[0].at_ms, told[0].phase.as_str()), (1, 5, "planned"));
    assert!(journal.new_bump_id().unwrap() > bump.id);
    assert!(journal.closed_bumps(None, 10).unwrap().is_empty());
    assert!(journal.reports().is_empty());
}

#[test]
fn the_last_bump_is_found_behind_later_ones_and_whatever_the_clock_said() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&at(&dir)).unwrap();
    for (to, now) in [("0.0.25", 1_000_000), ("0.0.28", 2), ("0.0.28", 3), ("0.0.25", 4)] {
        closed(&journal, "alice", to, now);
    }
    let found = |user: &str, to: &str| journal.last_closed_to(&user.parse().unwrap(), &to.parse().unwrap()).unwrap();
    assert_eq!(found("alice", "0.0.28").map(|bump| bump.id), Some(BumpId(3)));
    assert_eq!(found("alice", "0.0.25").map(|bump| bump.id), Some(BumpId(4)));
    assert_eq!(journal.closed_bumps(None, 1).unwrap()[0].id, BumpId(4));
    assert_eq!((found("alice", "0.0.24"), found("bob", "0.0.28")), (None, None));
}

#[test]
fn nobody_else_reads_or_locks_it() {
    let dir = tempfile::tempdir().unwrap();
    drop(Journal::open(&at(&dir)).unwrap());
    std::fs::set_permissions(at(&dir), std::fs::Permissions::from_mode(0o644)).unwrap();
    let journal = Journal::open(&at(&dir)).unwrap();
    closed(&journal, "alice", "0.0.25", 1);
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.file_name());
    }
}

#[test]
fn a_journal_of_a_newer_agent_is_refused_and_stays_as_it_is() {
    let (dir, _) = ended();
    let connection = rusqlite::Connection::open(at(&dir)).unwrap();
    connection.pragma_update(None, "user_version", 999).unwrap();
    connection.execute("UPDATE meta SET schema = 999", []).unwrap();
    drop(connection);
    let before = (std::fs::read(at(&dir)).unwrap(), names(&dir));
    let error = Journal::open(&at(&dir)).unwrap_err();
    assert!(matches!(error, JournalError::Newer { found: 999, .. }), "{error}");
    assert!(error.to_string().contains("Install that version again; nothing was changed"), "{error}");
    assert_eq!((std::fs::read(at(&dir)).unwrap(), names(&dir)), before);
}

#[test]
fn a_journal_replaced_by_something_else_is_set_aside_and_made_anew() {
    type Replace = fn(&Path);
    let cases: [(&str, Replace); 6] = [
        ("there was a file of 0 bytes in its place", |path| std::fs::write(path, b"").unwrap()),
        ("there was a directory in its place", |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join("kept"), "by somebody").unwrap();
        }),
        ("there was a symbolic link in its place", |path| {
            let elsewhere = path.with_file_name("elsewhere");
            std::fs::rename(path, &elsewhere).unwrap();
            std::os::unix::fs::symlink(elsewhere, path).unwrap();
        }),
        ("it was damaged: file is not a database", |path| std::fs::write(path, "this is no database".repeat(100)).unwrap()),
        ("it was not there", |path| std::fs::remove_file(path).unwrap()),
        ("it was damaged: database disk image is malformed", |path| {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
    ];
    for (what, replace) in cases {
        let (dir, truth) = ended();
        replace(&at(&dir));
        found_and_repaired(&dir, &truth, what);
    }
}

#[test]
fn what_was_set_aside_is_whole_and_a_link_was_not_followed() {
    let (dir, truth_before) = ended();
    let target = dir.path().join("target");
    std::fs::write(&target, "somebody's").unwrap();
    std::fs::remove_file(at(&dir)).unwrap();
    std::os::unix::fs::symlink(&target, at(&dir)).unwrap();
    let journal = Journal::open(&at(&dir)).unwrap();
    assert_eq!(truth(&journal), truth_before);
    let aside = journal.reports()[0].aside.join("journal.sqlite");
    assert_eq!(std::fs::read_link(aside).unwrap(), target);
    assert_eq!(std::fs::read_to_string(target).unwrap(), "somebody's");
}

#[test]
fn a_lost_write_ahead_log_and_an_old_file_put_back_are_noticed() {
    let (dir, truth) = killed();
    std::fs::remove_file(disk::beside(&at(&dir), "-wal")).unwrap();
    found_and_repaired(&dir, &truth, "it ");

    let (dir, _) = ended();
    let old = std::fs::read(at(&dir)).unwrap();
    let journal = Journal::open(&at(&dir)).unwrap();
    journal.add_quarantine(&"0.0.92".parse().unwrap(), "it hangs", 9).unwrap();
    closed(&journal, "carol", "0.0.25", 7);
    let later = self::truth(&journal);
    drop(journal);
    std::fs::write(at(&dir), old).unwrap();
    found_and_repaired(&dir, &later, "an old file was put in its place");
}

#[test]
fn only_a_success_that_began_after_the_failure_lifts_a_quarantine_and_then_for_good() {
    let (dir, _) = ended();
    let journal = Journal::open(&at(&dir)).unwrap();
    let version: Version = "0.0.92".parse().unwrap();
    let word = AttendedTry { user: "alice".parse().unwrap(), at_ms: 20 };
    journal.add_quarantine(&version, "it hangs", 9).unwrap();
    journal.attend(&version, &word).unwrap();
    assert!(!journal.vindicate(&version, 9, 30).unwrap(), "that one was under way by then");
    assert!(!journal.vindicate(&"0.0.93".parse().unwrap(), 21, 30).unwrap());
    drop(journal);
    let journal = Journal::open(&at(&dir)).unwrap();
    assert_eq!(journal.attended().unwrap(), [(version.clone(), word)].into());
    assert!(journal.vindicate(&version, 21, 30).unwrap());
    assert!(!journal.vindicate(&version, 21, 31).unwrap(), "once");
    drop(journal);
    let journal = Journal::open(&at(&dir)).unwrap();
    assert!(!journal.quarantine().unwrap().iter().any(|quarantine| quarantine.version == version));
    assert_eq!((journal.attended().unwrap(), journal.cleared().unwrap()[&version]), ([].into(), 30));
}

#[test]
fn the_last_record_counts_when_only_its_copy_was_written() {
    let (dir, _) = ended();
    let journal = Journal::open(&at(&dir)).unwrap();
    let mut bump = journal.open_bumps().unwrap().remove(0);
    bump.phase = Phase::Verified;
    let draft = {
        let inner = journal.lock();
        let seq = inner.standing.seq + 1;
        std::mem::forget(inner.copies.draft(seq, Content::Bump(&bump)).unwrap());
        seq
    };
    drop(journal);
    let journal = Journal::open(&at(&dir)).unwrap();
    assert_eq!(journal.open_bumps().unwrap(), vec![bump]);
    assert_eq!((journal.lock().standing.seq, journal.reports()), (draft, vec![]));
}

#[test]
fn a_record_that_cannot_be_written_leaves_no_copy_that_counts() {
    let (dir, truth_before) = ended();
    let journal = Journal::open(&at(&dir)).unwrap();
    journal.lock().connection.execute_batch("PRAGMA query_only = on").unwrap();
    let mut bump = truth_before.open[0].clone();
    bump.phase = Phase::Verified;
    journal.record(&bump, None, 9).unwrap_err();
    journal.set_freeze(None).unwrap_err();
    assert_eq!(truth(&journal), truth_before);
    drop(journal);
    assert_eq!(truth(&Journal::open(&at(&dir)).unwrap()), truth_before);
}

#[test]
fn without_journal_and_copies_nothing_is_believed_and_the_host_is_frozen() {
    let (dir, before) = ended();
    std::fs::remove_dir_all(dir.path().join("journal.copies")).unwrap();
    std::fs::write(at(&dir), "torn").unwrap();
    let journal = Journal::open(&at(&dir)).unwrap();
    assert!(journal.open_bumps().unwrap().is_empty());
    assert!(journal.freeze().unwrap().unwrap().reason.unwrap().contains("t3pin thaw"));
    let finding = journal.finding().unwrap();
    assert!(finding.host_unknown && !finding.nothing);
    // Whoever looks at the disk reserves the numbers that it knows of.
    journal.reserve(before.last).unwrap();
    assert!(journal.new_bump_id().unwrap() > before.last);
    journal.settle_finding().unwrap();
    assert_eq!(journal.finding(), None);
}

#[test]
fn where_there_was_nothing_a_new_journal_begins_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&at(&dir)).unwrap();
    assert!(journal.finding().unwrap().nothing);
    assert_eq!(journal.freeze().unwrap(), None);
}

#[test]
fn copies_that_are_gone_or_altered_are_made_anew() {
    let (dir, before) = ended();
    let copies = dir.path().join("journal.copies");
    let good = std::fs::read(copies.join("b000005")).unwrap();
    std::fs::write(copies.join("b000005"), "x").unwrap();
    std::fs::remove_file(copies.join("facts")).unwrap();
    let journal = Journal::open(&at(&dir)).unwrap();
    assert_eq!(truth(&journal), before);
    assert!(journal.reports()[0].found.contains("its copy b000005"));
    assert_eq!(journal.finding(), None);
    assert_eq!(std::fs::read(copies.join("b000005")).unwrap(), good);
    drop(journal);
    std::fs::remove_dir_all(&copies).unwrap();
    std::os::unix::fs::symlink("/nonexistent", &copies).unwrap();
    assert_eq!(truth(&Journal::open(&at(&dir)).unwrap()), before);
    assert!(copies.join("b000005").is_file());
}

#[test]
fn the_copies_stay_few() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&at(&dir)).unwrap();
    journal.record(&sample(journal.new_bump_id().unwrap(), "alice"), None, 1).unwrap();
    for n in 0..250 {
        closed(&journal, "bob", "0.0.25", n);
    }
    let copies = std::fs::read_dir(dir.path().join("journal.copies")).unwrap().count();
    assert_eq!(copies, 200 + 2, "200 closed ones, the open one, the facts");
}

/// The tables of schema 1, as the agents before this one wrote them.
const FIRST_SCHEMA: &str = "
    CREATE TABLE bump_ids (id INTEGER PRIMARY KEY AUTOINCREMENT);
    CREATE TABLE bumps (
        id INTEGER PRIMARY KEY, user TEXT NOT NULL, closed INTEGER NOT NULL, body TEXT NOT NULL, updated_ms INTEGER NOT NULL
    );
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, bump INTEGER NOT NULL, at_ms INTEGER NOT NULL, phase TEXT NOT NULL, body TEXT NOT NULL
    );
    CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE quarantine (version TEXT PRIMARY KEY, reason TEXT NOT NULL, since_ms INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE cleared (version TEXT PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO bump_ids VALUES (7);
    INSERT INTO facts VALUES ('freeze', '{\"since_ms\":4,\"reason\":null}');
    INSERT INTO quarantine VALUES ('0.0.91', 'it crashes', 3);
    INSERT INTO cleared VALUES ('0.0.92', 4);
    PRAGMA user_version = 1;";

#[test]
fn a_journal_of_the_first_schema_is_taken_over_and_kept_until_the_next_start_is_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let open = sample(BumpId(7), "alice");
    let first = rusqlite::Connection::open(at(&dir)).unwrap();
    first.pragma_update(None, "journal_mode", "wal").unwrap();
    first.execute_batch(FIRST_SCHEMA).unwrap();
    first.execute("INSERT INTO bumps VALUES (7, 'alice', 0, ?1, 5)", [serde_json::to_string(&open).unwrap()]).unwrap();
    first
        .execute("INSERT INTO events (bump, at_ms, phase, body) VALUES (7, 5, '\"planned\"', '{\"event\":\"go-ahead\"}')", [])
        .unwrap();
    drop(first);

    let journal = Journal::open(&at(&dir)).unwrap();
    assert_eq!(journal.open_bumps().unwrap(), vec![open]);
    assert_eq!(journal.quarantine().unwrap()[0].reason, "it crashes");
    assert_eq!(journal.cleared().unwrap()[&"0.0.92".parse().unwrap()], 4);
    assert!(journal.freeze().unwrap().is_some());
    assert_eq!(journal.story(BumpId(7)).unwrap().len(), 1);
    assert_eq!(journal.new_bump_id().unwrap(), BumpId(8));
    assert!(journal.finding().is_none() && journal.reports().is_empty());
    journal.confirm();
    drop(journal);

    let kept = disk::beside(&at(&dir), ".before-2");
    let old = rusqlite::Connection::open(&kept).unwrap();
    let read: (i64, i64) = old
        .query_row("SELECT (SELECT user_version FROM pragma_user_version), (SELECT id FROM bumps)", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(read, (1, 7), "the agent before this one reads it");
    drop(old);
    Journal::open(&at(&dir)).unwrap().confirm();
    assert!(!kept.exists());
}

/// Flips one bit, or cuts the file off there.
fn spoil(path: &Path, place: prop::sample::Index, bit: Option<u8>) {
    let mut content = std::fs::read(path).unwrap();
    let at = place.index(content.len());
    match bit {
        Some(bit) => content[at] ^= 1 << bit,
        None => content.truncate(at),
    }
    std::fs::write(path, content).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_flipped_bit_and_no_cut_makes_a_wrong_bump_believed(
        place in any::<prop::sample::Index>(), bit in prop::option::of(0..8u8), was_killed in any::<bool>(), wal in any::<bool>(),
    ) {
        let (dir, before) = if was_killed { killed() } else { ended() };
        let suffix = if was_killed && wal { "-wal" } else { "" };
        spoil(&disk::beside(&at(&dir), suffix), place, bit);
        match Journal::open(&at(&dir)) {
            Ok(journal) => prop_assert_eq!(truth(&journal), before),
            // The number of the schema itself was hit: refused, loudly, and nothing changed.
            Err(error) => prop_assert!(matches!(error, JournalError::Newer { .. }), "{}", error),
        }
    }

    #[test]
    fn without_its_copies_a_spoiled_journal_is_whole_or_says_what_it_does_not_know(
        place in any::<prop::sample::Index>(), bit in prop::option::of(0..8u8),
    ) {
        let (dir, before) = ended();
        std::fs::remove_dir_all(dir.path().join("journal.copies")).unwrap();
        spoil(&at(&dir), place, bit);
        let Ok(journal) = Journal::open(&at(&dir)) else { return Ok(()) };
        match journal.finding() {
            None => prop_assert_eq!(truth(&journal), before),
            Some(finding) => {
                prop_assert!(finding.host_unknown && journal.freeze().unwrap().is_some());
                for open in journal.open_bumps().unwrap() {
                    prop_assert!(finding.doubtful.contains(&open.id));
                    prop_assert_eq!(&open, &before.open[0], "what is still told is what was written");
                }
            }
        }
    }
}

#[test]
#[ignore = "writes into the journal of the machine that tests/bench/draining runs it in"]
fn a_waiting_bump_is_made_for_many_users() {
    let users = std::env::var("T3PIN_BENCH_USERS").unwrap();
    let journal = Journal::open(std::path::Path::new("/var/lib/t3pin/journal.sqlite")).unwrap();
    let first = serde_json::to_string(&journal.open_bump(&"alice".parse().unwrap()).unwrap().unwrap()).unwrap();
    for (number, user) in (20_000..).zip(users.split_whitespace()) {
        let mut bump: Bump = serde_json::from_str(&first.replace("alice", user)).unwrap();
        bump.id = journal.new_bump_id().unwrap();
        (bump.instance.place.account.uid, bump.instance.place.account.gid) = (number.into(), number.into());
        bump.instance.port = number;
        journal.record(&bump, None, jiff::Timestamp::now().as_millisecond()).unwrap();
    }
}
