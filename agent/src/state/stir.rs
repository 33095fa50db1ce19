//! Whether a user's database has moved, without reading it.
//!
//! What SQLite writes goes into `state.sqlite` or its log, and shows in their size and time of change (sqlite.org/wal.html). Root
//! asks for exactly that (fstat(2)), in the directory reached as for custody: no link is followed, no mount crossed, no file
//! opened, and nothing is kept open between two looks, so that a home can be unmounted meanwhile.

use super::patience::{LOOK, at_home};
use super::{StateError, reach};
use crate::domain::Place;

/// The files that writes go to.
const FILES: [&str; 3] = ["state.sqlite", "state.sqlite-wal", "state.sqlite-journal"];

/// How the files looked at one moment. Only good for comparing with another moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp([Option<(u64, u64, i128)>; 3]);

/// The stamp of now. A user without data has one, too.
pub fn stamp(place: &Place) -> Result<Stamp, StateError> {
    let mut stamp = Stamp([None; 3]);
    let Some(dir) = reach::userdata(place)? else { return Ok(stamp) };
    for (file, mark) in FILES.iter().zip(&mut stamp.0) {
        *mark = dir.stat(file)?.map(|seen| (seen.ino, seen.bytes, seen.mtime_ns));
    }
    Ok(stamp)
}

/// As [`stamp`], on a thread that may wait, and not for ever.
pub async fn stamp_soon(place: &Place) -> Result<Stamp, StateError> {
    let whose = place.clone();
    at_home(place, LOOK, move || stamp(&whose)).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::state::tests::stage::{FileSystem, Stage};

    #[test]
    fn every_commit_moves_the_stamp_and_reading_does_not() {
        let fs = FileSystem::new();
        let stage = Stage::new(&fs, "alice");
        let empty = stamp(&stage.place).unwrap();
        stage.database(1, false);
        let first = stamp(&stage.place).unwrap();
        assert_ne!(first, empty);
        let path = stage.place.userdata().join("state.sqlite");
        let server = rusqlite::Connection::open(&path).unwrap();
        server.pragma_update(None, "journal_mode", "wal").unwrap();
        server.execute_batch("CREATE TABLE moves (n INTEGER)").unwrap();
        let mut last = stamp(&stage.place).unwrap();
        for n in 0..20 {
            server.execute("INSERT INTO moves VALUES (?1)", [n]).unwrap();
            let now = stamp(&stage.place).unwrap();
            assert_ne!(now, last, "commit {n} was not noticed");
            last = now;
        }
        let reader = rusqlite::Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let count: i64 = reader.query_row("SELECT count(*) FROM moves", [], |row| row.get(0)).unwrap();
        drop(reader);
        assert_eq!((count, stamp(&stage.place).unwrap()), (20, last), "looking moved it");
    }

    #[test]
    fn a_link_in_the_way_is_refused_and_not_followed() {
        let fs = FileSystem::new();
        let stage = Stage::new(&fs, "alice");
        stage.database(1, false);
        let userdata = stage.place.userdata();
        std::fs::rename(&userdata, userdata.with_extension("away")).unwrap();
        std::os::unix::fs::symlink(userdata.with_extension("away"), &userdata).unwrap();
        assert!(stamp(&stage.place).is_err());
    }
}
