//! The devices that are paired with a user's server, and which of them have to pair again.
//!
//! All of it is what the user's own database says, so it is hostile text: however it came here, there are at most [`KEPT`] devices, their
//! texts are short and have no control characters, and what is no plain name of a session is only counted. There is no secret
//! among it: no token, no cookie, no credential.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{BumpId, PairingLabel, UnixMs};

/// So many devices are remembered one by one; of more, how many there are.
pub const KEPT: usize = 64;
/// Characters of a text.
const TEXT: usize = 64;
/// Characters of a user agent.
const AGENT: usize = 160;
/// Bytes of a name of a session or a link.
const ID: usize = 128;

/// A device that is paired: one live session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Raw")]
pub struct Device {
    /// The session's name in the database. It opens nothing.
    pub session: String,
    /// What its user calls it.
    pub label: Option<String>,
    /// `desktop`, `mobile`, ...
    pub kind: Option<String>,
    /// Its browser.
    pub browser: Option<String>,
    /// Its operating system.
    pub os: Option<String>,
    /// What it said of itself.
    pub user_agent: Option<String>,
    /// When it was last connected.
    pub last_ms: Option<UnixMs>,
    /// When it would have had to pair again anyway.
    pub expires_ms: Option<UnixMs>,
}

/// Devices as somebody tells them.
#[derive(Deserialize)]
struct Raw {
    session: String,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    browser: Option<String>,
    #[serde(default)]
    os: Option<String>,
    #[serde(default)]
    user_agent: Option<String>,
    #[serde(default)]
    last_ms: Option<UnixMs>,
    #[serde(default)]
    expires_ms: Option<UnixMs>,
}

impl From<Raw> for Device {
    fn from(raw: Raw) -> Self {
        Self {
            session: raw.session,
            label: raw.label,
            kind: raw.kind,
            browser: raw.browser,
            os: raw.os,
            user_agent: raw.user_agent,
            last_ms: raw.last_ms,
            expires_ms: raw.expires_ms,
        }
        .cleaned()
    }
}

impl Device {
    fn cleaned(self) -> Self {
        let text = |text: Option<String>, most| text.map(|text| clean(&text, most)).filter(|text| !text.is_empty());
        Self {
            label: text(self.label, TEXT),
            kind: text(self.kind, TEXT).filter(|kind| kind != "unknown"),
            browser: text(self.browser, TEXT),
            os: text(self.os, TEXT),
            user_agent: text(self.user_agent, AGENT),
            ..self
        }
    }

    /// What people know it by, in at most 64 characters.
    pub fn name(&self) -> String {
        let software = match (&self.browser, &self.os) {
            (Some(browser), Some(os)) => Some(format!("{browser} on {os}")),
            (one, other) => one.clone().or_else(|| other.clone()),
        };
        let name = self.label.clone().or(software).or_else(|| self.user_agent.clone()).or_else(|| self.kind.clone());
        name.map_or_else(|| "a device without a name".to_owned(), |name| name.chars().take(TEXT).collect())
    }

    /// What a new link for it is called in its user's own list.
    pub fn link_label(&self) -> Option<PairingLabel> {
        let label: String = format!("again: {}", self.name()).chars().take(TEXT).collect();
        label.parse().ok()
    }

    /// Whether it would have had to pair again by now in any case.
    pub fn has_expired(&self, now_ms: UnixMs) -> bool {
        self.expires_ms.is_some_and(|at| at <= now_ms)
    }
}

/// The paired devices of one user, those first that were connected last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "RawPaired")]
pub struct Paired {
    /// At most [`KEPT`].
    pub devices: Vec<Device>,
    /// How many there are besides.
    pub more: u64,
}

#[derive(Deserialize)]
struct RawPaired {
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    more: u64,
}

impl From<RawPaired> for Paired {
    fn from(raw: RawPaired) -> Self {
        Self::of(raw.devices, raw.more)
    }
}

impl Paired {
    /// `devices`, and how many there are besides.
    pub fn of(devices: impl IntoIterator<Item = Device>, mut more: u64) -> Self {
        let mut kept: Vec<Device> = Vec::new();
        for device in devices {
            if kept.len() < KEPT && is_plain_name(&device.session) {
                kept.push(device.cleaned());
            } else {
                more = more.saturating_add(1);
            }
        }
        Self { devices: kept, more }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        u64::try_from(self.devices.len()).unwrap_or(u64::MAX).saturating_add(self.more)
    }

    /// The names of the sessions.
    pub fn sessions(&self) -> Vec<String> {
        self.devices.iter().map(|device| device.session.clone()).collect()
    }

