//! Sealing against trees that an honest npm would never leave. Run as root, ownership really changes hands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;

/// A tree owned by the builder: user id 65534 when the tests run as root, else whoever runs them.
struct Tree {
    _root: tempfile::TempDir,
    path: PathBuf,
    builder: u32,
    to: (u32, u32),
}

impl Tree {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("tree");
        fs::create_dir_all(path.join("node_modules/t3/dist")).unwrap();
        fs::write(path.join("node_modules/t3/dist/bin.mjs"), "#!/usr/bin/env node\n").unwrap();
        fs::set_permissions(path.join("node_modules/t3/dist/bin.mjs"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(path.join("node_modules/t3/package.json"), "{}").unwrap();
        let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let builder = if me.0 == 0 { 65534 } else { me.0 };
        Self { _root: root, path, builder, to: me }
    }

    fn seal(&self) -> Result<Vec<Entry>, SealError> {
        give(&self.path, self.builder);
        seal(&self.path, self.builder, self.to)
    }

    fn refusal(&self) -> String {
        match self.seal() {
            Err(SealError::Refused(why)) => why,
            other => panic!("not refused: {other:?}"),
        }
    }
}

fn give(path: &Path, uid: u32) {
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), uid);
        }
    }
    std::os::unix::fs::lchown(path, Some(uid), Some(uid)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_sealed_tree_belongs_to_root_and_has_no_write_or_setuid_bits() {
    let tree = Tree::new();
    let tool = tree.path.join("node_modules/tool");
    fs::write(&tool, "x").unwrap();
    symlink("../t3/dist/bin.mjs", tree.path.join("node_modules/t3/link")).unwrap();
    give(&tree.path, tree.builder);
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o6777)).unwrap();
    let entries = seal(&tree.path, tree.builder, tree.to).unwrap();
    assert_eq!(mode(&tool), 0o555);
    assert_eq!(mode(&tree.path), 0o555);
    assert_eq!(mode(&tree.path.join("node_modules/t3/package.json")), 0o444);
    assert_eq!(mode(&tree.path.join("node_modules/t3/dist/bin.mjs")), 0o555);
    for entry in &entries {
        assert_eq!(fs::symlink_metadata(tree.path.join(&entry.path)).unwrap().uid(), tree.to.0, "{}", entry.path);
    }
    let package = entries.iter().find(|entry| entry.path == "node_modules/t3/package.json").unwrap();
    let blake3 = blake3::hash(b"{}").to_hex().to_string();
    assert_eq!(package.content, Content::File { mode: 0o444, size: 2, blake3 });
}

#[test]
fn links_out_of_the_tree_are_refused_however_they_get_there() {
    for (links, name) in [
        (vec![("/etc/passwd", "a")], "absolute"),
        (vec![("../outside", "a")], "one up"),
        (vec![("node_modules/../../outside", "a")], "down and up"),
        // Each link alone stays inside when read as text; together they do not.
        (vec![("../..", "node_modules/t3/up"), ("node_modules/t3/up/..", "a")], "through another link"),
    ] {
        let tree = Tree::new();
        fs::write(tree.path.parent().unwrap().join("outside"), "secret").unwrap();
        for (target, at) in links {
            symlink(target, tree.path.join(at)).unwrap();
        }
        assert!(tree.refusal().contains("leads out of it"), "{name}");
    }
}

#[test]
fn links_that_stay_inside_or_lead_nowhere_are_kept() {
    let tree = Tree::new();
    symlink("../t3", tree.path.join("node_modules/t3/self")).unwrap();
    symlink("missing", tree.path.join("node_modules/dangling")).unwrap();
    symlink("loop", tree.path.join("node_modules/loop")).unwrap();
    let kept = tree.seal().unwrap();
    assert_eq!(kept.iter().filter(|entry| matches!(entry.content, Content::Link { .. })).count(), 3);
}

#[test]
fn the_link_to_python_that_old_node_gyp_leaves_is_dropped() {
    let tree = Tree::new();
    let rest = tree.path.join("node_modules/t3/build/node_gyp_bins");
    fs::create_dir_all(&rest).unwrap();
    symlink("/usr/bin/python3", rest.join("python3")).unwrap();
    let entries = tree.seal().unwrap();
    assert!(!rest.exists() && entries.iter().all(|entry| !entry.path.contains("node_gyp_bins")));
}

#[test]
fn fifos_sockets_and_other_devices_are_refused_without_waiting_for_them() {
    let tree = Tree::new();
    rustix::fs::mknodat(rustix::fs::CWD, tree.path.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    assert!(tree.refusal().contains("fifo"));
    let tree = Tree::new();
    let _socket = std::os::unix::net::UnixListener::bind(tree.path.join("socket")).unwrap();
    assert!(tree.refusal().contains("socket"));
}

#[test]
fn a_file_with_a_second_name_elsewhere_cannot_be_changed_through_it() {
    let tree = Tree::new();
    let inside = tree.path.join("node_modules/t3/package.json");
    let outside = tree.path.parent().unwrap().join("still-mine");
    fs::hard_link(&inside, &outside).unwrap();
    tree.seal().unwrap();
    fs::write(&outside, "changed").unwrap();
    assert_eq!(fs::read_to_string(&inside).unwrap(), "{}");
    assert_eq!(fs::metadata(&inside).unwrap().nlink(), 1);
    if tree.to.0 == 0 {
        assert_eq!(fs::metadata(&outside).unwrap().uid(), tree.builder, "the other name is not given away either");
    }
}

#[test]
fn a_file_of_somebody_else_is_refused() {
    let tree = Tree::new();
    if tree.to.0 != 0 {
        return;
    }
    give(&tree.path, tree.builder);
    fs::write(tree.path.join("node_modules/shadow"), "root's").unwrap();
    let Err(SealError::Refused(why)) = seal(&tree.path, tree.builder, tree.to) else { panic!("not refused") };
    assert!(why.contains("belongs to user id 0"), "{why}");
}

#[test]
fn names_that_t3pin_itself_adds_may_not_be_there_already() {
    for name in RESERVED {
        let tree = Tree::new();
        symlink("node_modules", tree.path.join(name)).unwrap();
        assert!(tree.refusal().contains(name));
    }
}

#[test]
fn endless_nesting_is_refused() {
    let tree = Tree::new();
    let deep = tree.path.join("d/".repeat(MAX_DEPTH + 2));
    fs::create_dir_all(deep).unwrap();
    assert!(tree.refusal().contains("nested deeper"));
}
