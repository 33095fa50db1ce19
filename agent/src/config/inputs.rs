//! The settings as written, merged key by key over all fragments, with typed and bounded access to each.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ConfigError;
use super::fragment::{Input, Value};

/// The tables and keys that `agent.toml` and its fragments may have.
pub(super) const TABLES: [(&str, &[&str]); 6] = [
    ("store", &["registry", "node", "npm", "node_headers", "allow_scripts", "install_deadline"]),
    (
        "health",
        &[
            "pair_endpoints",
            "request_timeout",
            "start_deadline",
            "start_ceiling",
            "dispatch_url",
            "dispatch_header",
            "soak",
            "watch_interval",
        ],
    ),
    ("activity", &["quiet", "poll", "stale_after"]),
    ("drain", &super::drain::KEYS),
    ("snapshots", &["keep", "max_age", "max_bytes"]),
    ("instances", &["first_port"]),
];

/// What all fragments together say.
#[derive(Debug, Default)]
pub(super) struct Inputs(BTreeMap<(String, String), Input>);

impl Inputs {
    /// Takes over a fragment; its keys win over those taken before.
    pub fn merge(&mut self, fragment: Vec<Input>) -> Result<(), ConfigError> {
        for input in fragment {
            let place = match input.keys.as_slice() {
                [table] => {
                    keys_of(table).ok_or_else(|| input.unknown(&TABLES.map(|(name, _)| name)))?;
                    input.table()?;
                    continue;
                }
                [table, key, rest @ ..] => {
                    let allowed = keys_of(table).unwrap_or_default();
                    if !rest.is_empty() || !allowed.contains(&key.as_str()) {
                        return Err(input.unknown(allowed));
                    }
                    (table.clone(), key.clone())
                }
                [] => continue,
            };
            if input.value == Value::Table {
                return Err(input.refuse("is a table, and must be a plain value"));
            }
            self.0.insert(place, input);
        }
        Ok(())
    }

    /// The input of a key, if any fragment has it.
    pub fn get(&self, table: &str, key: &str) -> Option<&Input> {
        self.0.get(&(table.to_owned(), key.to_owned()))
    }

    /// A string that `check` says nothing against.
    pub fn text(&self, table: &str, key: &str, check: impl Fn(&str) -> Option<String>) -> Result<Option<String>, ConfigError> {
        let Some(input) = self.get(table, key) else { return Ok(None) };
        let text = input.text()?;
        check(text).map_or_else(|| Ok(Some(text.to_owned())), |problem| Err(input.refuse(problem)))
    }

    /// A list of strings, none of which `check` says anything against.
    pub fn texts(
        &self,
        table: &str,
        key: &str,
        check: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Vec<String>>, ConfigError> {
        let Some(input) = self.get(table, key) else { return Ok(None) };
        let texts = input.texts()?;
        match texts.iter().find_map(|text| check(text)) {
            Some(problem) => Err(input.refuse(problem)),
            None => Ok(Some(texts.to_vec())),
        }
    }

    /// An absolute path.
    pub fn path(&self, table: &str, key: &str) -> Result<Option<PathBuf>, ConfigError> {
        let plain = |text: &str| {
            let good = Path::new(text).is_absolute() && !text.chars().any(char::is_control);
            (!good).then(|| "must be an absolute path, beginning with /".to_owned())
        };
        Ok(self.text(table, key, plain)?.map(PathBuf::from))
    }

    /// A whole number within bounds.
    pub fn number(&self, table: &str, key: &str, bounds: RangeInclusive<i64>) -> Result<Option<i64>, ConfigError> {
        let Some(input) = self.get(table, key) else { return Ok(None) };
        let number = input.number()?;
        if bounds.contains(&number) {
            Ok(Some(number))
        } else {
            Err(input.refuse(format!("is {number}; allowed is {} to {}", bounds.start(), bounds.end())))
        }
    }

    /// A size in bytes within bounds, written as `"500MB"` or `"20GB"` (powers of 1000).
    pub fn size(&self, table: &str, key: &str, bounds: RangeInclusive<u64>) -> Result<Option<u64>, ConfigError> {
        let Some(input) = self.get(table, key) else { return Ok(None) };
        let text = input.text()?;
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = match unit.trim_start() {
            "MB" => Some(1_000_000u64),
            "GB" => Some(1_000_000_000),
            "TB" => Some(1_000_000_000_000),
            _ => None,
        };
        let size = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
        let size = size.ok_or_else(|| input.refuse("is not a size; write it as \"500MB\", \"20GB\" or \"1TB\""))?;
        if bounds.contains(&size) {
            return Ok(Some(size));
        }
        let mb = |bytes: &u64| bytes / 1_000_000;
        Err(input.refuse(format!("is {text}; allowed is {} MB to {} MB", mb(bounds.start()), mb(bounds.end()))))
    }

    /// A duration within bounds.
    pub fn duration(&self, table: &str, key: &str, bounds: RangeInclusive<Duration>) -> Result<Option<Duration>, ConfigError> {
        let Some(input) = self.get(table, key) else { return Ok(None) };
        let duration = humantime::parse_duration(input.text()?).map_err(|error| {
            input.refuse(format!("is not a duration ({error}); write it as \"500ms\", \"30s\", \"15min\" or \"2h\""))
        })?;
        if bounds.contains(&duration) {
            return Ok(Some(duration));
        }
        let shown = humantime::format_duration;
        Err(input.refuse(format!("is {}; allowed is {} to {}", shown(duration), shown(*bounds.start()), shown(*bounds.end()))))
    }
}

fn keys_of(table: &str) -> Option<&'static [&'static str]> {
    TABLES.iter().find(|(name, _)| *name == table).map(|(_, keys)| *keys)
}
