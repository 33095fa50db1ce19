//! The socket: HTTP/1.1 with JSON over a unix socket, versioned under `/v1`; callers are known by SO_PEERCRED.
//!
//! [`types`] is what crosses the socket, [`server`] turns requests into calls of a [`server::Handler`] that `agent`
//! implements, [`client`] is all that `cli` knows of the agent.

pub mod archive_types;
#[cfg(test)]
pub mod canned;
pub mod client;
mod metrics;
pub mod server;
pub mod types;
