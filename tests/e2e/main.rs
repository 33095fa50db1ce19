//! What t3pin promises its operator, shown on a real machine with nothing but what an operator has: the package, the pin file,
//! the command line, systemctl, journalctl. One module per theme; each test has a machine of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod activity;
mod bad_release;
mod common;
mod crash;
mod cut_off;
mod doctor;
mod draining;
mod explain;
mod found;
mod good_bump;
mod greedy;
mod handover;
mod hardening;
mod install;
mod orphans;
mod overload;
mod own_cli;
mod package;
mod pin_file;
mod port_taken;
mod proxy;
mod quarantine;
mod reissue;
mod rivals;
mod rollback;
mod snapshots;
mod watch;
