//! The host's accounts and instances: who exists, whose server listens where, which port is free, who listens, from where somebody calls.
//!
//! Only reads, but for [`EnvFiles::write`]. The user database is asked through NSS, which may block: call from a thread that may.

pub mod accounts;
mod env_file;
mod env_text;
pub mod instances;
mod intruder;
mod listeners;
mod memory;
pub mod ports;
mod programs;
pub mod session;
pub mod user_service;

pub use env_file::EnvFiles;
pub use intruder::{Intruder, intruder};
pub use listeners::Listeners;
pub use memory::killed_for_memory;
pub use programs::global_t3;
