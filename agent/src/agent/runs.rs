//! The pieces of work that were asked for over the socket, so that callers can follow them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::api::types::{Caller, RunOutcome, RunReport};

/// How many runs are remembered after they ended.
const REMEMBERED: usize = 64;
/// How many lines of progress one run keeps.
const LINES: usize = 1000;

/// All runs since the agent started.
#[derive(Debug, Default)]
pub struct Runs {
    all: Mutex<(u64, VecDeque<Run>)>,
}

/// One run; cheap to clone.
#[derive(Debug, Clone)]
pub struct Run {
    report: Arc<Mutex<RunReport>>,
    owner: u32,
}

impl Runs {
    /// A new run, of the caller with the uid `owner`, that has done nothing yet.
    pub fn begin(&self, owner: u32) -> Run {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.0 += 1;
        let report = RunReport { id: all.0, done: false, progress: vec![], outcome: None, message: None };
        let run = Run { report: Arc::new(Mutex::new(report)), owner };
        all.1.push_back(run.clone());
        while all.1.len() > REMEMBERED && all.1.front().is_some_and(|run| run.report().done) {
            all.1.pop_front();
        }
        run
    }

    /// The run of that number, if `caller` may see it.
    pub fn get(&self, caller: Caller, id: u64) -> Option<RunReport> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let theirs = all.1.iter().filter(|run| caller.privileged || run.owner == caller.uid);
        theirs.map(Run::report).find(|report| report.id == id)
    }
}

impl Run {
    /// How it stands.
    pub fn report(&self) -> RunReport {
        self.lock().clone()
    }

    /// Something happened.
    pub fn say(&self, line: String) {
        let mut report = self.lock();
        if report.progress.len() < LINES {
            report.progress.push(line);
        }
    }

    /// It is over.
    pub fn end(&self, outcome: RunOutcome, message: String) {
        let mut report = self.lock();
        report.done = true;
        report.outcome = Some(outcome);
        report.message = Some(message);
    }

    fn lock(&self) -> MutexGuard<'_, RunReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
