//! The text of an `EnvironmentFile=` (systemd.exec(5)): which assignments it holds and where, and changing one of them.
//!
//! Rules kept to: one assignment a line; blanks around key and unquoted value do not count; lines that begin with `#` or `;`
//! and lines without `=` are ignored; values may begin with parts quoted by `'` or `"`; a backslash escapes the next character
//! outside of `'...'` and continues the line at its end; the last assignment of a key wins. A carriage return ends a line too.

use std::ops::Range;

/// One assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    /// The variable.
    pub key: String,
    /// Its value, unquoted.
    pub value: String,
    /// Where it stands in the text, without the newline at its end.
    pub place: Range<usize>,
}

const NEWLINES: [char; 2] = ['\n', '\r'];
const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

/// All assignments, in the order of the text.
pub(super) fn assignments(text: &str) -> Vec<Assignment> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let start = at + text[at..].len() - text[at..].trim_start_matches(BLANKS).len();
        let rest = &text[start..];
        if rest.starts_with(['#', ';']) {
            at = start + comment_length(rest);
            continue;
        }
        let line = rest.find(NEWLINES).unwrap_or(rest.len());
        let Some(equals) = rest[..line].find('=') else {
            at = start + line + 1;
            continue;
        };
        let (value, length) = value(&rest[equals + 1..]);
        let place = start..start + equals + 1 + length;
        at = place.end + 1;
        let key = rest[..equals].trim_end_matches(BLANKS);
        if is_name(key) {
            found.push(Assignment { key: key.to_owned(), value, place });
        }
    }
    found
}

/// The value that counts for `key`.
pub(super) fn get(text: &str, key: &str) -> Option<String> {
    assignments(text).into_iter().rev().find(|assignment| assignment.key == key).map(|assignment| assignment.value)
}

/// The text with `key` set to the plain word `value`; everything else stays as it is.
pub(super) fn set(text: &str, key: &str, value: &str) -> String {
    let mut result = text.to_owned();
    let old: Vec<Assignment> = assignments(text).into_iter().filter(|assignment| assignment.key == key).collect();
    // From the end, so that the places before stay right. Only the last one counts, and it is the one that is kept.
    for (from_end, assignment) in old.iter().rev().enumerate() {
        if from_end == 0 {
            result.replace_range(assignment.place.clone(), &format!("{key}={value}"));
        } else {
            let newline = usize::from(result[assignment.place.end..].starts_with('\n'));
            result.replace_range(assignment.place.start..assignment.place.end + newline, "");
        }
    }
    if old.is_empty() {
        if !result.is_empty() && !result.ends_with('\n') {
            result.push('\n');
        }
        // A backslash before the last newline carries what is there over to the next line: an empty one ends it.
        let continued = get(&format!("{result}{key}={value}\n"), key).as_deref() != Some(value);
        result.push_str(&format!("{}{key}={value}\n", if continued { "\n" } else { "" }));
    }
    result
}

