//! Reading what npm says: its JSON, its error codes, and its last lines as far as an operator may see them.

use serde_json::Value;

use crate::domain::Version;

/// As many lines of npm go into an error.
const LINES: usize = 15;
/// Longer lines are cut.
const LINE_CHARS: usize = 400;

/// What the registry says about one exact version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    /// `dist.integrity`; very old registries have none.
    pub integrity: Option<String>,
    /// `engines.node`.
    pub node: Option<String>,
}

/// Reads the output of `npm view t3@V --json version dist.integrity dist.tarball engines.node`: an object with dotted keys,
/// from npm 12 on in a list of one. Empty means "no such version" for npm before 7. `Err` when it is not about exactly this version.
pub(super) fn read_view(output: &str, version: &Version) -> Result<Option<Resolved>, String> {
    if output.trim().is_empty() {
        return Ok(None);
    }
    let printed: Value = serde_json::from_str(output).map_err(|error| format!("npm view did not print JSON: {error}"))?;
    let found = match printed.as_array().map(Vec::as_slice) {
        Some([one]) => one,
        _ => &printed,
    };
    let text = |key: &str| found.get(key).and_then(Value::as_str).map(str::to_owned);
    match text("version") {
        Some(said) if said == version.to_string() => {
            Ok(Some(Resolved { integrity: text("dist.integrity"), node: text("engines.node") }))
        }
        Some(said) => Err(format!("npm view answered with version {}", cut(&said))),
        None => Err("npm view did not answer with one version".to_owned()),
    }
}

/// npm's error code, e.g. `E404`: from its JSON on stdout (`error.code`), or from the line `npm error code E404`
/// (older ones print `npm ERR! code E404`).
pub(super) fn error_code(stdout: &str, log: &str) -> Option<String> {
    let json = serde_json::from_str::<Value>(stdout).ok();
    if let Some(code) = json.as_ref().and_then(|json| json.pointer("/error/code")).and_then(Value::as_str) {
        return Some(code.to_owned());
    }
    log.lines().find_map(|line| {
        let code = line.strip_prefix("npm error code ").or_else(|| line.strip_prefix("npm ERR! code "))?;
        Some(code.trim().to_owned())
    })
}

/// Whether the registry does not have what was asked for.
pub(super) fn is_unknown(code: &str) -> bool {
    matches!(code, "E404" | "ETARGET" | "ENOVERSIONS")
}

/// Whether the code means that the registry could not be reached or would not answer: worth another try later.
pub(super) fn is_network(code: &str) -> bool {
    let status = code.strip_prefix('E').and_then(|digits| digits.parse::<u16>().ok());
    status.is_some_and(|status| matches!(status, 401 | 403 | 407 | 408 | 429 | 500..=599))
        || ["CERT", "ERR_SOCKET", "ERR_TLS", "SIGNATURE"].iter().any(|part| code.contains(part))
        || matches!(
            code,
            "ECONNREFUSED"
                | "ECONNRESET"
                | "ECONNABORTED"
                | "ETIMEDOUT"
                | "ENOTFOUND"
                | "EAI_AGAIN"
                | "ENETUNREACH"
                | "EHOSTUNREACH"
                | "EPIPE"
                | "FETCH_ERROR"
                | "ERR_INVALID_URL"
        )
}

/// The last lines of what npm printed, cut to size, without control characters and secrets.
pub(super) fn last_lines(log: &str) -> String {
    let lines: Vec<String> =
        log.lines().map(str::trim_end).filter(|line| !line.is_empty() && !is_noise(line)).map(|line| blank(&cut(line))).collect();
    lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n")
}

/// JavaScript stack frames push what matters out of the last lines; npm's own log file goes with the staging directory.
fn is_noise(line: &str) -> bool {
    let said = ["npm error", "npm ERR!", "gyp ERR! stack"].iter().find_map(|prefix| line.strip_prefix(prefix)).unwrap_or(line);
    said.trim_start().starts_with("at ")
        || line.contains("A complete log of this run can be found in")
        || line.contains("/_logs/")
}

fn cut(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LINE_CHARS).collect()
}

/// Replaces credentials by `***`: user and password in URLs, npm's auth settings, bearer tokens, npm's own token format.
pub(super) fn blank(line: &str) -> String {
    let mut words = Vec::new();
    let mut after_secret_name = false;
    for word in line.split(' ') {
        let lower = word.to_ascii_lowercase();
        if after_secret_name && !word.is_empty() {
            words.push("***".to_owned());
            // `Authorization: Bearer X`: the secret is one word further on.
            after_secret_name = matches!(lower.as_str(), "bearer" | "basic" | "=");
            continue;
        }
        after_secret_name |= lower == "bearer" || lower.trim_end_matches([':', '=']) == "authorization";
        match ["_authtoken", "_auth", "_password"].iter().find_map(|name| lower.find(name).map(|at| at + name.len())) {
            Some(end) => {
                words.push(format!("{}=***", word.get(..end).unwrap_or_default()));
                after_secret_name = lower.get(end..).is_some_and(|rest| matches!(rest, "" | "=" | ":"));
            }
            None if lower.contains("npm_") && lower.len() >= 36 => words.push("***".to_owned()),
            None => words.push(blank_url(word)),
        }
    }
    words.join(" ")
}

