//! Looking at an installed tree: is it the t3 that was asked for, and can it run here?

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use serde_json::Value;

use super::tree::open_directory;
use crate::domain::Version;

const PACKAGE: &str = "node_modules/t3/package.json";
const LOCK: &str = "package-lock.json";
/// A lockfile of a real install has a few hundred kilobytes.
const MAX_JSON_BYTES: u64 = 64 * 1024 * 1024;

/// What is needed from a tree that is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inspected {
    /// t3's program, below the tree.
    pub entry: String,
    /// Integrity that the lockfile has for t3.
    pub integrity: Option<String>,
    /// Whether t3 depends on node-pty, whose native module it loads at start (T3-CONTRACT section 0).
    pub needs_pty: bool,
}

/// Checks the tree against `version` and the integrity that the registry named. `Err` says what is wrong.
pub(super) fn inspect(tree: &Path, version: &Version, integrity: Option<&str>) -> Result<Inspected, String> {
    let root = open_directory(tree).map_err(|error| format!("it cannot be opened: {error}"))?;
    let package = json(root.as_fd(), PACKAGE)?;
    let said = package.get("version").and_then(Value::as_str).unwrap_or_default();
    if said != version.to_string() {
        return Err(format!("its package.json says version \"{}\"", said.chars().take(64).collect::<String>()));
    }
    let bin = package.get("bin").ok_or("its package.json names no program")?;
    let bin = bin.as_str().or_else(|| bin.get("t3").and_then(Value::as_str)).ok_or("its package.json has no program \"t3\"")?;
    let entry = format!("node_modules/t3/{}", bin.trim_start_matches("./"));
    open(root.as_fd(), &entry).map_err(|error| format!("its program {entry} cannot be opened: {error}"))?;
    let lock = json(root.as_fd(), LOCK)?;
    let locked = lock.pointer("/packages/node_modules~1t3").ok_or("its lockfile has no entry for t3")?;
    let locked_integrity = locked.get("integrity").and_then(Value::as_str);
    if let Some(wanted) = integrity
        && !locked_integrity.is_some_and(|found| agrees(wanted, found))
    {
        let found = locked_integrity.unwrap_or("none");
        return Err(format!("its lockfile has integrity {found} for t3, and the registry said {wanted}"));
    }
    let depends = |list: &str| package.get(list).and_then(|list| list.get("node-pty")).is_some();
    let needs_pty = depends("dependencies") || depends("optionalDependencies");
    if needs_pty && !has_pty(root.as_fd(), tree) {
        return Err("the native module pty.node of node-pty was not built; python3, make, g++ and node's headers are needed \
                    ([store] node_headers), and the install script of node-pty must be allowed ([store] allow_scripts)"
            .to_owned());
    }
    Ok(Inspected { entry, integrity: locked_integrity.map(str::to_owned), needs_pty })
}

/// Whether two integrity texts (SRI: hashes separated by blanks) have a strong hash in common.
pub(super) fn agrees(a: &str, b: &str) -> bool {
    let strong = |hash: &&str| ["sha512-", "sha384-", "sha256-"].iter().any(|kind| hash.starts_with(kind));
    a.split_whitespace().filter(strong).any(|hash| b.split_whitespace().any(|other| other == hash))
}

/// node-pty looks in `build/Release`, then in `prebuilds/PLATFORM-ARCH`.
fn has_pty(root: BorrowedFd<'_>, tree: &Path) -> bool {
    ["node_modules/node-pty", "node_modules/t3/node_modules/node-pty"].iter().any(|package| {
        let prebuilds = std::fs::read_dir(tree.join(package).join("prebuilds")).into_iter().flatten().flatten();
        let prebuilt = prebuilds
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with("linux-"))
            .map(|name| format!("{package}/prebuilds/{name}/pty.node"));
        std::iter::once(format!("{package}/build/Release/pty.node")).chain(prebuilt).any(|path| open(root, &path).is_ok())
    })
}

