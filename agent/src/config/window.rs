//! The hours in which bumps may be done unasked: `"22:00-06:00 Europe/Berlin"`, `"Sat,Sun 00:00-24:00"`.
//!
//! A span belongs to the day it begins on, in the zone it names (the host's own when it names none), so it follows summer
//! time by itself; one that ends at or before its beginning goes on into the next day.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::domain::{Closed, UnixMs};

/// So many days ahead an opening is looked for: a week has every weekday in it, whatever the clocks do.
const AHEAD: i64 = 9;
const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// When bumps may be done unasked; no span at all is always.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window {
    spans: Vec<Span>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    text: String,
    days: [bool; 7],
    from: Time,
    /// Midnight at the end of the day is 00:00 of the next.
    to: Time,
    zone: TimeZone,
}

impl Window {
    /// A window of these spans. The error says what is wrong with which.
    pub fn of(texts: &[String]) -> Result<Self, String> {
        let span = |text: &String| text.parse().map_err(|why: String| format!("\"{}\" {why}", shown(text)));
        Ok(Self { spans: texts.iter().map(span).collect::<Result<_, _>>()? })
    }

    /// `None` while it is open at `now_ms`.
    pub fn closed(&self, now_ms: UnixMs) -> Option<Closed> {
        let now = Timestamp::from_millisecond(now_ms).ok()?;
        if self.spans.is_empty() || self.spans.iter().any(|span| span.days_around(now).any(|(from, to)| from <= now && now < to))
        {
            return None;
        }
        let openings = self.spans.iter().flat_map(|span| {
            let first = span.days_around(now).map(|(from, _)| from).find(|from| *from > now);
            first.map(|at| (at, &span.zone))
        });
        let (at, zone) = openings.min_by_key(|(at, _)| *at)?;
        let zoned = at.to_zoned(zone.clone());
        let name = zone.iana_name().map_or_else(|| zoned.strftime("%:z").to_string(), str::to_owned);
        Some(Closed { opens_ms: at.as_millisecond(), opens: format!("{} {name}", zoned.strftime("%Y-%m-%d %H:%M")) })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.spans.is_empty() {
            return f.write_str("always");
        }
        f.write_str(&self.spans.iter().map(|span| span.text.as_str()).collect::<Vec<_>>().join(", "))
    }
}

impl Span {
    /// The times of this span on yesterday (which may reach into today), today and the days after.
    fn days_around(&self, now: Timestamp) -> impl Iterator<Item = (Timestamp, Timestamp)> + '_ {
        let today = now.to_zoned(self.zone.clone()).date();
        (-1..AHEAD).filter_map(move |offset| today.checked_add(offset.days()).ok()).filter_map(|date| self.on(date))
    }

    fn on(&self, date: Date) -> Option<(Timestamp, Timestamp)> {
        if !self.days[usize::from(date.weekday().to_monday_zero_offset().unsigned_abs())] {
            return None;
        }
        let last = if self.to <= self.from { date.tomorrow().ok()? } else { date };
        // A time that summer time skips or repeats is the one that the clocks before the change would show.
        let at = |date: Date, time: Time| Some(date.to_datetime(time).to_zoned(self.zone.clone()).ok()?.timestamp());
        Some((at(date, self.from)?, at(last, self.to)?))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let how = "must be [DAYS] HH:MM-HH:MM [ZONE], such as \"22:00-06:00 Europe/Berlin\" or \"Mon-Fri 20:00-24:00\"";
        let mut words: Vec<&str> = text.split_ascii_whitespace().collect();
        let days = match words.first() {
            Some(first) if first.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                let days = days(first).ok_or_else(|| format!("names days that there are not ({}); it {how}", shown(first)))?;
                words.remove(0);
                days
            }
            _ => [true; 7],
        };
        let (hours, zone) = match words.as_slice() {
            [hours] => (*hours, TimeZone::system()),
            [hours, zone] => {
                let found = TimeZone::get(zone).map_err(|_| format!("names a time zone that is not known ({})", shown(zone)))?;
                (*hours, found)
            }
            _ => return Err(how.to_owned()),
        };
        let (from, to) = hours.split_once('-').ok_or_else(|| how.to_owned())?;
        let from = clock(from).filter(|from| from.1 < 24).ok_or_else(|| how.to_owned())?;
        let to = clock(to).ok_or_else(|| how.to_owned())?;
        Ok(Self { text: words_of(text), days, from: from.0, to: to.0, zone })
    }
}

/// `HH:MM`, with the hour as written: `24:00` is the midnight that ends the day.
fn clock(text: &str) -> Option<(Time, i8)> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |part: &str| (part.len() == 2).then(|| part.parse::<i8>().ok()).flatten();
    let (hour, minute) = (digits(hour)?, digits(minute)?);
    match (hour, minute) {
        (24, 0) => Some((Time::midnight(), 24)),
        _ => Some((Time::new(hour, minute, 0, 0).ok()?, hour)),
    }
}

