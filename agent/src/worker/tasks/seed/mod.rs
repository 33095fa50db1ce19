//! The copy for the new version, in two ways.
//!
//! [`live`]: made while the server runs, and brought up to its last write after it was stopped. The work after the stop is in
//! proportion to what was written since, and not to the size.
//! [`stopped`]: all of it after the stop. For databases that are not in WAL mode, for servers that do not run, and for whatever
//! comes between.

mod copy;
mod live;
mod stopped;
#[cfg(test)]
mod tests;
mod wal;

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

#[cfg(test)]
pub(crate) use live::Live;
pub(crate) use live::{NotLive, begin};
pub use stopped::seed;

use crate::worker::protocol::{Answer, Seeded, Task, TaskError, TaskErrorKind};

/// How often it is looked whether the wait has become too much.
const LOOK: Duration = Duration::from_millis(500);

/// See [`Task::SeedLive`]: says what came of it, and waits for the next task. Returns the last answer; `None` when nobody is there
/// to hear it.
pub fn stand_by(
    userdata: &Path,
    dest: &Path,
    say: impl Fn(Answer) -> bool,
    next: impl FnOnce() -> Result<Task, TaskError> + Send + 'static,
) -> Option<Answer> {
    let live = match begin(userdata, dest) {
        Ok((live, report)) => {
            if !say(Answer::Seeded(Seeded::Live(report))) {
                return None;
            }
            live
        }
        Err(NotLive::Unfit(why)) => return Some(Answer::Seeded(Seeded::Later { why })),
        Err(NotLive::Failed(error)) => return Some(Answer::Failed(error)),
    };
    let (told, waiting) = channel();
    std::thread::spawn(move || {
        // Nobody hears it when the wait was given up.
        told.send(next()).ok();
    });
    loop {
        match waiting.recv_timeout(LOOK) {
            Ok(Ok(Task::Finish)) => return Some(live.finish().map_or_else(Answer::Failed, Answer::Seed)),
            // Nobody is there any more, or it is nothing that can be done now.
            Ok(_) | Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) if live.is_too_much() => {
                let message = "the copy made beside the server was given up: it was waited for too long, or too much was written"
                    .to_owned();
                return Some(Answer::Failed(TaskError { kind: TaskErrorKind::Other, message }));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// See `crate::fuzzing`.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_wal(bytes: &[u8]) {
    use std::io::Write;
    let memory = || -> std::fs::File { rustix::fs::memfd_create("wal", rustix::fs::MemfdFlags::CLOEXEC).expect("memory").into() };
    let (mut log, copy) = (memory(), memory());
    log.write_all(bytes).expect("memory");
    wal::salts(&log).ok();
    if let Ok(Some(change)) = wal::changes(&log, 512, None, None) {
        assert!(change.pages.values().all(|at| at + 512 <= bytes.len() as u64));
        // What a copy of that many pages takes is asked for before; here the log says it.
        if change.page_count.is_none_or(|pages| pages < 10_000) {
            wal::write(&change, &log, &copy, 512).ok();
        }
    }
}
