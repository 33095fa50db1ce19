//! `t3pin t3 -- ARGS...`: the t3 of exactly the version that the caller's own server runs (promise 3).
//!
//! A newer t3 migrates the database under a live older server, even when it only lists something (T3-CONTRACT section 6). So
//! `/usr/lib/t3pin/bin/t3`, first in the PATH of people who have a server here, leads to this verb, which becomes the t3 of
//! the caller's binding. It runs as the caller and has no rights of its own: all it reads is for everybody to see. While t3pin
//! has the caller's data in its hands (`holds/USER`), nothing that may open the database is run. Who has no server here gets
//! the next t3 in the PATH, as if there were no t3pin.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Args;

use super::exit::Exit;
use crate::domain::UserName;
use crate::host::accounts;

/// Where bindings and holds lie; below it everybody may look up their own.
const VAR: &str = "/var/lib/t3pin";
/// What leads here from the PATH, and is never meant by "the next t3".
const ENTRANCE: &str = "/usr/lib/t3pin/bin/t3";
/// How long a held database is waited for: a hand-over takes seconds, a rollback of one that fails some more.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(200);
/// What a shell answers for a command that is not there.
const NOT_FOUND: u8 = 127;

/// Run the t3 that your own server runs, with these arguments
///
/// This is what /usr/lib/t3pin/bin/t3 does, which comes first in the PATH of everybody who has a server here: another version's
/// t3 would change the database under the server. Who has no server here gets the next t3 in the PATH. While the data is being
/// handed over from one version to another it waits for up to 30 s, and then ends with exit code 3; `--help` and `--version` never wait.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct OwnT3 {
    /// What t3 is told, after `--`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

impl OwnT3 {
    /// Becomes that t3. Only returns when it cannot.
    pub fn run(self) -> ExitCode {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = accounts::name(rustix::process::getuid().as_raw())
            .map_err(|error| Trouble::new(Exit::Internal as u8, format!("whose t3 is meant cannot be told: {error}")))
            .and_then(|user| found(Path::new(VAR), Path::new(ENTRANCE), user.as_ref(), &path));
        let ended = found.and_then(|found| {
            if let Found::Own { hold, .. } = &found
                && !is_about_itself(&self.arguments)
            {
                await_release(hold, PATIENCE)?;
            }
            let program = found.program();
            Err(cannot_run(program, &Command::new(program).args(&self.arguments).exec()))
        });
        match ended {
            Ok(never) => never,
            Err(trouble) => {
                eprintln!("t3: {}", trouble.message);
                ExitCode::from(trouble.code)
            }
        }
    }
}

/// Which t3 is meant.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// That of the caller's binding.
    Own {
        /// The program.
        program: PathBuf,
        /// Exists while the data must not be opened.
        hold: PathBuf,
    },
    /// The next one in the PATH.
    Next(PathBuf),
}

impl Found {
    fn program(&self) -> &Path {
        match self {
            Self::Own { program, .. } | Self::Next(program) => program,
        }
    }
}

/// Why there is none, and the exit code.
#[derive(Debug, PartialEq, Eq)]
struct Trouble {
    code: u8,
    message: String,
}

impl Trouble {
    fn new(code: u8, message: String) -> Self {
        Self { code, message }
    }
}

/// The t3 of `user`'s binding below `var`, or, when there is none, the first in `path` that is not `entrance`. A binding that
/// cannot be read is no reason to run another version.
fn found(var: &Path, entrance: &Path, user: Option<&UserName>, path: &OsStr) -> Result<Found, Trouble> {
    if let Some(user) = user {
        let binding = var.join("bindings").join(user.as_str());
        match fs::symlink_metadata(&binding) {
            Ok(_) => {
                return Ok(Found::Own { program: binding.join("bin/t3"), hold: var.join("holds").join(user.as_str()) });
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => {
                let message = format!("{} cannot be read ({error}); no t3 is run on a guess", binding.display());
                return Err(Trouble::new(Exit::Internal as u8, message));
            }
        }
    }
    next_in(path, entrance).map(Found::Next).ok_or_else(|| {
        let who = user.map_or_else(|| "you".to_owned(), ToString::to_string);
        let message = format!(
            "{who} has no T3 Code server here, and there is no other t3 in the PATH. An operator makes a server with: t3pin enroll {who}"
        );
        Trouble::new(NOT_FOUND, message)
    })
}

/// The first program `t3` in `path` that is not `entrance` under whatever name.
fn next_in(path: &OsStr, entrance: &Path) -> Option<PathBuf> {
    let file = |path: &Path| fs::metadata(path).ok().map(|seen| (seen.dev(), seen.ino()));
    let entrance = file(entrance);
    let is_program = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|seen| seen.is_file() && seen.permissions().mode() & 0o111 != 0) && file(path) != entrance
    };
    std::env::split_paths(path).filter(|dir| dir.is_absolute()).map(|dir| dir.join("t3")).find(is_program)
}

