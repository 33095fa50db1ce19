//! The promises of DESIGN section 2 on a real systemd machine, with nothing but what an operator has: the package, the command line,
//! the pin file, systemctl and journalctl.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod bump;
mod enroll;
mod package;
mod pin_file;
mod recovery;
mod refusal;
mod rollback;
