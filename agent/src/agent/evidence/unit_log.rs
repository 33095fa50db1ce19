//! What a user's server said, out of systemd's journal, through its own reader (journalctl(1)).

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::domain::UnixMs;

/// The most that is read, in bytes: a server may have said anything, as much as it liked.
const READ_BYTES: u64 = 1024 * 1024;
/// The most entries that are asked for.
const ENTRIES: &str = "2000";
/// How long reading may take; a bundle without a log is better than none.
const PATIENCE: Duration = Duration::from_secs(10);
/// What stands between who said it and what was said.
const SAYS: &str = ": ";

/// What `unit`, and systemd about it, said between two times; the newest where it is too much, oldest first. Where it cannot be
/// read, that is what the one line says.
pub async fn read(unit: &str, since_ms: UnixMs, until_ms: UnixMs) -> Vec<String> {
    match tokio::time::timeout(PATIENCE, newest_first(unit, since_ms, until_ms)).await {
        Ok(Ok(text)) => {
            let mut lines: Vec<String> = text.lines().filter_map(rendered).collect();
            lines.reverse();
            lines
        }
        Ok(Err(error)) => vec![format!("The log could not be read: {error}")],
        Err(_) => vec![format!("The log could not be read within {} s", PATIENCE.as_secs())],
    }
}

/// What the server itself said in a rendered line; `None` when systemd said it.
pub fn own_words(line: &str) -> Option<&str> {
    let (_, said) = line.split_once(' ')?;
    let (who, said) = said.split_once(SAYS)?;
    (!who.starts_with("systemd[") && !who.contains(' ')).then_some(said)
}

async fn newest_first(unit: &str, since_ms: UnixMs, until_ms: UnixMs) -> std::io::Result<String> {
    let mut child = Command::new("/usr/bin/journalctl")
        .args(["--quiet", "--no-pager", "--reverse", "--output=json", "--output-fields=MESSAGE,SYSLOG_IDENTIFIER,_PID"])
        .args(["--lines", ENTRIES, "--unit", unit])
        .arg(format!("--since=@{}", since_ms.div_euclid(1000)))
        .arg(format!("--until=@{}", until_ms.div_euclid(1000) + 1))
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut bytes = vec![];
    if let Some(stdout) = child.stdout.take() {
        stdout.take(READ_BYTES).read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// One entry of `--output=json` (systemd.journal-fields(7)): a text that is not UTF-8 comes as bytes, one that is too long as null.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    at_us: String,
    #[serde(rename = "MESSAGE")]
    message: Value,
    #[serde(rename = "SYSLOG_IDENTIFIER", default)]
    who: String,
    #[serde(rename = "_PID", default)]
    pid: String,
}

fn rendered(line: &str) -> Option<String> {
    // The last line may be cut off.
    let entry: Entry = serde_json::from_str(line).ok()?;
    let at = jiff::Timestamp::from_microsecond(entry.at_us.parse().ok()?).ok()?;
    let said = match entry.message {
        Value::String(text) => text,
        Value::Array(bytes) => {
            let bytes: Vec<u8> =
                bytes.iter().map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()).unwrap_or(b'?')).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => "(too long)".to_owned(),
    };
    Some(format!("{at} {}[{}]{SAYS}{}", entry.who.replace(' ', "_"), entry.pid, said.replace('\n', " ")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn entry(message: &str, who: &str) -> String {
        format!(r#"{{"__REALTIME_TIMESTAMP":"1800000000000000","MESSAGE":{message},"SYSLOG_IDENTIFIER":"{who}","_PID":"7"}}"#)
    }

    #[test]
    fn entries_become_lines_whatever_they_hold() {
        let line = rendered(&entry(r#""pairing: failed""#, "t3")).unwrap();
        assert_eq!(line, "2027-01-15T08:00:00Z t3[7]: pairing: failed");
        assert_eq!(own_words(&line), Some("pairing: failed"));
        assert!(rendered(&entry("[104,105,255]", "t3")).unwrap().starts_with("2027-01-15T08:00:00Z t3[7]: hi"));
        assert!(rendered(&entry("null", "t3")).unwrap().ends_with("(too long)"));
        assert_eq!(own_words(&rendered(&entry(r#""Started.""#, "systemd")).unwrap()), None);
        assert_eq!(rendered(r#"{"__REALTIME"#), None);
    }
}
