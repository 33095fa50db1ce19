//! The pairing handshake against a running server.

use crate::domain::{Descriptor, ProbeReport};
use crate::worker::protocol::ProbeSpec;

/// See [`crate::worker::Task::Probe`].
pub fn probe(spec: &ProbeSpec) -> ProbeReport {
    let _ = spec;
    unimplemented!()
}

/// See [`crate::worker::Task::Describe`].
pub fn describe(address: &str) -> Option<Descriptor> {
    let _ = address;
    unimplemented!()
}
