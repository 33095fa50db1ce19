//! Boots a throwaway machine, runs something in it and removes it: `tests/machine/shell`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use t3pin_tests::Machine;

const USAGE: &str = "usage: tests/machine/shell [--deb FILE | --install] [--with FILE]... [--outside] [-- COMMAND... | -- SCRIPT]

Boots a throwaway machine, runs a command in it, or a script file of this host with its arguments, or else a shell, and removes it.
  --install    install the package in T3PIN_DEB, or the newest in target/debian
  --deb FILE   install this package
  --with FILE  copy this file to /root
  --outside    on the host's network, with the registry that npm on the host is configured with";

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let (mut install, mut outside) = (false, false);
    let mut deb: Option<PathBuf> = None;
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--" => break,
            "--install" => install = true,
            "--outside" => outside = true,
            "--deb" => deb = arguments.next().map(PathBuf::from),
            "--with" => files.extend(arguments.next().map(PathBuf::from)),
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    let mut command: Vec<String> = arguments.collect();

    let machine = if outside { Machine::boot_outside() } else { Machine::boot() };
    if let Some(deb) = &deb {
        machine.install_package(deb);
    } else if install {
        machine.install_deb();
    }
    for file in &files {
        machine.copy_in(file);
    }
    if let Some(script) =
        command.first().filter(|first| Path::new(first).is_file()).and_then(|file| fs::read_to_string(file).ok())
    {
        machine.write("/root/script", &script);
        machine.ok("chmod 755 /root/script");
        "/root/script".clone_into(&mut command[0]);
    }
    let line = match command.is_empty() {
        true => "export TERM=linux; cd /root; exec bash -i".to_owned(),
        false => command.iter().map(|word| format!("'{}' ", word.replace('\'', r"'\''"))).collect(),
    };
    let code = machine.interactive(&line);
    drop(machine);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
