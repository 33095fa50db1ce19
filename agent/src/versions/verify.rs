//! Is a sealed version still what it was when it was sealed?
//!
//! Only root can change it: by mistake, by a restored backup, by another program that "repairs" npm trees. Whoever is bound to it
//! would then run something that was never rehearsed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};

use super::Store;
use super::manifest::{Content, Entry, MANIFEST, Marker, OK, read_manifest};
use super::tree::{MAX_DEPTH, names, open_directory, open_directory_at};
use crate::domain::{UnixMs, Version};

/// How closely a sealed version is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Names, kinds, owners, modes, sizes and times; the content of what was written to since it was sealed. A few system calls per entry.
    Glance,
    /// The content of every file.
    Content,
}

/// Differences that are named at most.
const MOST: usize = 5;

impl Store {
    /// What of `version` is not as it was sealed, each in a few words and with its path; empty when it is whole. Reads much
    /// of a disk: not for threads that answer somebody. A version that is not installed is an error.
    pub fn verify(&self, version: &Version, depth: Depth) -> io::Result<Vec<String>> {
        let directory = self.path(version);
        let Some(marker) = Marker::read(&directory)? else {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("t3 {version} is not installed")));
        };
        let Some(entries) = read_manifest(&directory, &marker)? else {
            return Ok(vec![format!("{MANIFEST} is not the one it was sealed with")]);
        };
        differences(&directory, &entries, marker.sealed_ms, depth)
    }
}

fn differences(directory: &Path, entries: &[Entry], sealed_ms: UnixMs, depth: Depth) -> io::Result<Vec<String>> {
    let root = open_directory(directory)?;
    let mut found = Vec::new();
    for entry in entries {
        if found.len() == MOST {
            return Ok(found);
        }
        if let Some(what) = difference(&root, entry, sealed_ms, depth)? {
            found.push(format!("{} {what}", entry.path));
        }
    }
    let known: BTreeSet<&str> = entries.iter().map(|entry| entry.path.as_str()).chain([MANIFEST, OK]).collect();
    additions(root, "", &known, &mut found)?;
    Ok(found)
}

/// What is wrong with one entry.
fn difference(root: &OwnedFd, entry: &Entry, sealed_ms: UnixMs, depth: Depth) -> io::Result<Option<&'static str>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(fd) = rustix::fs::openat2(root, entry.path.as_str(), flags, Mode::empty(), BENEATH) else {
        return Ok(Some("is gone, or cannot be reached"));
    };
    let stat = rustix::fs::fstat(&fd)?;
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Ok(Some("belongs to somebody else"));
    }
    let kind = FileType::from_raw_mode(stat.st_mode);
    match &entry.content {
        Content::Directory { mode } if kind != FileType::Directory || stat.st_mode & 0o7777 != *mode => {
            Ok(Some("is no such directory any more"))
        }
        Content::Directory { .. } => Ok(None),
        Content::Link { .. } if kind != FileType::Symlink => Ok(Some("is no link any more")),
        Content::Link { target } => {
            let now = rustix::fs::readlinkat(&fd, "", Vec::new())?;
            Ok((now.as_bytes() != target.as_bytes()).then_some("leads elsewhere"))
        }
        Content::File { .. } if kind != FileType::RegularFile => Ok(Some("is no file any more")),
        Content::File { mode, .. } if stat.st_mode & 0o7777 != *mode => Ok(Some("has another mode")),
        Content::File { size, .. } if u64::try_from(stat.st_size).ok() != Some(*size) => Ok(Some("has another size")),
        Content::File { .. } if depth == Depth::Glance && !written_since(&stat, sealed_ms) => Ok(None),
        Content::File { blake3, .. } => {
            let file = rustix::fs::openat2(
                root,
                entry.path.as_str(),
                OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
                BENEATH,
            )?;
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(File::from(file))?;
            Ok((hasher.finalize().to_hex().as_str() != blake3).then_some("has another content"))
        }
    }
}

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// A file that was written to has a later time; one with a later time may have it from its maker.
fn written_since(stat: &Stat, sealed_ms: UnixMs) -> bool {
    stat.st_mtime.saturating_mul(1000) > sealed_ms
}

