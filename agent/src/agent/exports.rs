//! Exports that wait to be fetched: open files without a name, each for whoever ordered it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::worker::files::OpenFile;

/// Bytes that are handed over at a time.
const CHUNK: usize = 4 << 20;
/// How many there may be at a time, and of one caller.
const MOST: (usize, usize) = (4, 1);
/// One that nobody fetches for so long is let go.
const PATIENCE: Duration = Duration::from_secs(600);

/// All of them, by the number of the run that makes it.
#[derive(Debug, Default)]
pub struct Exports {
    all: Mutex<BTreeMap<u64, Export>>,
}

#[derive(Debug)]
struct Export {
    uid: u32,
    file: Option<Arc<OpenFile>>,
    touched: Instant,
}

impl Exports {
    /// Takes a place for an export of `uid`'s, or says why there is none.
    pub fn reserve(&self, run: u64, uid: u32) -> Result<(), String> {
        let mut all = self.lock();
        all.retain(|_, export| export.file.is_none() || export.touched.elapsed() < PATIENCE);
        // A caller who asks again does not want the last one any more.
        all.retain(|_, export| export.uid != uid || export.file.is_none());
        if all.len() >= MOST.0 || all.values().filter(|export| export.uid == uid).count() >= MOST.1 {
            return Err("other exports are being made; ask again when they are done".to_owned());
        }
        all.insert(run, Export { uid, file: None, touched: Instant::now() });
        Ok(())
    }

    /// It is made.
    pub fn put(&self, run: u64, file: OpenFile) {
        if let Some(export) = self.lock().get_mut(&run) {
            export.file = Some(Arc::new(file));
            export.touched = Instant::now();
        }
    }

    /// It could not be made.
    pub fn forget(&self, run: u64) {
        self.lock().remove(&run);
    }

    /// Some of its bytes; at its end none, and it is let go. `None` when `uid` has no such export.
    pub fn read(&self, run: u64, uid: u32, offset: u64) -> Option<std::io::Result<Vec<u8>>> {
        let mut all = self.lock();
        let export = all.get_mut(&run).filter(|export| export.uid == uid)?;
        export.touched = Instant::now();
        let file = Arc::clone(export.file.as_ref()?);
        // Read without the lock, so that a slow disk keeps nobody else waiting.
        drop(all);
        let mut chunk = vec![0; CHUNK];
        let chunk = file.read_at(&mut chunk, offset).map(|read| {
            chunk.truncate(read);
            chunk
        });
        if chunk.as_ref().is_ok_and(Vec::is_empty) {
            self.forget(run);
        }
        Some(chunk)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Export>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn an_export_is_for_whoever_ordered_it_and_gone_when_it_was_read() {
        let exports = Exports::default();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        exports.reserve(1, 1000).unwrap();
        assert!(exports.reserve(2, 1000).is_err(), "one at a time");
        assert!(exports.read(1, 1000, 0).is_none(), "not made yet");
        exports.put(1, OpenFile::Kernel(file));
        assert!(exports.read(1, 1001, 0).is_none());
        assert_eq!(exports.read(1, 1000, 3).unwrap().unwrap(), b"tent");
        assert_eq!(exports.read(1, 1000, 7).unwrap().unwrap(), b"");
        assert!(exports.read(1, 1000, 0).is_none());
        for uid in 0..4 {
            exports.reserve(u64::from(uid) + 10, uid).unwrap();
        }
        assert!(exports.reserve(20, 77).is_err(), "the host is held to its share too");
    }
}
