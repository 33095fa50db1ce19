//! How much one caller, and all together, may ask of the socket.

use std::time::Duration;

/// Bounds on connections and requests. The socket is open to every user of the host (mode 0666), so each of these is
/// what stands between a hostile or broken client and the agent.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections of everybody but root together. Root is only held to [`Limits::per_uid`], so that users cannot lock it out.
    pub connections: usize,
    /// Connections of one uid.
    pub per_uid: usize,
    /// Requests of one uid in a second, in the long run...
    pub requests_per_second: u32,
    /// ...and how many at once before they have to wait.
    pub burst: u32,
    /// Requests in a second of all who ask without a pause, together: they share it evenly. Who has been quiet is not held up by them.
    pub all_per_second: u32,
    /// Bytes of a request body.
    pub body: usize,
    /// Bytes of a request's line and headers; hyper takes no less than 8 KiB.
    pub head: usize,
    /// From the start of the connection, or the last answer, until the next request's headers are whole. Idle connections
    /// end by this too.
    pub head_time: Duration,
    /// From the end of the headers to the end of the body.
    pub body_time: Duration,
    /// A connection's whole life: also ends those who do not read their answer. Longer than the longest wait of a
    /// long poll ([`Limits::poll_time`]).
    pub life: Duration,
    /// The longest that `GET /v1/runs/ID?wait_ms=N` waits.
    pub poll_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2048,
            per_uid: 16,
            requests_per_second: 10,
            burst: 20,
            all_per_second: 100,
            body: 64 * 1024,
            head: 16 * 1024,
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(10),
            life: Duration::from_secs(120),
            poll_time: Duration::from_secs(25),
        }
    }
}
