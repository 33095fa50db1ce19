//! Asking the instance's own CLI for a pairing credential, and taking back what it gave.
//!
//! Only the CLI of exactly the version that serves may be asked: a newer one migrates the database under the server
//! (T3-CONTRACT section 6). Every run costs 1.3 to 2.7 s (section 9), so there are as few as possible.

use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::domain::{PairingLabel, PairingTtl, StepOutcome};
use crate::worker::protocol::{MintSpec, MintedLink, ProbeSpec, TaskError, TaskErrorKind};
use crate::worker::tasks::program::{self, Ended, ProgramError, Surroundings, usual_umask};
use crate::worker::tasks::redact::excerpt;
use crate::worker::tasks::trouble::{self, failed, inconclusive};

/// How long one run of the CLI may take.
const RUN_DEADLINE: Duration = Duration::from_secs(30);

/// Runs while the database is locked: t3 has no busy timeout, trying again is the caller's job (T3-CONTRACT section 7).
const TRIES: u32 = 3;

/// What an operator gets to read of a CLI's complaint, in characters.
const COMPLAINT: usize = 300;

/// See [`crate::worker::Task::Mint`]: a credential for the user, not for a probe.
pub fn mint(spec: &MintSpec) -> Result<MintedLink, TaskError> {
    usual_umask();
    let other = |message: String| TaskError { kind: TaskErrorKind::Other, message };
    let surroundings = Surroundings::of_worker();
    let cli = Cli { program: &spec.cli, base_dir: &spec.base_dir, surroundings: &surroundings };
    let runtime = super::runtime().map_err(|error| other(format!("this host could not begin to mint: {error}")))?;
    let label = spec.label.as_ref().map(PairingLabel::as_str);
    let minting = async {
        if let Some(earlier) = spec.replaces.as_deref().filter(|id| is_plain_id(id)) {
            cli.run(&["auth", "pairing", "revoke", earlier], &[]).await?;
        }
        cli.mint(spec.ttl, label).await
    };
    runtime.block_on(minting).map_err(|outcome| match outcome {
        StepOutcome::Failed { reason, .. } | StepOutcome::Inconclusive { reason } => other(reason),
        StepOutcome::Passed => other("minting failed".to_owned()),
    })
}

/// The user's CLI on the user's data.
#[derive(Debug)]
pub struct Cli<'a> {
    /// `bin/t3` of the version that serves.
    pub program: &'a Path,
    /// t3's base directory.
    pub base_dir: &'a Path,
    /// Where it runs.
    pub surroundings: &'a Surroundings,
}

impl<'a> Cli<'a> {
    /// The CLI that `spec` names.
    pub fn of(spec: &'a ProbeSpec, surroundings: &'a Surroundings) -> Self {
        Self { program: &spec.cli, base_dir: &spec.base_dir, surroundings }
    }

    /// `t3 auth pairing create`: a link that is good for `ttl`.
    pub async fn mint(&self, ttl: PairingTtl, label: Option<&str>) -> Result<MintedLink, StepOutcome> {
        let ttl = ttl.to_string();
        let options = ["--ttl", &ttl, "--json"].into_iter().chain(label.into_iter().flat_map(|label| ["--label", label]));
        let ended = self.run(&["auth", "pairing", "create"], &options.collect::<Vec<_>>()).await?;
        let link: MintedLink =
            first_json(&ended.stdout).ok_or_else(|| failed("`t3 auth pairing create` succeeded but printed no credential"))?;
        if !is_plain_id(&link.id) || link.credential.is_empty() || link.credential.len() > 1024 {
            return Err(failed("`t3 auth pairing create` printed a credential that cannot be one"));
        }
        Ok(link)
    }

