//! `t3pin generate man|completions DIR`: for those who package t3pin, hence hidden. Made from the same definitions as `--help`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, Subcommand};
use clap_complete::Shell;
use serde::Serialize;

use super::Cli;
use super::answer::Answer;
use super::exit::{EXIT_CODES, Exit};
use crate::api::client::ClientError;
use crate::api::types::ApiError;

/// Write man pages or shell completions into an existing directory (for packaging)
#[derive(Debug, Args)]
pub struct Generate {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// t3pin.1 and one page per verb
    Man {
        /// Where to
        dir: PathBuf,
    },
    /// For bash (t3pin.bash), zsh (_t3pin) and fish (t3pin.fish)
    Completions {
        /// Where to
        dir: PathBuf,
    },
}

#[derive(Serialize)]
struct Generated {
    files: Vec<PathBuf>,
}

impl Generate {
    /// Writes the files and names them.
    pub fn run(self) -> Result<Answer, ClientError> {
        let written = match &self.what {
            What::Man { dir } => man(dir),
            What::Completions { dir } => completions(dir),
        };
        let files = written
            .map_err(|error| ApiError { kind: "internal".to_owned(), error: format!("the files cannot be written: {error}") })?;
        let text = files.iter().map(|file| format!("{}\n", file.display())).collect();
        Answer::new(&Generated { files }, text, Exit::Done)
    }
}

fn man(dir: &Path) -> io::Result<Vec<PathBuf>> {
    // Without `help` as a verb, which would be listed as a page that there is not.
    let without_help = |command: clap::Command| command.disable_help_subcommand(true);
    let mut command = without_help(Cli::command()).mut_subcommands(without_help);
    command.build();
    let mut files = Vec::new();
    pages(&command, dir, &mut files)?;
    Ok(files)
}

/// The page of `command`, with the exit codes as a section of its own, and those of its verbs.
fn pages(command: &clap::Command, dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let page = clap_mangen::Man::new(command.clone().after_help(None::<&str>));
    let mut text = Vec::new();
    page.render(&mut text)?;
    let (_, codes) = EXIT_CODES.split_once('\n').unwrap_or_default();
    write!(text, ".SH \"EXIT STATUS\"\n.nf\n{codes}\n.fi\n")?;
    let file = dir.join(page.get_filename());
    std::fs::write(&file, text)?;
    files.push(file);
    command.get_subcommands().filter(|verb| !verb.is_hide_set()).try_for_each(|verb| pages(verb, dir, files))
}

fn completions(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let generate = |shell| clap_complete::generate_to(shell, &mut Cli::command(), "t3pin", dir);
    [Shell::Bash, Shell::Zsh, Shell::Fish].into_iter().map(generate).collect()
}
