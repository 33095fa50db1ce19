//! The copy for the new version, made with the server stopped.

use std::path::Path;

use super::super::work_copy::{DATABASE, SIDECARS, empty, finish_database, fresh, open_userdata};
use crate::domain::{ATTACHMENTS, STATE_ENTRIES, SeedMethod, SeedReport, StateEntry, copied_entries};
use crate::worker::files::{Deadline, close, copy_entries, dress, keep_alike, lying, own_uid, sync_tree};
use crate::worker::protocol::{TaskError, TaskErrorKind};

/// See [`crate::worker::Task::Seed`].
///
/// The database is copied with its `-wal` (and a rollback journal, if something left one) and then brought up to date in
/// the copy by SQLite itself; its journal mode stays what it was. The copy has the modes of the originals.
pub fn seed(userdata: &Path, dest: &Path) -> Result<SeedReport, TaskError> {
    let owner = own_uid();
    let source = open_userdata(userdata, owner)?;
    let copy = fresh(dest)?;
    let Some(source) = source else {
        sync_tree(&copy, owner)?;
        return Ok(SeedReport {
            originals: Vec::new(),
            migration_level: None,
            bytes: 0,
            method: method(false),
            late_bytes: 0,
            log: false,
            attachments: None,
        });
    };
    match source.stat(DATABASE)? {
        Some(seen) if seen.bytes == 0 && seen.kind.is_some() => {
            seen.check(&userdata.join(DATABASE), owner)?;
            if seen.kind == Some(crate::domain::EntryKind::File) {
                return Err(empty(&userdata.join(DATABASE)));
            }
        }
        Some(_) => {}
        None => refuse_orphans(&source)?,
    }
    if let Some(name) = misplaced(&source)? {
        return Err(
            crate::worker::files::FileError::bad(userdata.join(name), "is a directory, or is none where one belongs").into()
        );
    }
    // Looked at before they are read: what is written meanwhile shows.
    let originals = lying(&source, &copied_entries(), owner)?;
    let names: Vec<&str> = copied_entries().into_iter().filter(|name| *name != ATTACHMENTS).collect();
    let (copied, all_cloned) = copy_entries(&source, &names, owner, &copy, Deadline::NONE)?;
    let holdings = finish_database(&copy)?;
    let left: Vec<StateEntry> = copied.iter().filter(|entry| !SIDECARS.contains(&entry.path.as_str())).cloned().collect();
    // Synced first: a file may have a mode with which its owner cannot open it again.
    sync_tree(&copy, owner)?;
    dress(&copy, &left, None)?;
    let (attached, brought) = keep_alike(&source, ATTACHMENTS, owner, &copy, None)?;
    attached.as_ref().map(|listing| close(&copy, listing)).transpose()?;
    copy.sync()?;
    let attachments = attached.map(|listing| listing.summary());
    let bytes: u64 = copied.iter().map(|entry| entry.bytes).sum();
    Ok(SeedReport {
        bytes: bytes + attachments.as_ref().map_or(0, |all| all.bytes),
        late_bytes: if all_cloned { 0 } else { bytes } + brought.bytes,
        log: false,
        originals,
        migration_level: holdings.level,
        method: method(all_cloned && brought.all_cloned),
        attachments,
    })
}

fn method(all_cloned: bool) -> SeedMethod {
    if all_cloned { SeedMethod::Reflink } else { SeedMethod::Copy }
}

/// Sidecars with content but without their database: what they belong to is lost, and SQLite would throw them away.
fn refuse_orphans(source: &crate::worker::files::Dir) -> Result<(), TaskError> {
    for sidecar in SIDECARS {
        if sidecar != "state.sqlite-shm" && source.stat(sidecar)?.is_some_and(|seen| seen.bytes > 0) {
            let message = format!("{} is there, but its database is not", source.path().join(sidecar).display());
            return Err(TaskError { kind: TaskErrorKind::Corrupt, message });
        }
    }
    Ok(())
}

