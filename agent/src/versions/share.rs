//! Files that an installed version has already are stored once.
//!
//! Two versions of t3 share most of their dependencies. A sealed file never changes and belongs to root, so one inode can be in both:
//! a hard link, or, where a file may have no more links (EMLINK, btrfs in particular), a clone that shares its blocks
//! (ioctl_ficlone(2)). A tree is shared while it is still in `staging/`, so a crash leaves nothing behind; and what cannot be
//! shared stays a copy of its own, which is only bigger.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Stat};

use super::manifest::{Content, Entry};
use super::tree::open_directory;

/// Name of a link in `staging/V/` before it takes the place of the copy.
const LINK: &str = "shared";

/// Replaces files of the sealed `tree` by the same ones of `others`, sealed trees with their manifests. Returns the bytes that are
/// stored once. `beside` is a directory of root's on the same file system.
pub(super) fn share(tree: &Path, entries: &[Entry], others: &[(&Path, &[Entry])], beside: &Path) -> io::Result<u64> {
    let mut wanted: BTreeMap<(&str, u64, u32), Vec<&str>> = BTreeMap::new();
    for (path, mode, size, blake3) in files(entries).filter(|(_, _, size, _)| *size > 0) {
        wanted.entry((blake3, size, mode)).or_default().push(path);
    }
    let (own, beside) = (open_directory(tree)?, open_directory(beside)?);
    let mut saved = 0;
    for (other, manifest) in others {
        let root = open_directory(other)?;
        for (path, mode, size, blake3) in files(manifest) {
            // The first of the others that has it gives it.
            let Some(places) = wanted.remove(&(blake3, size, mode)) else { continue };
            let Some(source) = sealed(&root, path, size, mode, blake3)? else { continue };
            for place in places {
                match put(&root, path, &source, &own, place, mode, &beside) {
                    Ok(true) => saved += size,
                    Ok(false) => {}
                    Err(error) => {
                        rustix::fs::unlinkat(&beside, LINK, AtFlags::empty()).ok();
                        return Err(error);
                    }
                }
            }
        }
    }
    Ok(saved)
}

fn files(entries: &[Entry]) -> impl Iterator<Item = (&str, u32, u64, &str)> {
    entries.iter().filter_map(|entry| match &entry.content {
        Content::File { mode, size, blake3 } => Some((entry.path.as_str(), *mode, *size, blake3.as_str())),
        Content::Directory { .. } | Content::Link { .. } => None,
    })
}

/// The file at `path` below `root`, if it is still what its manifest says: root's, that mode, that content.
fn sealed(root: &OwnedFd, path: &str, size: u64, mode: u32, blake3: &str) -> io::Result<Option<File>> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(fd) = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) else { return Ok(None) };
    let stat = rustix::fs::fstat(&fd)?;
    let me = rustix::process::geteuid().as_raw();
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() || stat.st_uid != me || stat.st_mode & 0o7777 != mode {
        return Ok(None);
    }
    let file = File::from(fd);
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&file)?;
    Ok((hasher.count() == size && hasher.finalize().to_hex().as_str() == blake3).then_some(file))
}