    /// Those that are not paired any more, now that the database was looked at and asked for [`Paired::sessions`]. Of those that are
    /// not known one by one, as many as can have found no place among the live ones.
    pub fn lost(&self, now: &PairedLook) -> Self {
        let gone = |device: &&Device| !now.still.contains(&device.session);
        let devices: Vec<Device> = self.devices.iter().filter(gone).cloned().collect();
        let still = u64::try_from(self.devices.len() - devices.len()).unwrap_or(u64::MAX);
        Self { devices, more: self.more.saturating_sub(now.live.count().saturating_sub(still)) }
    }
}

/// What a look at a database says about pairing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairedLook {
    /// Who is paired. A probe's own session is nobody's.
    pub live: Paired,
    /// Of the sessions that were asked for, those that live.
    pub still: BTreeSet<String>,
    /// Of the links that were asked for, those that somebody has used.
    pub used: BTreeSet<String>,
}

/// The new links that one lost session was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reissue {
    /// Which bump has cost it. After a rollback the same session may be lost once more, to another bump.
    pub bump: BumpId,
    /// For which session.
    pub session: String,
    /// The links, by their names, the last one last. No credential.
    pub links: Vec<String>,
    /// When the last one was made.
    pub at_ms: UnixMs,
    /// Until when that one is good.
    pub until_ms: UnixMs,
    /// One of them was used, or the session itself lives again.
    pub done: bool,
}

impl Reissue {
    /// Whether it is for this session, as it was lost to this bump.
    pub fn is_for(&self, bump: BumpId, device: &Device) -> bool {
        self.bump == bump && self.session == device.session
    }
}

/// Whether `name` can be the name of a session or a link.
fn is_plain_name(name: &str) -> bool {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    plain && !name.is_empty() && name.len() <= ID && !name.starts_with('-')
}

/// `text` on one line, without what changes how the rest of a line is read, and at most `most` characters.
fn clean(text: &str, most: usize) -> String {
    let is_mark = |c: char| matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    let plain: String = text.chars().map(|c| if c.is_control() || is_mark(c) { ' ' } else { c }).collect();
    let line = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(most).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn device(session: &str) -> Device {
        Device { session: session.to_owned(), ..Device::default() }
    }

    #[test]
    fn a_device_is_known_by_the_best_name_there_is() {
        let mut known = Device { user_agent: Some("Mozilla/5.0".to_owned()), kind: Some("mobile".to_owned()), ..device("s") };
        assert_eq!(known.name(), "Mozilla/5.0");
        (known.browser, known.os) = (Some("Firefox".to_owned()), Some("Linux".to_owned()));
        assert_eq!(known.name(), "Firefox on Linux");
        known.label = Some("my phone".to_owned());
        assert_eq!((known.name().as_str(), known.link_label().unwrap().as_str()), ("my phone", "again: my phone"));
        assert_eq!(device("s").name(), "a device without a name");
    }

    #[test]
    fn what_is_lost_is_what_lives_no_more() {
        let before = Paired { devices: vec![device("a"), device("b")], more: 3 };
        let look = |still: &[&str], live: u64| PairedLook {
            live: Paired { devices: vec![], more: live },
            still: still.iter().map(|id| (*id).to_owned()).collect(),
            used: BTreeSet::new(),
        };
        assert_eq!(before.lost(&look(&[], 0)), before);
        assert_eq!(before.lost(&look(&["a"], 2)), Paired { devices: vec![device("b")], more: 2 });
        assert_eq!(before.lost(&look(&["a", "b"], 5)), Paired::default());
    }

    #[test]
    fn names_that_could_be_options_or_paths_are_only_counted() {
        let paired = Paired::of(["ok-1", "", "--help", "a/b", "a b", &"x".repeat(129)].map(device), 0);
        assert_eq!((paired.devices.len(), paired.more), (1, 5));
    }

    proptest! {
        #[test]
        fn whatever_comes_over_the_pipe_is_short_plain_and_bounded(
            texts in prop::collection::vec((any::<String>(), "[a-z-]{0,3}", "\\PC{0,300}"), 0..100), more in any::<u64>(),
        ) {
            let devices: Vec<_> = texts.iter().map(|(text, session, agent)| serde_json::json!({
                "session": session, "label": text, "kind": text, "browser": agent, "os": text, "user_agent": agent,
            })).collect();
            let paired: Paired = serde_json::from_value(serde_json::json!({ "devices": devices, "more": more })).unwrap();
            prop_assert!(paired.devices.len() <= KEPT && paired.count() >= more);
            for device in &paired.devices {
                let texts = [&device.label, &device.kind, &device.browser, &device.os, &device.user_agent];
                for text in texts.into_iter().flatten().chain([&device.name()]) {
                    prop_assert!(!text.chars().any(char::is_control) && text.chars().count() <= AGENT && !text.is_empty());
                }
                prop_assert!(device.link_label().is_some() && is_plain_name(&device.session));
            }
            let again: Paired = serde_json::from_str(&serde_json::to_string(&paired).unwrap()).unwrap();
            prop_assert_eq!(again, paired);
        }
    }
}
