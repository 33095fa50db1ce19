//! What a verb has to say, and how it gets out.

use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

use super::exit::Exit;
use super::render::plain_lines;
use crate::api::client::ClientError;
use crate::api::types::ApiError;

/// The same thing twice: as JSON for programs, as text for people.
#[derive(Debug)]
pub struct Answer {
    json: String,
    text: String,
    exit: Exit,
}

impl Answer {
    /// `what` for programs and `text` for people.
    pub fn new(what: &impl Serialize, text: String, exit: Exit) -> Result<Self, ClientError> {
        let json = serde_json::to_string_pretty(what)
            .map_err(|error| ApiError { kind: "internal".to_owned(), error: format!("the answer has no JSON form: {error}") })?;
        Ok(Self { json, text, exit })
    }

    /// How the process is to end.
    #[cfg(test)]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What people read.
    #[cfg(test)]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What programs read.
    #[cfg(test)]
    pub fn json(&self) -> &str {
        &self.json
    }
}

/// Prints what there is to say and tells how to end. Somebody who stops reading (`| head`) has read enough: no complaint.
pub fn print(answer: Result<Answer, ClientError>, json: bool) -> ExitCode {
    let (out, complaint, exit) = match answer {
        Ok(answer) => (if json { answer.json } else { answer.text }, None, answer.exit),
        Err(error) => {
            let out = if json { as_json(&error) } else { String::new() };
            (out, Some(plain_lines(&error.to_string())), Exit::from(&error))
        }
    };
    if let Some(complaint) = complaint {
        let _ = writeln!(io::stderr(), "t3pin: {complaint}");
    }
    if !out.is_empty() {
        let mut stdout = io::stdout().lock();
        let newline = if out.ends_with('\n') { "" } else { "\n" };
        match write!(stdout, "{out}{newline}").and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let _ = writeln!(io::stderr(), "t3pin: the answer could not be written: {error}");
                return ExitCode::from(Exit::Internal as u8);
            }
            _ => {}
        }
    }
    ExitCode::from(exit as u8)
}

/// `error` in the form in which the agent sends its own.
fn as_json(error: &ClientError) -> String {
    let own = |kind: &str| ApiError { kind: kind.to_owned(), error: error.to_string() };
    let body = match error {
        ClientError::Refused(refusal) => refusal.clone(),
        ClientError::Unreachable(_) => own("unreachable"),
        ClientError::Garbled(_) => own("internal"),
    };
    serde_json::to_string_pretty(&body).unwrap_or_default()
}