/// Environment variable names, as systemd takes them: letters, digits, `_`, not beginning with a digit.
fn is_name(key: &str) -> bool {
    !key.is_empty()
        && !key.starts_with(|c: char| c.is_ascii_digit())
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Up to systemd 253 a comment goes on over a newline that is escaped; later versions end it there. What follows such a
/// comment is left out here: better no port than one that the server does not have.
fn comment_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '\n' | '\r' if !escaped => return at,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// Where in a value the reader stands.
#[derive(Clone, Copy, PartialEq)]
enum At {
    /// Before anything, or after a closing quote: blanks do not count, and a quote opens.
    Outside,
    /// In a plain word, up to the end of the line: quotes are characters like others.
    Word,
    /// In `'...'`.
    Single,
    /// In `"..."`.
    Double,
}

/// The value at the beginning of `text`, and how many bytes of the text it takes.
fn value(text: &str) -> (String, usize) {
    let mut value = String::new();
    // Blanks at the end of a word count only where they were escaped.
    let mut solid = 0;
    let mut state = At::Outside;
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match (state, c) {
            (At::Outside | At::Word, '\n' | '\r') => {
                value.truncate(solid);
                return (value, at);
            }
            (At::Outside, ' ' | '\t') => {}
            (At::Outside, '\'') => state = At::Single,
            (At::Outside, '"') => state = At::Double,
            (At::Single, '\'') | (At::Double, '"') => state = At::Outside,
            (At::Outside | At::Word, '\\') => {
                state = At::Word;
                value.extend(characters.next().map(|(_, next)| next).filter(|next| !matches!(next, '\n' | '\r')));
                solid = value.len();
            }
            (At::Double, '\\') => {
                if let Some((_, next)) = characters.next().filter(|(_, next)| *next != '\n') {
                    // Only these are escapes here; before others the backslash stays.
                    if !matches!(next, '"' | '\\' | '`' | '$') {
                        value.push('\\');
                    }
                    value.push(next);
                    solid = value.len();
                }
            }
            (At::Word, ' ' | '\t') => value.push(c),
            (At::Outside | At::Word, _) => {
                state = At::Word;
                value.push(c);
                solid = value.len();
            }
            (At::Single | At::Double, _) => {
                value.push(c);
                solid = value.len();
            }
        }
    }
    value.truncate(solid);
    (value, text.len())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_read_as_systemd_reads_them() {
        let cases = [
            ("T3_PORT=3773\n", "3773"),
            ("T3_PORT=3773", "3773"),
            ("  T3_PORT =  3773  \r\n", "3773"),
            ("T3_PORT=\"3773\"\n", "3773"),
            ("T3_PORT='3773' \n", "3773"),
            ("T3_PORT='a b\\'\n", "a b\\"),
            ("T3_PORT=\"a \\\"b\\\" \\n \"\n", "a \"b\" \\n "),
            ("T3_PORT=37\\\n73\n", "3773"),
            ("T3_PORT='37' \"7\"3 \n", "3773"),
            ("T3_PORT=37\"73\"\n", "37\"73\""),
            ("T3_PORT=a\\ \\  \n", "a  "),
            ("T3_PORT=1\rT3_PORT=2\r", "2"),
            ("T3_PORT=\\\n  37\n", "  37"),
            ("T3_PORT=a b  c # no comment\n", "a b  c # no comment"),
            ("T3_PORT=\n", ""),
            ("T3_PORT=1\nT3_PORT=2\n", "2"),
            ("# c \\\nT3_PORT=1\nT3_PORT=2\n", "2"),
            ("nonsense\n; T3_PORT=1\n\n\tT3_PORT=2\n", "2"),
            ("A=\"\nT3_PORT=1\n\"\nT3_PORT=2", "2"),
        ];
        for (text, expected) in cases {
            assert_eq!(get(text, "T3_PORT").as_deref(), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn what_is_commented_out_or_no_name_is_not_there() {
        for text in ["#T3_PORT=1\n", "; T3_PORT=1", "export T3_PORT=1\n", "# x \\\nT3_PORT=1\n", "A=\\\nT3_PORT=1\n", "T3_PORT\n"]
        {
            assert_eq!(get(text, "T3_PORT"), None, "{text:?}");
        }
    }

    #[test]
    fn setting_keeps_everything_else() {
        let text = "# alice\nT3_HOST=\"127.0.0.1\" \nT3_PORT=1\n; end\nT3_PORT='2'\nX='a\nb'";
        assert_eq!(set(text, "T3_PORT", "4000"), "# alice\nT3_HOST=\"127.0.0.1\" \n; end\nT3_PORT=4000\nX='a\nb'");
        assert_eq!(set("X=1", "T3_PORT", "4000"), "X=1\nT3_PORT=4000\n");
        assert_eq!(set("", "T3_PORT", "4000"), "T3_PORT=4000\n");
        assert_eq!(set("X=1\\\n", "T3_PORT", "4000"), "X=1\\\n\nT3_PORT=4000\n");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_what_was_set_is_read_back(text in prop_oneof![any::<String>(), "([A-Z=#; \\\\\n\t'\"]|T3_PORT=){0,40}"]) {
            let others = |text: &str| assignments(text).into_iter().filter(|a| a.key != "P").map(|a| (a.key, a.value)).collect::<Vec<_>>();
            let changed = set(&text, "P", "4000");
            // An open quote or a backslash at the very end swallows whatever is appended, for systemd too.
            let open = set(&format!("{text}\nZ=1"), "P", "1");
            prop_assume!(get(&open, "Z").as_deref() == Some("1"));
            prop_assert_eq!(get(&changed, "P"), Some("4000".to_owned()));
            prop_assert_eq!(others(&changed), others(&text));
        }
    }
}
