//! Times as t3 writes them.

use jiff::Timestamp;
use rusqlite::types::ValueRef;

use crate::domain::UnixMs;

/// Reads a time: ISO 8601 text with an offset, or whole milliseconds since 1970. NULL is none. Anything else is an error, with
/// the column's name for the operator.
pub fn read(value: ValueRef<'_>, column: &str) -> Result<Option<UnixMs>, String> {
    let unreadable = || format!("{column} holds no readable time");
    match value {
        ValueRef::Null => Ok(None),
        ValueRef::Integer(ms) => Ok(Some(ms)),
        ValueRef::Text(text) => {
            let text = std::str::from_utf8(text).map_err(|_| unreadable())?;
            let time: Timestamp = text.parse().map_err(|_| unreadable())?;
            Ok(Some(time.as_millisecond()))
        }
        ValueRef::Real(_) | ValueRef::Blob(_) => Err(unreadable()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_are_read_and_nothing_else() {
        assert_eq!(read(ValueRef::Text(b"2026-07-20T10:00:00.123Z"), "c"), Ok(Some(1_784_541_600_123)));
        assert_eq!(read(ValueRef::Integer(5), "c"), Ok(Some(5)));
        assert_eq!(read(ValueRef::Null, "c"), Ok(None));
        for bad in
            [ValueRef::Text(b""), ValueRef::Text(b"yesterday"), ValueRef::Text(b"\xff"), ValueRef::Real(1.0), ValueRef::Blob(b"")]
        {
            assert_eq!(read(bad, "t.c"), Err("t.c holds no readable time".to_owned()));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_without_a_panic(text in any::<Vec<u8>>()) {
            let _ = read(ValueRef::Text(&text), "c");
        }

        #[test]
        fn what_jiff_prints_reads_back(ms in 0i64..4_102_444_800_000) {
            let text = Timestamp::from_millisecond(ms).unwrap().to_string();
            prop_assert_eq!(read(ValueRef::Text(text.as_bytes()), "c"), Ok(Some(ms)));
        }
    }
}
