//! Whether a worker gets on, seen from outside.
//!
//! A worker has its user's ids, so that its user may stop it (SIGSTOP), and may have it wait for a file system of their own. A deadline that
//! is long enough for gigabytes on a slow disk would then keep everybody else waiting for as long.

use std::time::Duration;

use tokio::time::Instant;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// Nobody debugs a worker for so long.
const STOPPED: Duration = Duration::from_secs(4);

/// Resolves with what is wrong once the process `pid` was stopped by somebody, or has used no processor time for `idle` (`None`: it may wait
/// for others). Never for a process that is not there: that it ended is seen elsewhere.
pub async fn stalled(pid: Option<u32>, idle: Option<Duration>) -> String {
    watch(pid, idle, LOOK, STOPPED).await
}

async fn watch(pid: Option<u32>, idle: Option<Duration>, look: Duration, stopped: Duration) -> String {
    let Some(path) = pid.map(|pid| format!("/proc/{pid}/stat")) else { return std::future::pending().await };
    let (mut last, mut moved, mut ran) = (0, Instant::now(), Instant::now());
    loop {
        tokio::time::sleep(look).await;
        let Some((state, used)) = std::fs::read(&path).ok().as_deref().and_then(parse) else {
            return std::future::pending().await;
        };
        let now = Instant::now();
        if used != last {
            (last, moved) = (used, now);
        }
        if !matches!(state, b'T' | b't') {
            ran = now;
        }
        if now - ran >= stopped {
            return "somebody has stopped it".to_owned();
        }
        if idle.is_some_and(|idle| now - moved >= idle) {
            return format!("it has not got on for {} s", (now - moved).as_secs());
        }
    }
}

/// State, and processor time used in all, in ticks (proc(5), `/proc/PID/stat`; the name before may hold anything).
fn parse(stat: &[u8]) -> Option<(u8, u64)> {
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let fields: Vec<&str> = std::str::from_utf8(stat.get(close + 1..)?).ok()?.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field)?.parse::<u64>().ok();
    Some((*fields.first()?.as_bytes().first()?, number(11)?.saturating_add(number(12)?)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn state_and_time_are_read_whatever_the_name() {
        let line = b"12 (a) R 1) S 1 12 12 0 -1 4194560 90 0 0 0 7 5 0 0 20 0 1 0 100 0 0";
        assert_eq!(parse(line), Some((b'S', 12)));
        assert!(parse(b"").is_none() && parse(b"1 (x) S 1").is_none());
        assert!(parse(&std::fs::read("/proc/self/stat").unwrap()).is_some());
    }

    #[tokio::test]
    async fn what_is_stopped_or_idle_is_told_and_what_works_or_is_gone_is_not() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let id = child.id();
        let ms = Duration::from_millis;
        let told = async |idle, patience| tokio::time::timeout(patience, watch(Some(id), idle, ms(5), ms(20))).await.ok();
        assert_eq!(told(None, ms(300)).await, None, "it may sleep");
        assert!(told(Some(ms(30)), ms(60_000)).await.unwrap().contains("not got on"));
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        assert!(told(None, ms(60_000)).await.unwrap().contains("stopped"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(told(Some(Duration::ZERO), ms(300)).await, None, "it ended");
    }
}
