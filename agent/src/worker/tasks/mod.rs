//! What a worker can do, one file per task. All of it runs as the user.

pub use seed::stand_by;

use super::protocol::{Answer, Task, TaskError, TaskErrorKind};

mod copy_live;
mod database;
mod discard;
mod handshake;
mod look;
mod marks;
mod merge;
mod own_service;
mod paired;
mod program;
pub mod redact;
mod rehearse;
pub(crate) mod seed;
#[cfg(test)]
pub(crate) mod stage;
mod switch_in;
mod trouble;
mod work_copy;

#[cfg(feature = "fuzzing")]
pub use handshake::{fuzz_answers, fuzz_http};
pub use look::lookout;

/// Does `task` and says what came of it.
pub fn perform(task: Task) -> Result<Answer, TaskError> {
    match task {
        Task::CopyLive { userdata, dest } => copy_live::copy_live(&userdata, &dest).map(Answer::LiveCopy),
        // A conversation, see `stand_by`; without a copy that was begun there is nothing to finish.
        Task::SeedLive { .. } | Task::Finish => {
            let message = "there is no copy that was begun".to_owned();
            Err(TaskError { kind: TaskErrorKind::Other, message })
        }
        Task::Seed { userdata, dest } => seed::seed(&userdata, &dest).map(Answer::Seed),
        Task::SwitchIn { seed, userdata } => switch_in::switch_in(&seed, &userdata).map(|()| Answer::Done),
        Task::Discard { path } => discard::discard(&path).map(|()| Answer::Done),
        // Of a lookout that cannot be talked to, the first look is all there is to have.
        Task::Look { userdata } | Task::Lookout { userdata } => Ok(Answer::Activity(look::look(&userdata))),
        Task::Marks { userdata } => marks::marks(&userdata),
        Task::Paired { userdata, sessions, links } => paired::paired(&userdata, &sessions, &links).map(Answer::Paired),
        Task::OwnService { home, base_dir } => own_service::own_service(&home, &base_dir).map(Answer::OwnService),
        Task::Merge { dir } => merge::merge(&dir).map(|()| Answer::Done),
        Task::Probe(spec) => Ok(Answer::Probe(handshake::probe(&spec))),
        Task::Mint(spec) => handshake::mint(&spec).map(Answer::Minted),
        Task::Describe { address } => Ok(Answer::Descriptor(handshake::describe(&address))),
        Task::Rehearse(spec) => rehearse::rehearse(&spec).map(|report| Answer::Rehearsal(Box::new(report))),
    }
}
