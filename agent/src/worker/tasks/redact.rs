//! Blanking secrets in what a user's programs and servers say, before anybody else sees it.
//!
//! T3's own output is full of them: the startup token in the log, credentials in JSON, cookies in headers (T3-CONTRACT
//! sections 1 and 2). What is blanked too much costs an operator a guess; what is blanked too little is a login.

/// What stands in place of a secret.
const BLANK: &str = "***";

/// Errno names that look like a pairing credential: twelve capitals.
const ERRNO_NAMES: [&str; 5] = ["ECONNREFUSED", "ECONNABORTED", "EAFNOSUPPORT", "ENAMETOOLONG", "EHOSTUNREACH"];

/// Ends of words that announce a secret.
const KEYS: [&str; 9] =
    ["token", "credential", "credentials", "secret", "cookie", "password", "passwd", "authorization", "bearer"];

/// `text` without secrets, terminal escapes and control characters (line breaks become spaces).
///
/// Blanked are: the value after a key such as `token`, `credential`, `cookie` (as JSON, `key: value` or `key=value`),
/// cookies whose name speaks of a session, any word shaped like a pairing credential (12 characters `A-Z0-9`), and
/// anything shaped like `<payload>.<signature>`.
pub fn redact(text: &str) -> String {
    let plain = without_escapes(text);
    let mut out = String::with_capacity(plain.len());
    let mut rest = plain.as_str();
    let mut armed = false;
    while !rest.is_empty() {
        let word_len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(word_len);
        let gap_len = after.find(is_word).unwrap_or(after.len());
        let (gap, next) = after.split_at(gap_len);
        let key = !word.is_empty() && is_key(word, gap);
        if armed && !word.is_empty() && !key {
            out.push_str(BLANK);
            armed = gap.starts_with('=');
        } else {
            push_word(&mut out, word);
            let announced = gap.contains(['=', ':', '"', '\'', '<', '(']) || armed || word.eq_ignore_ascii_case("bearer");
            armed = (key || (armed && word.is_empty())) && announced && gap.len() <= 12;
        }
        out.push_str(gap);
        rest = next;
    }
    out
}

/// [`redact`]ed and cut to `max` characters: for what somebody else wrote and an operator reads in one line.
pub fn excerpt(bytes: &[u8], max: usize) -> String {
    let text = redact(&String::from_utf8_lossy(bytes));
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(max) {
        Some((cut, _)) => format!("{}...", &line[..cut]),
        None => line,
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '%' | '+' | '/' | '~')
}

fn is_key(word: &str, gap: &str) -> bool {
    let word = word.trim_end_matches('.').to_ascii_lowercase();
    KEYS.iter().any(|key| word.ends_with(key)) || (word.contains("session") && gap.starts_with('='))
}

/// Pushes a word that no key announced, blanking what is a secret by its own shape.
fn push_word(out: &mut String, word: &str) {
    if is_signed(word) {
        out.push_str(BLANK);
        return;
    }
    let mut rest = word;
    while !rest.is_empty() {
        let run_len = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (run, after) = rest.split_at(run_len);
        out.push_str(if is_credential(run) { BLANK } else { run });
        let gap_len = after.find(|c: char| c.is_ascii_alphanumeric()).unwrap_or(after.len());
        let (gap, next) = after.split_at(gap_len);
        out.push_str(gap);
        rest = next;
    }
}

/// Twelve capitals and digits, at least one capital (T3-CONTRACT section 1), and not an errno.
fn is_credential(run: &str) -> bool {
    run.len() == 12
        && run.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        && run.bytes().any(|b| b.is_ascii_uppercase())
        && !ERRNO_NAMES.contains(&run)
}

/// `<payload>.<signature>`, the shape of t3's cookies and bearer tokens (T3-CONTRACT section 2).
fn is_signed(word: &str) -> bool {
    let b64 = |part: &str| part.len() >= 16 && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    word.split('.').collect::<Vec<_>>().windows(2).any(|pair| b64(pair[0]) && b64(pair[1]))
}

/// Drops CSI and OSC escape sequences and turns other control characters into spaces.
fn without_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\u{1b}', Some('[')) => {
                chars.next();
                while let Some(c) = chars.next_if(|c| !matches!(c, '\u{1b}' | '\n')) {
                    if ('@'..='~').contains(&c) {
                        break;
                    }
                }
            }
            ('\u{1b}', Some(']')) => while chars.next_if(|c| !matches!(c, '\u{7}' | '\u{1b}' | '\n')).is_some() {},
            _ if c.is_control() => out.push(' '),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_t3_prints_at_start_loses_its_secrets_and_keeps_its_sense() {
        let said = "T3 Code server is ready.\nToken: ABCD2345EFGH\nPairing URL: http://10.0.0.1:3773/pair#token=ABCD2345EFGH";
        let kept = redact(said);
        assert_eq!(kept, "T3 Code server is ready. Token: *** Pairing URL: http://10.0.0.1:3773/pair#token=***");
    }

    #[test]
    fn errors_stay_readable() {
        for text in [
            "connect ECONNREFUSED 127.0.0.1:3773",
            r#"{"_tag":"EnvironmentAuthInvalidError","code":"auth_invalid","reason":"invalid_credential"}"#,
            "SqlError: Failed to prepare statement, database is locked",
        ] {
            assert_eq!(redact(text), text);
        }
    }

    #[test]
    fn cookies_go_under_every_name() {
        for text in
            ["t3_session=abc.def; Path=/", "set-cookie: sid=abc.def", "Cookie: t3_session_3773=abc.def", "a cookie=\"abc.def\""]
        {
            assert!(!redact(text).contains("abc"), "{}", redact(text));
        }
    }

    #[test]
    fn a_coloured_token_is_still_a_token() {
        assert_eq!(redact("\u{1b}[31mABCD2345EFGH\u{1b}[0m"), "***");
    }

    #[test]
    fn excerpts_are_bounded() {
        assert_eq!(excerpt("ä".repeat(1000).as_bytes(), 5), "äääää...");
    }

    proptest! {
        #[test]
        fn a_credential_after_a_key_never_survives(
            before in any::<String>(), after in any::<String>(), secret in "[A-Z2-9]{12}",
            key in prop::sample::select(vec![
                "Token: ", "token=", "#token=", "\"credential\":\"", "\"credential\": \"", "credential='", "Authorization: Bearer ",
            ]),
        ) {
            prop_assume!(!before.contains(&secret) && !after.contains(&secret));
            let text = format!("{before}{key}{secret}{after}");
            prop_assert!(!redact(&text).contains(&secret), "{}", redact(&text));
        }

        #[test]
        fn a_credential_standing_alone_never_survives(before in any::<String>(), secret in "[A-Z2-9]{11}[2-9]") {
            // A letter is what tells a credential from a number.
            prop_assume!(secret.bytes().any(|b| b.is_ascii_uppercase()));
            let text = format!("{before} {secret} x");
            prop_assert!(!redact(&text).contains(&secret));
        }

        #[test]
        fn a_session_cookie_never_survives(
            before in any::<String>(), name in "t3_session(_[0-9]{1,5})?", payload in "[A-Za-z0-9_-]{20,60}", mac in "[A-Za-z0-9_-]{43}",
        ) {
            let text = format!("{before}{name}={payload}.{mac}; Path=/");
            prop_assert!(!redact(&text).contains(&mac));
            prop_assert!(!redact(&text).contains(&payload));
        }

        #[test]
        fn any_text_is_taken_and_no_control_character_survives(text in any::<String>()) {
            prop_assert!(!redact(&text).chars().any(char::is_control));
        }
    }
}
