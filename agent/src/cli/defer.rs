//! `t3pin defer [USER] --until TIME | --for DURATION | --clear`.

use clap::Args;
use jiff::civil::{Date, DateTime, Time};
use jiff::{Timestamp, Zoned};

use super::answer::Answer;
use super::exit::Exit;
use super::render::plain_lines;
use crate::api::client::{Client, ClientError};
use crate::api::types::{DeferRequest, Told};
use crate::domain::{UnixMs, UserName};

/// Put off a bump: not before a time
///
/// Everybody may put off their own bump, within the limit that operators set (7 days if they set none); root and group t3pin anybody's,
/// for as long as they like, and theirs is the last word.
#[derive(Debug, Args)]
pub struct Defer {
    /// Whose bump; your own when not said
    user: Option<UserName>,

    #[command(flatten)]
    when: When,

    /// Why, for whoever wonders
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct When {
    /// Not before this: "18:00", "2026-11-30", "2026-11-30 18:00", or a time with its zone as in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<UnixMs>,

    /// Not for so long: "2h", "3days"
    #[arg(long = "for", value_name = "DURATION", value_parser = span)]
    span: Option<i64>,

    /// Take back what was said
    #[arg(long)]
    clear: bool,
}

impl Defer {
    /// Asks for it.
    pub async fn run(self, client: &Client) -> Result<Answer, ClientError> {
        let now = Timestamp::now().as_millisecond();
        let until_ms = self.when.until.or_else(|| self.when.span.map(|span| now.saturating_add(span)));
        let told: Told = client.post("/v1/defer", &DeferRequest { user: self.user, until_ms, reason: self.reason }).await?;
        let text = format!("{}\n", plain_lines(&told.message));
        Answer::new(&told, text, Exit::Done)
    }
}

fn span(text: &str) -> Result<i64, String> {
    let span = humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 30min, 2h or 3days"))?;
    i64::try_from(span.as_millis()).map_err(|_| "is too long".to_owned())
}

fn time(text: &str) -> Result<UnixMs, String> {
    time_after(&Zoned::now(), text)
}

/// The time that `text` means to somebody who says it at `now`; a bare time of the day is the next such.
fn time_after(now: &Zoned, text: &str) -> Result<UnixMs, String> {
    let zone = now.time_zone().clone();
    let local = |at: DateTime| at.to_zoned(zone.clone()).map(|at| at.timestamp().as_millisecond()).map_err(|e| e.to_string());
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.as_millisecond());
    }
    if let Ok(at) = Time::strptime("%H:%M", text) {
        let today = local(now.date().to_datetime(at))?;
        if today > now.timestamp().as_millisecond() {
            return Ok(today);
        }
        return local(now.date().tomorrow().map_err(|error| error.to_string())?.to_datetime(at));
    }
    let date_and_time = DateTime::strptime("%Y-%m-%d %H:%M", text).or_else(|_| DateTime::strptime("%Y-%m-%dT%H:%M", text));
    if let Ok(at) = date_and_time {
        return local(at);
    }
    let date = Date::strptime("%Y-%m-%d", text);
    date.map_err(|_| "is no time; write 18:00, 2026-11-30 or \"2026-11-30 18:00\"".to_owned())
        .and_then(|date| local(date.to_datetime(Time::midnight())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_that_people_mean() {
        let now: Zoned = "2026-11-23T17:00:00+01:00[Europe/Berlin]".parse().unwrap();
        let at = |text: &str| time_after(&now, text).map(|ms| Timestamp::from_millisecond(ms).unwrap().to_string());
        assert_eq!(at("18:00").unwrap(), "2026-11-23T17:00:00Z");
        assert_eq!(at("09:30").unwrap(), "2026-11-24T08:30:00Z");
        assert_eq!(at("17:00").unwrap(), "2026-11-24T16:00:00Z");
        assert_eq!(at("2026-11-30").unwrap(), "2026-11-29T23:00:00Z");
        assert_eq!(at("2026-11-30 18:00").unwrap(), "2026-11-30T17:00:00Z");
        assert_eq!(at("2026-11-30T18:00").unwrap(), "2026-11-30T17:00:00Z");
        assert_eq!(at("2026-11-30T18:00:00Z").unwrap(), "2026-11-30T18:00:00Z");
        assert!(at("soon").unwrap_err().contains("is no time"));
        assert_eq!((span("2h").unwrap(), span("3days").unwrap()), (7_200_000, 259_200_000));
        assert!(span("later").is_err());
    }
}
