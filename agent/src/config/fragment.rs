//! One file's text as inputs: every key with its line, in the order of the file. Knows TOML, not what keys mean.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// One key of a file with its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Input {
    /// The file.
    pub path: PathBuf,
    /// Line of the key, from 1.
    pub line: usize,
    /// The key's parts: `[users.alice]` with `version` is `users`, `alice`, `version`.
    pub keys: Vec<String>,
    /// Its value.
    pub value: Value,
}

/// A value, as far as any file of ours needs it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A string.
    Text(String),
    /// An integer.
    Number(i64),
    /// A list of strings.
    Texts(Vec<String>),
    /// A table; its keys follow as inputs of their own.
    Table,
    /// Anything else, with TOML's name for it.
    Other(&'static str),
}

impl Input {
    /// What is wrong with this input.
    pub fn refuse(&self, problem: impl Into<String>) -> ConfigError {
        ConfigError { path: self.path.clone(), line: Some(self.line), key: Some(dotted(&self.keys)), problem: problem.into() }
    }

    /// The key is none of `allowed`.
    pub fn unknown(&self, allowed: &[&str]) -> ConfigError {
        self.refuse(format!("unknown key; allowed here are: {}", allowed.join(", ")))
    }

    /// The value as a string.
    pub fn text(&self) -> Result<&str, ConfigError> {
        match &self.value {
            Value::Text(text) => Ok(text),
            other => Err(self.refuse(format!("must be a string in quotes, and is {}", other.name()))),
        }
    }

    /// The value as an integer.
    pub fn number(&self) -> Result<i64, ConfigError> {
        match &self.value {
            Value::Number(number) => Ok(*number),
            other => Err(self.refuse(format!("must be a whole number without quotes, and is {}", other.name()))),
        }
    }

    /// The value as a list of strings.
    pub fn texts(&self) -> Result<&[String], ConfigError> {
        match &self.value {
            Value::Texts(texts) => Ok(texts),
            other => Err(self.refuse(format!("must be a list of strings such as [\"a\", \"b\"], and is {}", other.name()))),
        }
    }

    /// The value as a table.
    pub fn table(&self) -> Result<(), ConfigError> {
        match &self.value {
            Value::Table => Ok(()),
            other => Err(self.refuse(format!("must be a table ([{}]), and is {}", dotted(&self.keys), other.name()))),
        }
    }
}

impl Value {
    fn name(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Number(_) => "an integer",
            Self::Texts(_) => "a list",
            Self::Table => "a table",
            Self::Other(name) => name,
        }
    }
}

/// Parses `text`; `path` is only for messages. Tables come before their keys.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Input>, ConfigError> {
    let document = DeTable::parse(text).map_err(|error| ConfigError {
        path: path.to_owned(),
        line: error.span().map(|span| line_of(text, span.start)),
        key: None,
        problem: format!("is not TOML: {}", error.message().replace('\n', "; ")),
    })?;
    let mut inputs = Vec::new();
    collect(path, text, &[], document.get_ref(), &mut inputs)?;
    inputs.sort_by_key(|(at, _)| *at);
    Ok(inputs.into_iter().map(|(_, input)| input).collect())
}

/// The key as one writes it in TOML.
pub(super) fn dotted(keys: &[String]) -> String {
    let mut text = String::new();
    for key in keys {
        let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        let dot = if text.is_empty() { "" } else { "." };
        // A key is the file's own text, and can be anything: it is cut and escaped before it reaches a terminal.
        let shown: String = key.chars().take(64).collect();
        let _ = if bare { write!(text, "{dot}{shown}") } else { write!(text, "{dot}{shown:?}") };
    }
    text
}

/// Depth-first, each with its offset in the text: a key within a header (`[users.alice]`) stands before what it holds.
fn collect(
    path: &Path,
    text: &str,
    above: &[String],
    table: &DeTable<'_>,
    inputs: &mut Vec<((usize, usize), Input)>,
) -> Result<(), ConfigError> {
    for (key, value) in table {
        let offset = key.span().start;
        let keys: Vec<String> = above.iter().cloned().chain([key.get_ref().to_string()]).collect();
        let depth = keys.len();
        let input = Input { path: path.to_owned(), line: line_of(text, offset), keys, value: Value::Other("") };
        let value_read = read(&input, value)?;
        if let DeValue::Table(inner) = value.get_ref() {
            collect(path, text, &input.keys, inner, inputs)?;
        }
        inputs.push(((offset, depth), Input { value: value_read, ..input }));
    }
    Ok(())
}

fn read(input: &Input, value: &Spanned<DeValue<'_>>) -> Result<Value, ConfigError> {
    Ok(match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => Value::Number(
            i64::from_str_radix(number.as_str(), number.radix())
                .map_err(|_| input.refuse("is a number too large for anything"))?,
        ),
        DeValue::Array(items) => items
            .iter()
            .map(|item| item.get_ref().as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .map_or(Value::Other("a list with something else than strings in it"), Value::Texts),
        DeValue::Table(_) => Value::Table,
        DeValue::Boolean(_) => Value::Other("true or false"),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date or time"),
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(usize, String, Value)> {
        let inputs = parse(Path::new("f.toml"), text).unwrap();
        inputs.into_iter().map(|input| (input.line, dotted(&input.keys), input.value)).collect()
    }

    #[test]
    fn inputs_keep_lines_and_the_order_of_the_file() {
        let found = parsed("z = \"x\"\n\n[b.\"e.f\"]\n# comment\nq = 3\n[a]\nlist = [\n\"1\",\n\"2\"]\n");
        let expected = [
            (1, "z", Value::Text("x".into())),
            (3, "b", Value::Table),
            (3, "b.\"e.f\"", Value::Table),
            (5, "b.\"e.f\".q", Value::Number(3)),
            (6, "a", Value::Table),
            (7, "a.list", Value::Texts(vec!["1".into(), "2".into()])),
        ];
        assert_eq!(found, expected.map(|(line, key, value)| (line, key.to_owned(), value)));
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        let error = parse(Path::new("/etc/t3pin/pin.toml"), "version = \"0.0.25\"\nversion = [\n").unwrap_err();
        assert_eq!(error.line, Some(2), "{error}");
        assert!(error.to_string().starts_with("/etc/t3pin/pin.toml, line 2: is not TOML: "), "{error}");
    }

    #[test]
    fn a_key_cannot_send_control_characters_to_a_terminal() {
        assert_eq!(dotted(&["a\u{1b}[2J".into()]), "\"a\\u{1b}[2J\"");
    }
}
