//! Exit codes, the same for every verb (DESIGN section 8).

use crate::api::client::ClientError;
use crate::api::types::RunOutcome;

/// What scripts may rely on; shown by `t3pin --help` and in the man page.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done, or the question was answered
  1  internal error
  2  wrong usage
  3  deferred: put off because somebody works; it will be done by itself. For `mint`,
     `reissue` and `t3`: the data is being handed over to another version; ask again in a moment
  4  rolled back: something failed and was undone, data included
  5  refused: nothing was done, because it must not be (bad pin, freeze, quarantine,
     failed rehearsal or install), or this user may not, or there is no such thing
  6  stuck: something could neither be finished nor undone; a person has to look
  7  the agent cannot be reached

`status` exits 6 when something is stuck, or a server runs, nobody can reach it and
no restart helps or may be made; else 0.";

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// 0
    Done = 0,
    /// 1
    Internal = 1,
    /// 2, also what clap uses
    Usage = 2,
    /// 3
    Deferred = 3,
    /// 4
    RolledBack = 4,
    /// 5
    Refused = 5,
    /// 6
    Stuck = 6,
    /// 7
    Unreachable = 7,
}

impl From<RunOutcome> for Exit {
    fn from(outcome: RunOutcome) -> Self {
        match outcome {
            RunOutcome::Done => Self::Done,
            RunOutcome::Deferred => Self::Deferred,
            RunOutcome::RolledBack => Self::RolledBack,
            RunOutcome::Refused => Self::Refused,
            RunOutcome::Stuck => Self::Stuck,
        }
    }
}

impl From<&ClientError> for Exit {
    fn from(error: &ClientError) -> Self {
        match error {
            ClientError::Unreachable(_) => Self::Unreachable,
            ClientError::Garbled(_) => Self::Internal,
            ClientError::Refused(refusal) => match refusal.kind.as_str() {
                "forbidden" | "not-found" | "busy" => Self::Refused,
                "deferred" => Self::Deferred,
                "bad-request" => Self::Usage,
                _ => Self::Internal,
            },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::api::types::ApiError;

    #[test]
    fn outcomes_and_refusals_have_the_documented_codes() {
        let outcomes = [RunOutcome::Done, RunOutcome::Deferred, RunOutcome::RolledBack, RunOutcome::Refused, RunOutcome::Stuck];
        assert_eq!(outcomes.map(|outcome| Exit::from(outcome) as u8), [0, 3, 4, 5, 6]);
        let kinds = ["forbidden", "not-found", "busy", "deferred", "bad-request", "internal", "of a later version"];
        let codes = kinds.map(|kind| {
            let error = ApiError { kind: kind.to_owned(), error: String::new() };
            Exit::from(&ClientError::Refused(error)) as u8
        });
        assert_eq!(codes, [5, 5, 5, 3, 2, 1, 1]);
        assert_eq!(Exit::from(&ClientError::Unreachable(String::new())) as u8, 7);
        assert_eq!(Exit::from(&ClientError::Garbled(String::new())) as u8, 1);
    }

    #[test]
    fn every_code_is_in_the_help() {
        for code in 0..=7 {
            assert!(EXIT_CODES.contains(&format!("\n  {code}  ")), "{code}");
        }
    }
}
