//! Times, sizes and texts in people's words.

use crate::domain::{UnixMs, Version};

/// The present.
pub fn now_ms() -> UnixMs {
    jiff::Timestamp::now().as_millisecond()
}

/// How long before `now` `then` was: `just now`, `3 min ago`, `2 h ago`, `5 days ago`.
pub fn ago(now: UnixMs, then: UnixMs) -> String {
    let seconds = now.saturating_sub(then) / 1000;
    match seconds {
        ..5 => "just now".to_owned(),
        5..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// A time of the day for people, in the zone of this host: `2026-11-23 18:00`.
pub fn clock(at: UnixMs) -> String {
    jiff::Timestamp::from_millisecond(at).map_or_else(
        |_| "the end of time".to_owned(),
        |at| at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string(),
    )
}

/// A length of time: `0.8 s`, `12 s`, `3 min 20 s`, `2 h 5 min`.
pub fn lasting(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{:.1} s", seconds.max(0.0));
    }
    // Saturating; lengths here are far from the ends.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = seconds.round() as u64;
    match whole {
        ..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Bytes in units of 1024: `12 KiB`, `598 MiB`, `1.2 GiB`.
#[allow(clippy::cast_precision_loss)]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit >= 3 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// A version, or `-` where there is none.
pub fn version_or_dash(version: Option<&Version>) -> String {
    version.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// `text` on one line and without control characters: reasons may quote what a user's server printed.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// As [`plain`], but line breaks stay.
pub fn plain_lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_in_peoples_words() {
        let age = |seconds: i64| ago(1_000_000_000_000, 1_000_000_000_000 - seconds * 1000);
        assert_eq!(
            [-30, 0, 10, 59, 60, 200, 3600, 100_000, 200_000].map(age),
            ["just now", "just now", "10 s ago", "59 s ago", "1 min ago", "3 min ago", "1 h ago", "27 h ago", "2 days ago"]
        );
        assert_eq!(ago(i64::MAX, i64::MIN), ago(i64::MAX, 0));
    }

    #[test]
    fn lengths_and_sizes_are_short() {
        assert_eq!([0.84, 9.96, 11.6, 200.0, 7500.0].map(lasting), ["0.8 s", "10 s", "12 s", "3 min 20 s", "2 h 5 min"]);
        assert_eq!([5, 12_288, 627_048_448, 1 << 31].map(size), ["5 B", "12 KiB", "598 MiB", "2.0 GiB"]);
    }

    #[test]
    fn escape_sequences_lose_their_teeth() {
        assert_eq!(plain_lines("a\x1b]0;x\x07\nb\r\nc\u{85}"), "a ]0;x \nb\nc ");
    }
}