fn json(root: BorrowedFd<'_>, path: &str) -> Result<Value, String> {
    let mut text = Vec::new();
    let file = open(root, path).map_err(|error| format!("its {path} cannot be opened: {error}"))?;
    file.take(MAX_JSON_BYTES).read_to_end(&mut text).map_err(|error| format!("its {path} cannot be read: {error}"))?;
    serde_json::from_slice(&text).map_err(|error| format!("its {path} is not JSON: {error}"))
}

/// Opens a regular file of the tree, over no link at all.
fn open(root: BorrowedFd<'_>, path: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?;
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(file.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use std::fs;

    const INTEGRITY: &str = "sha512-abc==";

    fn tree(package: &str, files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("node_modules/t3/dist")).unwrap();
        fs::write(root.path().join(PACKAGE), package).unwrap();
        let lock = format!(r#"{{"packages":{{"node_modules/t3":{{"version":"0.0.25","integrity":"{INTEGRITY}"}}}}}}"#);
        fs::write(root.path().join(LOCK), lock).unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        root
    }

    fn look(root: &tempfile::TempDir) -> Result<Inspected, String> {
        inspect(root.path(), &"0.0.25".parse().unwrap(), Some(INTEGRITY))
    }

    const GOOD: &str = r#"{"version":"0.0.25","bin":{"t3":"./dist/bin.mjs"},"dependencies":{"node-pty":"1"}}"#;
    const ENTRY: &str = "node_modules/t3/dist/bin.mjs";

    #[test]
    fn a_good_tree_names_its_program_and_its_native_module() {
        for pty in
            ["node_modules/node-pty/build/Release/pty.node", "node_modules/t3/node_modules/node-pty/prebuilds/linux-x64/pty.node"]
        {
            let found = look(&tree(GOOD, &[ENTRY, pty])).unwrap();
            assert_eq!(found, Inspected { entry: ENTRY.into(), integrity: Some(INTEGRITY.into()), needs_pty: true });
        }
        let plain = r#"{"version":"0.0.25","bin":"dist/bin.mjs"}"#;
        assert!(!look(&tree(plain, &[ENTRY])).unwrap().needs_pty);
    }

    #[test]
    fn a_tree_without_native_module_is_refused_although_its_version_prints() {
        let mac_only = ["node_modules/node-pty/prebuilds/darwin-arm64/pty.node", ENTRY];
        assert!(look(&tree(GOOD, &mac_only)).unwrap_err().contains("pty.node"));
    }

    #[test]
    fn another_version_a_missing_program_and_a_program_outside_are_refused() {
        for (package, files) in [
            (r#"{"version":"0.0.26","bin":"dist/bin.mjs"}"#, &[ENTRY][..]),
            (r#"{"version":"0.0.25","bin":"dist/bin.mjs"}"#, &[]),
            (r#"{"version":"0.0.25","bin":"../../../../../../bin/sh"}"#, &[]),
            (r#"{"version":"0.0.25","bin":{"other":"dist/bin.mjs"}}"#, &[ENTRY]),
            (r#"{"version":"0.0.25"}"#, &[ENTRY]),
            ("not json", &[ENTRY]),
        ] {
            assert!(look(&tree(package, files)).is_err(), "{package}");
        }
    }

    #[test]
    fn a_lockfile_that_disagrees_with_the_registry_is_refused() {
        let root = tree(r#"{"version":"0.0.25","bin":"dist/bin.mjs"}"#, &[ENTRY]);
        let why = inspect(root.path(), &"0.0.25".parse().unwrap(), Some("sha512-other")).unwrap_err();
        assert!(why.contains("sha512-other") && why.contains(INTEGRITY), "{why}");
    }

    #[test]
    fn integrities_agree_on_a_strong_hash_only() {
        assert!(agrees("sha512-a", "sha1-x sha512-a"));
        assert!(!agrees("sha1-x", "sha1-x"));
        assert!(!agrees("sha512-a", "sha512-b"));
        assert!(!agrees("", ""));
    }
}