/// `https://user:password@host/` becomes `https://***@host/`, as often as it occurs.
fn blank_url(word: &str) -> String {
    let mut out = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let authority = after.find(['/', '?', '#', '"', '\'']).unwrap_or(after.len());
        rest = match after.get(..authority).and_then(|authority| authority.rfind('@')) {
            Some(at) => {
                out.push_str("***");
                after.get(at..).unwrap_or_default()
            }
            None => after,
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn version() -> Version {
        "0.0.25".parse().unwrap()
    }

    #[test]
    fn the_answer_of_npm_view_is_read() {
        let output = r#"{"version":"0.0.25","dist.integrity":"sha512-abc==","dist.tarball":"http://r/t3/-/t3-0.0.25.tgz","engines.node":"^22.16"}"#;
        for output in [output.to_owned(), format!("[{output}]\n")] {
            let resolved = read_view(&output, &version()).unwrap().unwrap();
            assert_eq!(resolved, Resolved { integrity: Some("sha512-abc==".into()), node: Some("^22.16".into()) });
        }
    }

    #[test]
    fn an_answer_about_another_version_or_about_many_is_refused() {
        assert_eq!(read_view("\n", &version()), Ok(None));
        for output in [
            r#"{"version":"0.0.26"}"#,
            r#"[{"version":"0.0.25"},{"version":"0.0.25"}]"#,
            "[]",
            "\"0.0.25\"",
            "null",
            "<html>",
            "{}",
        ] {
            assert!(read_view(output, &version()).is_err(), "{output}");
        }
    }

    #[test]
    fn error_codes_are_found_in_json_and_in_the_log_of_old_and_new_npm() {
        let json = r#"{"error":{"code":"E404","summary":"Not Found"}}"#;
        assert_eq!(error_code(json, "").as_deref(), Some("E404"));
        assert_eq!(error_code("", "npm error code ECONNREFUSED\nnpm error x").as_deref(), Some("ECONNREFUSED"));
        assert_eq!(error_code("", "npm ERR! code ETARGET\n").as_deref(), Some("ETARGET"));
        assert_eq!(error_code("{}", "all is well"), None);
    }

    #[test]
    fn only_trouble_with_the_registry_counts_as_such() {
        for code in ["ECONNREFUSED", "E503", "E401", "UNABLE_TO_VERIFY_LEAF_SIGNATURE", "SELF_SIGNED_CERT_IN_CHAIN", "EAI_AGAIN"]
        {
            assert!(is_network(code), "{code}");
        }
        for code in ["E404", "ETARGET", "ERESOLVE", "1", "EINTEGRITY", "EACCES", "ENOSPC"] {
            assert!(!is_network(code), "{code}");
        }
    }

    #[test]
    fn secrets_never_get_into_an_error() {
        let secret = "hunter2hunter2hunter2hunter2hunter2hunter2";
        for line in [
            format!("GET https://bob:{secret}@registry.example/t3?x=https://u:{secret}@b/"),
            format!("GET https://{secret}@registry.example/t3"),
            format!("//registry.example/:_authToken={secret}"),
            format!("_authToken = {secret}"),
            format!("//r/:_password=\"{secret}\""),
            format!("_auth={secret}"),
            format!("authorization: Bearer {secret}"),
            format!("Authorization: Basic {secret} rest"),
            format!("using npm_{secret}"),
            format!("bearer {secret}"),
        ] {
            let blanked = last_lines(&line);
            assert!(!blanked.contains("hunter2"), "{line} -> {blanked}");
        }
        let plain = "npm error 404 Not Found - GET https://registry.example/t3 - Not found";
        assert_eq!(last_lines(plain), plain);
    }

    #[test]
    fn stack_frames_do_not_push_the_reason_out() {
        let frames = "npm error     at ClientRequest.emit (node:events:524:28)\n".repeat(30);
        let kept = last_lines(&format!("npm error code ECONNREFUSED\n{frames}npm error at last\nnpm error done"));
        assert_eq!(kept, "npm error code ECONNREFUSED\nnpm error done");
    }

    #[test]
    fn only_the_last_lines_are_kept_and_none_is_endless_or_drives_a_terminal() {
        let log: String = (0..100).map(|n| format!("line {n}\x1b[31m{}\n", "x".repeat(1000))).collect();
        let kept = last_lines(&log);
        assert_eq!(kept.lines().count(), 15);
        assert!(kept.ends_with('x') && kept.contains("line 99") && !kept.contains('\x1b'));
        assert!(kept.lines().all(|line| line.len() <= 400));
    }

    proptest::proptest! {
        #[test]
        fn no_output_makes_it_panic(text in "(?s).{0,200}") {
            let _ = (last_lines(&text), blank(&text), read_view(&text, &version()), error_code(&text, &text));
        }
    }
}
