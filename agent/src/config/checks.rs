//! What single settings must look like. Each says what is wrong, or nothing.

use reqwest::Url;
use reqwest::header::HeaderName;

/// An npm registry.
pub(super) fn registry(text: &str) -> Option<String> {
    web_address(text).or_else(|| text.contains(['?', '#']).then(|| "must not have a ? or # part".to_owned()))
}

/// An http(s) address without a password: settings are printed, npm's credentials belong into its own npmrc.
pub(super) fn web_address(text: &str) -> Option<String> {
    let example = "must be an address such as \"https://npm.example.org/\"";
    let Ok(url) = Url::parse(text) else { return Some(format!("is not an address; it {example}")) };
    if !matches!(url.scheme(), "http" | "https") {
        return Some(format!("{example}: http or https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("must not hold a user name or password".to_owned());
    }
    text.chars().any(|c| c.is_control() || c.is_whitespace()).then(|| "must not hold blanks".to_owned())
}

/// The name of an HTTP header.
pub(super) fn header(text: &str) -> Option<String> {
    HeaderName::from_bytes(text.as_bytes())
        .is_err()
        .then(|| "is not the name of an HTTP header, such as \"X-authentik-username\"".to_owned())
}

/// The path of a pair endpoint.
pub(super) fn endpoint(text: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '\\' | '"' | '<' | '>');
    let good = text.starts_with('/') && !text.starts_with("//") && text.len() <= 256 && text.chars().all(plain);
    (!good).then(|| format!("{:?} must be a path that begins with one /, such as \"/api/auth/browser-session\"", shown(text)))
}

/// The name of an npm package; it becomes part of a comma-separated option of npm's.
pub(super) fn package(text: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.' | '/' | '@');
    let good = !text.is_empty() && text.len() <= 214 && !text.starts_with(['-', '.', '/']) && text.chars().all(plain);
    (!good).then(|| format!("{:?} must be the name of an npm package, such as \"node-pty\"", shown(text)))
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}