    /// Runs the CLI to a good end. `--base-dir` goes between `verb` and `options`.
    pub async fn run(&self, verb: &[&str], options: &[&str]) -> Result<Ended, StepOutcome> {
        let said = format!("`t3 {}`", verb.join(" "));
        let mut last = String::new();
        for attempt in 1..=TRIES {
            if attempt > 1 {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            let mut command = self.surroundings.command(self.program);
            command.args(verb).arg("--base-dir").arg(self.base_dir).args(options);
            let ended = program::run(command, RUN_DEADLINE).await.map_err(|error| match &error {
                ProgramError::Start(cause) if trouble::is_environment(cause) => inconclusive(format!("{said}: {error}")),
                _ => failed(format!("{said}: {error}")),
            })?;
            if ended.status.success() {
                return Ok(ended);
            }
            let printed = [ended.stdout.as_slice(), b"\n", ended.stderr.as_slice()].concat();
            last = format!("{said} failed ({}): {}", ended.status, excerpt(&printed, COMPLAINT));
            if ended.status.code().is_none() {
                return Err(inconclusive(format!("{last}; something on this host killed it")));
            }
            let printed = String::from_utf8_lossy(&printed);
            if let Some(sign) = trouble::sign_in(&printed) {
                return Err(inconclusive(format!("{last} (\"{sign}\")")));
            }
            if !printed.contains("database is locked") {
                return Err(failed(last));
            }
        }
        Err(inconclusive(format!("{last}; tried {TRIES} times")))
    }
}

/// The first JSON value of the wanted form that begins a line: older builds log before it, also on stdout.
pub fn first_json<T: DeserializeOwned>(printed: &[u8]) -> Option<T> {
    let printed = std::str::from_utf8(printed).ok()?;
    let starts = std::iter::once(0).chain(printed.match_indices('\n').map(|(at, _)| at + 1));
    starts
        .map(|at| &printed[at..])
        .filter(|rest| rest.trim_start_matches([' ', '\t']).starts_with(['{', '[']))
        .take(64)
        .find_map(|rest| serde_json::Deserializer::from_str(rest).into_iter().next()?.ok())
}

/// Whether an id may be given to the CLI as an argument.
pub fn is_plain_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 128
        && !id.starts_with('-')
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mint_with(script: &str) -> Result<MintedLink, StepOutcome> {
        let dir = tempfile::tempdir().unwrap();
        let cli = dir.path().join("t3");
        std::fs::write(&cli, format!("#!/bin/sh\ncd {}\n{script}\n", dir.path().display())).unwrap();
        std::fs::set_permissions(&cli, std::fs::Permissions::from_mode(0o755)).unwrap();
        let surroundings = Surroundings { home: dir.path().into(), user: "u".to_owned(), shell: String::new() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(
            Cli { program: &cli, base_dir: dir.path(), surroundings: &surroundings }.mint(PairingTtl::default(), Some("x")),
        )
    }

    const GOOD: &str = r#"echo '{"id":"p1","credential":"ABCD2345EFGH","role":"client","expiresAt":"x"}'"#;

    #[test]
    fn a_link_that_is_replaced_is_revoked_first_and_never_an_option() {
        for (replaces, calls) in [
            (Some("l-1"), "auth pairing revoke l-1 --base-dir BASE\nauth pairing create --base-dir BASE --ttl 5m --json\n"),
            (Some("--help"), "auth pairing create --base-dir BASE --ttl 5m --json\n"),
            (None, "auth pairing create --base-dir BASE --ttl 5m --json\n"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let cli = dir.path().join("t3");
            let called = dir.path().join("called");
            std::fs::write(&cli, format!("#!/bin/sh\necho \"$@\" >>{}\n{GOOD}\n", called.display())).unwrap();
            std::fs::set_permissions(&cli, std::fs::Permissions::from_mode(0o755)).unwrap();
            let spec = MintSpec {
                cli,
                node: "/usr/bin/node".into(),
                base_dir: "BASE".into(),
                ttl: PairingTtl::default(),
                label: None,
                replaces: replaces.map(str::to_owned),
            };
            assert_eq!(mint(&spec).unwrap().id, "p1");
            assert_eq!(std::fs::read_to_string(called).unwrap(), calls);
        }
    }

    #[test]
    fn json_after_log_lines_is_found() {
        let link = mint_with(&format!("echo '[10:00:00.000] INFO (#1): Running all migrations... {{}}'\n{GOOD}")).unwrap();
        assert_eq!((link.id.as_str(), link.credential.as_str()), ("p1", "ABCD2345EFGH"));
    }

    #[test]
    fn json_over_several_lines_is_found() {
        let link = mint_with("printf '{\\n \"id\": \"p1\",\\n \"credential\": \"X\"\\n}\\n'").unwrap();
        assert_eq!(link.id, "p1");
    }

    #[test]
    fn a_locked_database_is_tried_again() {
        let link = mint_with(&format!("[ -e tried ] || {{ touch tried; echo 'database is locked'; exit 1; }}\n{GOOD}"));
        assert!(link.is_ok(), "{link:?}");
    }

    #[test]
    fn a_failing_cli_fails_the_version_without_telling_secrets() {
        let outcome = mint_with("echo 'AuthControlPlaneError: no column named role, Token: ABCD2345EFGH'; exit 1").unwrap_err();
        let StepOutcome::Failed { reason, .. } = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("no column named role") && !reason.contains("ABCD2345EFGH"), "{reason}");
    }

    #[test]
    fn a_full_disk_and_a_killed_cli_are_inconclusive() {
        for script in ["echo 'ENOSPC: no space left on device' >&2; exit 1", "kill -9 $$"] {
            assert!(matches!(mint_with(script), Err(StepOutcome::Inconclusive { .. })), "{script}");
        }
    }

    #[test]
    fn nonsense_is_not_taken_for_a_credential() {
        for script in ["echo '{}'", "echo 'Token: ABCD2345EFGH'", r#"echo '{"id":"--base-dir","credential":"x"}'"#, "true"] {
            assert!(matches!(mint_with(script), Err(StepOutcome::Failed { .. })), "{script}");
        }
    }

    #[test]
    fn a_missing_cli_is_the_versions_fault() {
        let here = Surroundings { home: "/".into(), user: "u".to_owned(), shell: String::new() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let cli = Cli { program: Path::new("/nowhere/t3"), base_dir: Path::new("/"), surroundings: &here };
        assert!(matches!(runtime.block_on(cli.mint(PairingTtl::default(), None)), Err(StepOutcome::Failed { .. })));
    }
}
