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
    all: Mutex<(u64, VecDeque<(Run, Caller)>)>,
}

/// One run; cheap to clone.
#[derive(Debug, Clone)]
pub struct Run(Arc<Mutex<RunReport>>);

impl Runs {
    /// A new run of `caller`'s that has done nothing yet.
    pub fn begin(&self, caller: Caller) -> Run {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.0 += 1;
        let run = Run(Arc::new(Mutex::new(RunReport { id: all.0, done: false, progress: vec![], outcome: None, message: None })));
        all.1.push_back((run.clone(), caller));
        while all.1.len() > REMEMBERED && all.1.front().is_some_and(|(run, _)| run.report().done) {
            all.1.pop_front();
        }
        run
    }

    /// The run of that number, if `caller` may follow it: their own, or, for the privileged, any.
    pub fn get(&self, caller: Caller, id: u64) -> Option<RunReport> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let own = |of: &Caller| caller.privileged || (of.uid == caller.uid && !of.privileged);
        all.1.iter().filter(|(_, of)| own(of)).map(|(run, _)| run.report()).find(|report| report.id == id)
    }

    /// The run of `caller`'s that has not ended yet.
    pub fn open_of(&self, caller: Caller) -> Option<RunReport> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.1.iter().filter(|(_, of)| of.uid == caller.uid).map(|(run, _)| run.report()).find(|report| !report.done)
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
