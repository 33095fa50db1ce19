//! Which processes run from a version? Its files must not go while one does, whatever the bindings say.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// A process that uses files below `tree`: its name and pid, for people. `None` when there is none.
///
/// What counts is its program, working directory, root, open files, mappings (proc(5)) and its command line, as node has
/// closed a script once it is read and may read more of them any time. A user who merely names the path holds up its
/// removal, and nothing else.
pub(super) fn running_from(tree: &Path) -> std::io::Result<Option<String>> {
    let mut below = tree.as_os_str().as_bytes().to_vec();
    below.push(b'/');
    for process in std::fs::read_dir("/proc")? {
        let process = process?;
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid != std::process::id() && uses(&process.path(), &below) {
            let comm = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let comm: String = comm.trim().chars().filter(|c| !c.is_control()).collect();
            return Ok(Some(format!("{comm} (pid {pid})")));
        }
    }
    Ok(None)
}

/// A process that ends while we look uses nothing any more: errors only mean that.
fn uses(process: &Path, below: &[u8]) -> bool {
    let leads_there = |link: &Path| {
        std::fs::read_link(link).is_ok_and(|target| {
            let target = target.as_os_str().as_bytes();
            target.starts_with(below) || below.strip_suffix(b"/") == Some(target)
        })
    };
    let names_it = |file: &str| {
        let content = std::fs::read(process.join(file)).unwrap_or_default();
        content.windows(below.len()).any(|window| window == below)
    };
    ["exe", "cwd", "root"].iter().any(|link| leads_there(&process.join(link)))
        || names_it("cmdline")
        || names_it("maps")
        || std::fs::read_dir(process.join("fd")).is_ok_and(|files| files.flatten().any(|file| leads_there(&file.path())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }

    #[test]
    fn a_process_counts_by_its_directory_its_files_and_its_arguments() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().canonicalize().unwrap().join("0.0.25");
        std::fs::create_dir(&tree).unwrap();
        std::fs::create_dir(root.path().join("0.0.250")).unwrap();
        let file = tree.join("bin.mjs");
        std::fs::write(&file, "x").unwrap();
        let start = |command: &mut Command| Running(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
        assert_eq!(running_from(&tree).unwrap(), None);
        let neighbour = start(Command::new("cat").current_dir(root.path().join("0.0.250")));
        assert_eq!(running_from(&tree).unwrap(), None);
        drop(neighbour);
        let script = format!("exec 7<{}; read x", file.display());
        for (directory, program, arguments) in [
            (tree.as_path(), "cat", vec![]),
            (root.path(), "sh", vec!["-c", "read x", file.to_str().unwrap()]),
            (root.path(), "sh", vec!["-c", &script]),
        ] {
            let running = start(Command::new(program).args(arguments).current_dir(directory));
            let found = running_from(&tree).unwrap().unwrap();
            assert!(found.contains(&format!("pid {}", running.0.id())), "{found}");
            drop(running);
            assert_eq!(running_from(&tree).unwrap(), None);
        }
    }
}