/// Whether t3 only tells of itself when it is told this, and leaves the database alone (T3-CONTRACT section 6). What is not
/// surely so is taken to open it.
fn is_about_itself(arguments: &[OsString]) -> bool {
    let asks = |argument: &OsString| ["--help", "-h", "--version", "-v"].iter().any(|flag| argument == flag);
    let is_flag = |argument: &OsString| argument.as_encoded_bytes().starts_with(b"-");
    arguments.iter().any(asks) && arguments.iter().all(|argument| asks(argument) || !is_flag(argument))
}

/// Waits until `hold` is gone, for `patience` at most. What cannot be looked at counts as held.
fn await_release(hold: &Path, patience: Duration) -> Result<(), Trouble> {
    let begun = Instant::now();
    let mut told = false;
    loop {
        match fs::symlink_metadata(hold) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
            _ if begun.elapsed() >= patience => {
                let message = "your data is being handed over from one version to another, and no t3 may open it meanwhile; \
                               nothing was done. Try again in a moment (t3pin status says what goes on)";
                return Err(Trouble::new(Exit::Deferred as u8, message.to_owned()));
            }
            _ => {}
        }
        if !told {
            eprintln!(
                "t3: your data is being handed over from one version to another; waiting for up to {} s",
                PATIENCE.as_secs()
            );
            told = true;
        }
        std::thread::sleep(LOOK.min(patience.saturating_sub(begun.elapsed())));
    }
}

fn cannot_run(program: &Path, error: &io::Error) -> Trouble {
    let message = format!(
        "{} cannot be run: {error}. An operator can look: t3pin versions",
        fs::canonicalize(program).unwrap_or_else(|_| program.to_owned()).display()
    );
    Trouble::new(Exit::Internal as u8, message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    /// `var` with a binding of alice's, the entrance, and a global t3, in a PATH of these.
    fn host() -> (tempfile::TempDir, PathBuf, OsString) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for made in ["bindings", "holds", "versions/0.0.24/bin", "lib", "bin", "other"] {
            fs::create_dir_all(root.join(made)).unwrap();
        }
        for program in ["lib/t3", "bin/t3", "versions/0.0.24/bin/t3"] {
            fs::write(root.join(program), "#!/bin/sh\n").unwrap();
            fs::set_permissions(root.join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
        std::os::unix::fs::symlink("../versions/0.0.24", root.join("bindings/alice")).unwrap();
        std::os::unix::fs::symlink("../lib/t3", root.join("other/t3")).unwrap();
        let path = std::env::join_paths(["lib", "other", "bin"].map(|dir| root.join(dir))).unwrap();
        let entrance = root.join("lib/t3");
        (dir, entrance, path)
    }

    fn name(text: &str) -> UserName {
        text.parse().unwrap()
    }

    #[test]
    fn whoever_has_a_server_here_gets_its_version_and_nobody_else_does() {
        let (root, entrance, path) = host();
        let own = found(root.path(), &entrance, Some(&name("alice")), &path).unwrap();
        assert_eq!(own.program(), root.path().join("bindings/alice/bin/t3"));
        for user in [Some(name("bob")), None] {
            let next = found(root.path(), &entrance, user.as_ref(), &path).unwrap();
            assert_eq!(next, Found::Next(root.path().join("bin/t3")), "not the entrance itself, under no name");
        }
    }

    #[test]
    fn a_binding_that_leads_nowhere_is_no_reason_to_run_another_version() {
        let (root, entrance, path) = host();
        fs::remove_dir_all(root.path().join("versions")).unwrap();
        let own = found(root.path(), &entrance, Some(&name("alice")), &path).unwrap();
        assert!(matches!(own, Found::Own { .. }), "{own:?}");
    }

    #[test]
    fn without_any_t3_it_says_what_to_do() {
        let (root, entrance, _) = host();
        let none = found(root.path(), &entrance, Some(&name("bob")), OsStr::new("relative:/nowhere")).unwrap_err();
        assert_eq!(none.code, 127);
        assert!(none.message.contains("t3pin enroll bob"), "{}", none.message);
    }

    #[test]
    fn only_questions_about_t3_itself_leave_the_database_alone() {
        let words = |text: &str| text.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        for harmless in ["--version", "-v", "--help", "auth --help", "auth pairing create -h"] {
            assert!(is_about_itself(&words(harmless)), "{harmless}");
        }
        for opens in
            ["", "auth pairing list", "serve", "auth pairing create --label --help", "project list --json", "--base-dir x -h"]
        {
            assert!(!is_about_itself(&words(opens)), "{opens}");
        }
    }

    #[test]
    fn held_data_is_waited_for_and_then_left_alone() {
        let (root, ..) = host();
        let hold = root.path().join("holds/alice");
        assert_eq!(await_release(&hold, Duration::ZERO), Ok(()));
        fs::write(&hold, "b000001").unwrap();
        assert_eq!(await_release(&hold, Duration::ZERO).unwrap_err().code, Exit::Deferred as u8);
        let (lifted, going) = (hold.clone(), std::sync::mpsc::channel());
        let lifting = std::thread::spawn(move || {
            going.1.recv().unwrap();
            fs::remove_file(lifted).unwrap();
        });
        going.0.send(()).unwrap();
        assert_eq!(await_release(&hold, Duration::from_secs(30)), Ok(()));
        lifting.join().unwrap();
    }
}