/// A state entry that is a directory where a file belongs, or the other way round.
pub fn misplaced(source: &crate::worker::files::Dir) -> Result<Option<&'static str>, TaskError> {
    use crate::domain::EntryKind::{Directory, File};
    for name in STATE_ENTRIES {
        let right = if ["secrets", ATTACHMENTS].contains(&name) { Directory } else { File };
        if source.stat(name)?.and_then(|seen| seen.kind).is_some_and(|kind| kind != right) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::worker::tasks::stage::{UID, as_user, events, make_database};

    /// A `userdata/` of the user's with what `make` puts into it, seeded.
    fn seeded(make: impl FnOnce(&Path) + Send) -> (tempfile::TempDir, Result<SeedReport, TaskError>) {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(UID), Some(UID)).unwrap();
        let report = as_user(|| {
            let userdata = dir.path().join("userdata");
            fs::create_dir(&userdata).unwrap();
            make(&userdata);
            seed(&userdata, &dir.path().join(".t3pin/b000001/seed"))
        });
        (dir, report)
    }

    fn copy(dir: &tempfile::TempDir) -> std::path::PathBuf {
        dir.path().join(".t3pin/b000001/seed")
    }

    #[test]
    fn the_copy_has_the_last_write_and_the_original_is_only_read() {
        let (dir, report) = seeded(|userdata| {
            make_database(&userdata.join("state.sqlite"), 25, true);
            fs::set_permissions(userdata.join("state.sqlite"), fs::Permissions::from_mode(0o640)).unwrap();
            fs::create_dir(userdata.join("secrets")).unwrap();
            fs::write(userdata.join("secrets/key"), b"key").unwrap();
            fs::set_permissions(userdata.join("secrets"), fs::Permissions::from_mode(0o700)).unwrap();
        });
        let report = report.unwrap();
        assert_eq!(report.migration_level, Some(30));
        let names: Vec<&str> = report.originals.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(names, ["state.sqlite", "state.sqlite-wal", "secrets", "secrets/key"], "parents before children");
        let original = crate::worker::files::Dir::open(&dir.path().join("userdata")).unwrap();
        assert_eq!(lying(&original, &copied_entries(), UID).unwrap(), report.originals, "it was only read");
        let mut left: Vec<_> = fs::read_dir(copy(&dir)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["secrets", "state.sqlite"], "no sidecar is left");
        assert_eq!(fs::metadata(copy(&dir).join("state.sqlite")).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read(copy(&dir).join("state.sqlite")).unwrap()[18..20], [2, 2], "it stays in WAL mode");
        assert_eq!(events(&copy(&dir).join("state.sqlite")), 25);
    }

    #[test]
    fn a_transaction_cut_short_outside_of_wal_mode_is_undone_in_the_copy() {
        let (dir, report) = seeded(|userdata| {
            let building = userdata.join("building");
            let db = rusqlite::Connection::open(&building).unwrap();
            db.execute_batch("PRAGMA cache_size=1; CREATE TABLE events(body); INSERT INTO events VALUES ('whole');").unwrap();
            db.execute_batch("BEGIN; UPDATE events SET body = 'half';").unwrap();
            for n in 0..2000 {
                db.execute("INSERT INTO events VALUES (?1)", [format!("half {n}")]).unwrap();
            }
            fs::copy(&building, userdata.join("state.sqlite")).unwrap();
            fs::copy(userdata.join("building-journal"), userdata.join("state.sqlite-journal")).unwrap();
        });
        report.unwrap();
        assert_eq!(events(&copy(&dir).join("state.sqlite")), 1);
    }

    #[test]
    fn an_empty_a_broken_or_an_orphaned_database_is_called_corrupt() {
        type Make = fn(&Path);
        let cases: [(&str, Make); 4] = [
            ("empty", |userdata| fs::write(userdata.join("state.sqlite"), b"").unwrap()),
            ("no database", |userdata| fs::write(userdata.join("state.sqlite"), [b'x'; 8192]).unwrap()),
            ("orphan", |userdata| fs::write(userdata.join("state.sqlite-wal"), b"frames").unwrap()),
            ("broken", |userdata| {
                let path = userdata.join("state.sqlite");
                make_database(&path, 3000, false);
                let mut bytes = fs::read(&path).unwrap();
                bytes[8192..].fill(0x55);
                fs::write(&path, bytes).unwrap();
            }),
        ];
        for (name, make) in cases {
            let (_dir, report) = seeded(make);
            assert_eq!(report.unwrap_err().kind, TaskErrorKind::Corrupt, "{name}");
        }
    }

    #[test]
    fn hostile_names_of_tables_are_only_names() {
        let (dir, report) = seeded(|userdata| {
            let db = rusqlite::Connection::open(userdata.join("state.sqlite")).unwrap();
            db.execute_batch(
                r#"CREATE TABLE "a"";DROP TABLE b;--"(x); INSERT INTO "a"";DROP TABLE b;--" VALUES (1); CREATE TABLE b(rowid TEXT);
                   INSERT INTO b VALUES ('text'); CREATE VIEW v AS SELECT 1; CREATE TABLE auth_links(x); INSERT INTO auth_links VALUES (1);"#,
            )
            .unwrap();
        });
        report.unwrap();
        let database = crate::worker::tasks::database::Database::open_copy(
            &copy(&dir).join("state.sqlite"),
            std::time::Duration::from_secs(9),
        );
        let tables = database.unwrap().marks().unwrap().tables;
        assert_eq!(tables.keys().collect::<Vec<_>>(), ["a\";DROP TABLE b;--", "b"]);
    }

    #[test]
    fn a_hollow_giant_is_refused_and_no_data_is_no_error() {
        let (_dir, report) = seeded(|userdata| {
            fs::File::create(userdata.join("state.sqlite")).unwrap().set_len(1 << 43).unwrap();
        });
        let error = report.unwrap_err();
        assert_eq!(error.kind, TaskErrorKind::BadPath, "{error}");
        let (_dir, report) = seeded(|userdata| fs::remove_dir(userdata).unwrap());
        assert!(report.unwrap().originals.is_empty());
    }
}
