//! How the host was when a bump ended badly: room, memory, load. What cannot be told is null.

use std::path::Path;

use serde_json::{Value, json};

/// Looks at the file systems of `home` and of the agent, and at memory and load (proc_meminfo(5), proc_loadavg(5)).
pub fn look(home: &Path) -> Value {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |key: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    json!({
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned()),
        "load": std::fs::read_to_string("/proc/loadavg").ok().map(|text| text.trim().to_owned()),
        "memory_kib": { "total": kib("MemTotal"), "available": kib("MemAvailable"), "swap_free": kib("SwapFree") },
        "free_bytes": { "home": free_bytes(home), "agent": free_bytes(Path::new(super::VAR)) },
    })
}

/// What others than root may still write there (statvfs(3)).
fn free_bytes(path: &Path) -> Option<u64> {
    let seen = rustix::fs::statvfs(path).ok()?;
    Some(seen.f_bavail.saturating_mul(seen.f_frsize))
}
