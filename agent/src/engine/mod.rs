//! The decisions. Pure: no I/O, no clock, no await; time comes in with every event.
//!
//! [`bump`] is one bump from its plan to its end: read it from top to bottom. [`rollout`] says which bump is next, and is
//! also what `t3pin plan` prints. [`pair_again`] says whom bumps have cost their pairing. [`judge`] turns what a probe saw into a verdict. The agent has the [`Action`]s done and
//! feeds what came of them back as [`Event`]s; recovery after a crash is nothing but the event [`Event::AgentRestarted`].

mod action;
pub mod attended;
pub mod bump;
mod event;
mod fault;
pub mod halted;
pub mod judge;
mod needs;
mod pair_again;
pub mod patience;
mod phase;
pub mod rollout;
pub mod sight;
pub mod waits;
pub mod watch;

pub use action::Action;
pub use bump::{Bump, step};
pub use event::{Event, SoakLook};
pub use fault::{Blame, Fault};
pub use needs::Needs;
pub use pair_again::{Missing, PairAgain, cost, pair_again, will_cost};
pub use phase::{Outcome, Phase, Rest, Undo};