/// `Mon-Fri`, `Sat,Sun`, `Fri-Mon`; from Monday on.
fn days(text: &str) -> Option<[bool; 7]> {
    let day = |name: &str| DAYS.iter().position(|(short, _)| name.eq_ignore_ascii_case(short));
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (day(first)?, day(last)?),
            None => (day(part)?, day(part)?),
        };
        let mut at = first;
        loop {
            days[at] = true;
            if at == last {
                break;
            }
            at = (at + 1) % 7;
        }
    }
    Some(days)
}

fn words_of(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(texts: &[&str]) -> Window {
        Window::of(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn ms(text: &str) -> UnixMs {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn a_night_is_open_on_both_sides_of_midnight_in_its_own_zone() {
        let night = window(&["22:00-06:00 Europe/Berlin"]);
        for (at, open) in [
            ("2026-11-23T20:59:59Z", false),
            ("2026-11-23T21:00:00Z", true),
            ("2026-11-24T04:59:59Z", true),
            ("2026-11-24T05:00:00Z", false),
            ("2026-07-01T20:00:00Z", true),
            ("2026-07-01T04:00:00Z", false),
        ] {
            assert_eq!(night.closed(ms(at)).is_none(), open, "{at}");
        }
        let closed = night.closed(ms("2026-11-23T12:00:00Z")).unwrap();
        assert_eq!(closed, Closed { opens_ms: ms("2026-11-23T21:00:00Z"), opens: "2026-11-23 22:00 Europe/Berlin".to_owned() });
    }

    #[test]
    fn days_are_those_on_which_a_span_begins() {
        let weekend = window(&["Fri,Sat 20:00-04:00 UTC", "Sun 00:00-24:00 UTC"]);
        // 2026-11-27 is a Friday.
        for (at, open) in [
            ("2026-11-27T19:00:00Z", false),
            ("2026-11-28T03:59:00Z", true),
            ("2026-11-29T03:00:00Z", true),
            ("2026-11-29T23:59:59Z", true),
            ("2026-11-30T00:00:00Z", false),
        ] {
            assert_eq!(weekend.closed(ms(at)).is_none(), open, "{at}");
        }
        assert_eq!(weekend.closed(ms("2026-11-30T00:00:00Z")).unwrap().opens_ms, ms("2026-12-04T20:00:00Z"));
        assert_eq!(days("Fri-Mon"), Some([true, false, false, false, true, true, true]));
    }

    #[test]
    fn a_window_that_summer_time_skips_opens_all_the_same() {
        // On 2026-03-29 there is no 02:30 in Berlin.
        let gap = window(&["02:30-03:30 Europe/Berlin"]);
        let closed = gap.closed(ms("2026-03-28T12:00:00Z")).unwrap();
        assert!(gap.closed(closed.opens_ms).is_none() || closed.opens_ms >= ms("2026-03-29T01:00:00Z"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_is_allowed() {
        for text in [
            "",
            "22:00",
            "22-06",
            "25:00-06:00",
            "24:00-06:00",
            "22:00-06:60",
            "Foo 22:00-06:00",
            "22:00-06:00 Europe/Nowhere",
            "22:00-06:00 UTC x",
            "2:00-3:00",
        ] {
            let error = Window::of(&[text.to_owned()]).unwrap_err();
            assert!(error.contains("must be") || error.contains("not known"), "{text}: {error}");
        }
        assert_eq!(window(&[]).to_string(), "always");
        assert_eq!(window(&["Mon-Fri  22:00-06:00   UTC"]).to_string(), "Mon-Fri 22:00-06:00 UTC");
    }

    proptest! {
        /// It is open at the very moment it says, and nowhere between now and then.
        #[test]
        fn the_opening_that_is_told_is_the_next_one(
            now in 1_700_000_000_000i64..1_900_000_000_000,
            from in 0i8..24, to in 0i8..24, minute in 0i8..60, mask in 1u8..128, zone in 0usize..4, early in 1i64..100_000_000,
        ) {
            let names = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"];
            let chosen: Vec<&str> = DAYS.iter().enumerate().filter(|(at, _)| mask & (1 << at) != 0).map(|(_, day)| day.0).collect();
            let text = format!("{} {from:02}:{minute:02}-{to:02}:{minute:02} {}", chosen.join(","), names[zone]);
            let window = window(&[&text]);
            if let Some(closed) = window.closed(now) {
                prop_assert!(closed.opens_ms > now);
                prop_assert!(window.closed(closed.opens_ms).is_none(), "{text} is not open at {}", closed.opens);
                let between = closed.opens_ms - early % (closed.opens_ms - now);
                prop_assert_eq!(window.closed(between.max(now)).map(|c| c.opens_ms).or((between == closed.opens_ms).then_some(closed.opens_ms)), Some(closed.opens_ms));
            }
        }
    }
}