/// What is below `directory` and was not sealed.
fn additions(directory: OwnedFd, path: &str, known: &BTreeSet<&str>, found: &mut Vec<String>) -> io::Result<()> {
    if path.split('/').count() > MAX_DEPTH {
        return Ok(());
    }
    for name in names(directory.as_fd(), usize::MAX)? {
        if found.len() >= MOST {
            return Ok(());
        }
        let text = name.to_string_lossy();
        let below = if path.is_empty() { text.into_owned() } else { format!("{path}/{text}") };
        let stat = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        if !known.contains(below.as_str()) {
            found.push(format!("{below} was added"));
            continue;
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            additions(open_directory_at(&directory, &*name)?, &below, known, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, SystemTime};

    use super::*;

    const CONTENT: &str = "console.log(1)\n";

    /// A sealed tree of one file in a directory, and a link; written an hour before it was sealed.
    fn tree() -> (tempfile::TempDir, Vec<Entry>, UnixMs) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir(root.join("lib")).unwrap();
        write(root, CONTENT, 3600);
        fs::set_permissions(root.join("lib"), fs::Permissions::from_mode(0o555)).unwrap();
        std::os::unix::fs::symlink("lib/a.js", root.join("a")).unwrap();
        let entry = |path: &str, content| Entry { path: path.to_owned(), content };
        let blake3 = blake3::hash(CONTENT.as_bytes()).to_hex().to_string();
        let entries = vec![
            entry("a", Content::Link { target: "lib/a.js".to_owned() }),
            entry("lib", Content::Directory { mode: 0o555 }),
            entry("lib/a.js", Content::File { mode: 0o444, size: CONTENT.len() as u64, blake3 }),
        ];
        let sealed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() - Duration::from_secs(60);
        (dir, entries, i64::try_from(sealed.as_millis()).unwrap())
    }

    /// Writes the file anew, as if so many seconds ago.
    fn write(root: &Path, content: &str, ago: u64) {
        let (lib, path) = (root.join("lib"), root.join("lib/a.js"));
        fs::set_permissions(&lib, fs::Permissions::from_mode(0o755)).unwrap();
        fs::remove_file(&path).ok();
        fs::write(&path, content).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(ago)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        fs::set_permissions(&lib, fs::Permissions::from_mode(0o555)).unwrap();
    }

    fn found(root: &Path, sealed: &(Vec<Entry>, UnixMs), depth: Depth) -> Vec<String> {
        differences(root, &sealed.0, sealed.1, depth).unwrap()
    }

    #[test]
    fn a_whole_tree_is_whole_however_it_is_looked_at() {
        let (dir, entries, at) = tree();
        let sealed = (entries, at);
        for depth in [Depth::Glance, Depth::Content] {
            assert_eq!(found(dir.path(), &sealed, depth), Vec::<String>::new());
            write(dir.path(), CONTENT, 0);
            assert_eq!(found(dir.path(), &sealed, depth), Vec::<String>::new(), "a later time alone is no change");
        }
    }

    #[test]
    fn a_glance_sees_what_was_written_since_and_a_full_look_sees_all() {
        let (dir, entries, at) = tree();
        let sealed = (entries, at);
        let other = CONTENT.replace('1', "2");
        write(dir.path(), &other, 0);
        assert_eq!(found(dir.path(), &sealed, Depth::Glance), ["lib/a.js has another content"]);
        write(dir.path(), &other, 3600);
        assert_eq!(found(dir.path(), &sealed, Depth::Glance), Vec::<String>::new(), "somebody has set the time back");
        assert_eq!(found(dir.path(), &sealed, Depth::Content), ["lib/a.js has another content"]);
    }

    #[test]
    fn what_is_gone_added_or_otherwise_is_named() {
        type Change = fn(&Path);
        let cases: [(&str, Change); 5] = [
            ("lib/a.js has another size", |root| write(root, "x", 3600)),
            ("lib/a.js has another mode", |root| {
                fs::set_permissions(root.join("lib/a.js"), fs::Permissions::from_mode(0o644)).unwrap();
            }),
            ("a leads elsewhere", |root| {
                fs::remove_file(root.join("a")).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", root.join("a")).unwrap();
            }),
            ("a is gone, or cannot be reached", |root| fs::remove_file(root.join("a")).unwrap()),
            ("new was added", |root| fs::create_dir(root.join("new")).unwrap()),
        ];
        for (said, change) in cases {
            let (dir, entries, at) = tree();
            change(dir.path());
            assert_eq!(found(dir.path(), &(entries, at), Depth::Glance), [said]);
        }
    }
}