/// Puts the file `source`, at `path` below `root`, in the place of `place` below `own`. Says whether it did.
fn put(root: &OwnedFd, path: &str, source: &File, own: &OwnedFd, place: &str, mode: u32, beside: &OwnedFd) -> io::Result<bool> {
    match rustix::fs::linkat(root, path, beside, LINK, AtFlags::empty()) {
        Ok(()) => {
            // What was linked must be what was looked at.
            let linked: Stat = rustix::fs::statat(beside, LINK, AtFlags::SYMLINK_NOFOLLOW)?;
            let seen = rustix::fs::fstat(source)?;
            if (linked.st_dev, linked.st_ino) != (seen.st_dev, seen.st_ino) {
                rustix::fs::unlinkat(beside, LINK, AtFlags::empty())?;
                return Ok(false);
            }
        }
        Err(_) => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let clone = rustix::fs::openat(beside, LINK, flags, Mode::from_raw_mode(0o600))?;
            if rustix::fs::ioctl_ficlone(&clone, source).is_err() {
                rustix::fs::unlinkat(beside, LINK, AtFlags::empty())?;
                return Ok(false);
            }
            rustix::fs::fchmod(&clone, Mode::from_raw_mode(mode))?;
        }
    }
    rustix::fs::renameat(beside.as_fd(), LINK, own.as_fd(), place)?;
    // rename(2) does nothing when both are one file already, as when an install was repeated.
    match rustix::fs::unlinkat(beside, LINK, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Bytes on disk that removing `tree` would give back: those of files that have no other name.
pub(super) fn own_bytes(tree: &Path) -> io::Result<u64> {
    fn walk(directory: OwnedFd, depth: usize, sum: &mut u64) -> io::Result<()> {
        for name in super::tree::names(directory.as_fd(), usize::MAX)? {
            let stat = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            let is_dir = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
            if is_dir || stat.st_nlink == 1 {
                *sum += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
            }
            if is_dir && depth < super::tree::MAX_DEPTH {
                walk(super::tree::open_directory_at(&directory, &name)?, depth + 1, sum)?;
            }
        }
        Ok(())
    }
    let mut sum = 0;
    walk(rustix::fs::openat(CWD, tree, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?, 0, &mut sum)?;
    Ok(sum)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::PathBuf;

    struct Trees {
        root: tempfile::TempDir,
    }

    impl Trees {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("beside")).unwrap();
            Self { root }
        }

        fn sealed(&self, name: &str, files: &[(&str, &str, u32)]) -> (PathBuf, Vec<Entry>) {
            let tree = self.root.path().join(name);
            let entries = files.iter().map(|(path, content, mode)| {
                fs::create_dir_all(tree.join(path).parent().unwrap()).unwrap();
                fs::write(tree.join(path), content).unwrap();
                fs::set_permissions(tree.join(path), fs::Permissions::from_mode(*mode)).unwrap();
                let blake3 = blake3::hash(content.as_bytes()).to_hex().to_string();
                Entry { path: (*path).to_owned(), content: Content::File { mode: *mode, size: content.len() as u64, blake3 } }
            });
            let entries = entries.collect();
            (tree, entries)
        }

        fn share(&self, new: &(PathBuf, Vec<Entry>), old: &(PathBuf, Vec<Entry>)) -> u64 {
            share(&new.0, &new.1, &[(&old.0, &old.1)], &self.root.path().join("beside")).unwrap()
        }
    }

    fn ino(path: PathBuf) -> u64 {
        fs::metadata(path).unwrap().ino()
    }

    #[test]
    fn the_same_file_is_one_inode_and_what_differs_in_content_or_mode_is_not() {
        let trees = Trees::new();
        let old = trees.sealed("0.0.24", &[("lib/a", "same", 0o444), ("lib/b", "old", 0o444), ("lib/c", "run", 0o555)]);
        let new = trees.sealed(
            "0.0.25",
            &[("lib/x", "same", 0o444), ("y", "same", 0o444), ("lib/b", "new", 0o444), ("lib/c", "run", 0o444)],
        );
        assert_eq!(trees.share(&new, &old), 8);
        assert_eq!(trees.share(&new, &old), 8, "repeating it changes nothing");
        assert_eq!(ino(old.0.join("lib/a")), ino(new.0.join("lib/x")));
        assert_eq!(ino(old.0.join("lib/a")), ino(new.0.join("y")));
        assert_ne!(ino(old.0.join("lib/c")), ino(new.0.join("lib/c")));
        assert_eq!(fs::read(new.0.join("lib/b")).unwrap(), b"new");
        assert_eq!(fs::read_dir(trees.root.path().join("beside")).unwrap().count(), 0);
        let before = own_bytes(&old.0).unwrap();
        super::super::remove::remove(trees.root.path(), "0.0.25").unwrap();
        assert_eq!(fs::read(old.0.join("lib/a")).unwrap(), b"same", "removing one leaves the other whole");
        assert!(own_bytes(&old.0).unwrap() > before, "and now it is its alone");
    }

    #[test]
    fn a_file_that_is_no_longer_what_its_manifest_says_is_not_shared() {
        let trees = Trees::new();
        let old = trees.sealed("0.0.24", &[("a", "same", 0o444), ("b", "same too", 0o444), ("c", "third", 0o444)]);
        let new = trees.sealed("0.0.25", &[("a", "same", 0o444), ("b", "same too", 0o444), ("c", "third", 0o444)]);
        fs::write(old.0.join("a"), "rott").unwrap();
        fs::remove_file(old.0.join("b")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", old.0.join("b")).unwrap();
        fs::set_permissions(old.0.join("c"), fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(trees.share(&new, &old), 0);
        assert_eq!(fs::read(new.0.join("a")).unwrap(), b"same");
        assert_eq!(fs::read(new.0.join("b")).unwrap(), b"same too");
    }

    #[test]
    #[ignore = "a measurement: tests/bench/archive"]
    fn a_second_version_shares_its_largest_dependency() {
        let trees = Trees::new();
        // In proportion to a real install (T3-CONTRACT section 9): many small files, a few large ones, and t3's own that change.
        let content = |seed: u32, bytes: usize| -> String {
            let mut text = String::new();
            while text.len() < bytes {
                text.push_str(blake3::hash(format!("{seed} {}", text.len()).as_bytes()).to_hex().as_str());
            }
            text
        };
        let make = |name: &str, own: u32| {
            let mut files: Vec<(String, String, u32)> =
                (0..2000).map(|n| (format!("node_modules/dep/lib/{n}.js"), content(n, 20_000), 0o444)).collect();
            files.push(("node_modules/dep/native.node".to_owned(), content(7, 30_000_000), 0o555));
            files.extend((0..200).map(|n| (format!("node_modules/t3/dist/{n}.mjs"), content(own + n, 100_000), 0o444)));
            let files: Vec<(&str, &str, u32)> =
                files.iter().map(|(path, text, mode)| (path.as_str(), text.as_str(), *mode)).collect();
            trees.sealed(name, &files)
        };
        let (old, new) = (make("0.0.24", 100_000), make("0.0.25", 200_000));
        let whole = own_bytes(&new.0).unwrap();
        trees.share(&new, &old);
        let alone = own_bytes(&new.0).unwrap();
        let part = 100.0 * alone as f64 / whole as f64;
        println!(
            "ROW second version in the store, sharing its largest dependency | {part:.0} % of its size | 40 % | {}",
            part < 40.0
        );
        println!("ALT alone it takes {:.0} MB, beside the first {:.0} MB", whole as f64 / 1e6, alone as f64 / 1e6);
    }
}
