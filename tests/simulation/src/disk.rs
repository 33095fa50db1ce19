//! A disk, by inodes, that forgets at a power cut whatever was not synced.
//!
//! What a process sees is one thing, what lies on the disk another. A name (made, moved, removed) is on the disk once a
//! directory that it touches was synced (fsync(2)), content, owner and mode once the file itself was. At a power cut any part of
//! the rest is there and any is not: each change of names wholly or not at all, as journaling file systems have it, and never
//! without the earlier changes of the same names; of content the old, the new, or the beginning of the new. What has no name any more is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::rc::Rc;

use t3pin::simulated::{Errno, Target};

use crate::rng::Rng;

/// Number of a file or directory.
pub type Ino = u64;
/// The names in a directory.
pub type Names = BTreeMap<OsString, Ino>;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link; a user's trap, leads nowhere.
    Link,
}

/// What can change of a node besides names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// Owner.
    pub owner: (u32, u32),
    /// Permission bits.
    pub mode: u32,
    /// Content of a file.
    pub data: Rc<Vec<u8>>,
    /// Last change of the content, nanoseconds.
    pub mtime_ns: i64,
}

#[derive(Debug, Clone)]
struct Node {
    kind: Kind,
    now: Inside,
    lasting: Inside,
    names: Names,
    lasting_names: Names,
    links: u32,
}

/// A change of names, not synced yet: what each name leads to afterwards.
#[derive(Debug, Clone)]
struct Change(Vec<(Ino, OsString, Option<Ino>)>);

/// The disk.
#[derive(Debug, Clone)]
pub struct Disk {
    nodes: BTreeMap<Ino, Node>,
    next: Ino,
    changes: Vec<Change>,
    /// Free bytes.
    pub free: u64,
    /// Directories that cannot be reached at present: homes that are not mounted.
    pub hidden: BTreeSet<Ino>,
    /// Changes whenever anything on the disk does.
    pub version: u64,
}

/// The root directory.
pub const ROOT: Ino = 1;
/// What is free when nobody has filled the disk.
pub const ROOM: u64 = 1 << 32;

impl Disk {
    /// An empty disk.
    pub fn new() -> Self {
        let mut disk =
            Self { nodes: BTreeMap::new(), next: ROOT, changes: Vec::new(), free: ROOM, hidden: BTreeSet::new(), version: 0 };
        disk.add(Kind::Directory, (0, 0), 0o755, 0);
        disk
    }

    fn add(&mut self, kind: Kind, owner: (u32, u32), mode: u32, now_ns: i64) -> Ino {
        let ino = self.next;
        self.next += 1;
        let inside = Inside { owner, mode, data: Rc::default(), mtime_ns: now_ns };
        let node =
            Node { kind, now: inside.clone(), lasting: inside, names: Names::new(), lasting_names: Names::new(), links: 0 };
        self.nodes.insert(ino, node);
        ino
    }

    fn node(&self, ino: Ino) -> Result<&Node, Errno> {
        self.nodes.get(&ino).ok_or(Errno::NOENT)
    }

    fn directory(&self, ino: Ino) -> Result<&Node, Errno> {
        match self.node(ino)? {
            node if node.kind == Kind::Directory => Ok(node),
            node if node.kind == Kind::Link => Err(Errno::LOOP),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// The names in a directory.
    pub fn names(&self, dir: Ino) -> Result<&Names, Errno> {
        Ok(&self.directory(dir)?.names)
    }

    /// What has the name.
    pub fn find(&self, dir: Ino, name: &OsStr) -> Result<Ino, Errno> {
        self.directory(dir)?.names.get(name).copied().ok_or(Errno::NOENT)
    }

    /// What the path leads to from `from`.
    pub fn walk(&self, from: Ino, path: &Path) -> Result<Ino, Errno> {
        let mut at = from;
        for part in path.strip_prefix("/").unwrap_or(path).iter().filter(|part| *part != ".") {
            at = self.find(at, part)?;
            if self.hidden.contains(&at) {
                return Err(Errno::NOENT);
            }
        }
        Ok(at)
    }

    /// As [`Disk::walk`] from the root, and also through homes that are hidden: for those who know everything.
    pub fn at(&self, path: &str) -> Option<Ino> {
        path.split('/').filter(|part| !part.is_empty()).try_fold(ROOT, |at, part| self.find(at, OsStr::new(part)).ok())
    }

    /// Kind, what is inside, and the number of names.
    pub fn look(&self, ino: Ino) -> Result<(Kind, &Inside, u32), Errno> {
        let node = self.node(ino)?;
        Ok((node.kind, &node.now, node.links))
    }

    /// The content of the file at `path`.
    pub fn content(&self, path: &str) -> Option<Rc<Vec<u8>>> {
        let node = self.nodes.get(&self.at(path)?)?;
        (node.kind == Kind::File).then(|| node.now.data.clone())
    }

    fn change(&mut self, slots: Vec<(Ino, OsString, Option<Ino>)>) {
        self.version += 1;
        for (dir, name, to) in &slots {
            let before = match self.nodes.get_mut(dir) {
                Some(node) => match to {
                    Some(ino) => node.names.insert(name.clone(), *ino),
                    None => node.names.remove(name),
                },
                None => None,
            };
            if let Some(node) = before.and_then(|ino| self.nodes.get_mut(&ino)) {
                node.links = node.links.saturating_sub(1);
            }
            if let Some(node) = to.and_then(|ino| self.nodes.get_mut(&ino)) {
                node.links += 1;
            }
        }
        self.changes.push(Change(slots));
    }

    /// Makes a new node.
    pub fn create(
        &mut self,
        dir: Ino,
        name: &OsStr,
        kind: Kind,
        owner: (u32, u32),
        mode: u32,
        now_ns: i64,
    ) -> Result<Ino, Errno> {
        if self.directory(dir)?.names.contains_key(name) {
            return Err(Errno::EXIST);
        }
        let ino = self.add(kind, owner, mode, now_ns);
        self.change(vec![(dir, name.to_owned(), Some(ino))]);
        Ok(ino)
    }

    /// A second name for a file (link(2)).
    pub fn link(&mut self, ino: Ino, dir: Ino, name: &OsStr) -> Result<(), Errno> {
        self.directory(dir)?;
        self.change(vec![(dir, name.to_owned(), Some(ino))]);
        Ok(())
    }

    /// rename(2).
    pub fn rename(&mut self, from: (Ino, &OsStr), to: (Ino, &OsStr), target: Target) -> Result<(), Errno> {
        let moved = self.find(from.0, from.1)?;
        let there = self.directory(to.0)?.names.get(to.1).copied();
        match (target, there) {
            (Target::Free, Some(_)) => return Err(Errno::EXIST),
            (Target::Exchanged, None) => return Err(Errno::NOENT),
            (Target::Replaced, Some(there)) if self.node(there)?.kind == Kind::Directory => return Err(Errno::EXIST),
            _ => {}
        }
        let left = there.filter(|_| target == Target::Exchanged);
        self.change(vec![(from.0, from.1.to_owned(), left), (to.0, to.1.to_owned(), Some(moved))]);
        Ok(())
    }

    /// unlink(2), rmdir(2).
    pub fn remove(&mut self, dir: Ino, name: &OsStr, directory: bool) -> Result<(), Errno> {
        let node = self.node(self.find(dir, name)?)?;
        match (directory, node.kind) {
            (true, Kind::Directory) if !node.names.is_empty() => return Err(Errno::NOTEMPTY),
            (true, Kind::Directory) => {}
            (true, _) => return Err(Errno::NOTDIR),
            (false, Kind::Directory) => return Err(Errno::ISDIR),
            (false, _) => {
                let bytes = if node.links <= 1 { node.now.data.len() as u64 } else { 0 };
                self.free = self.free.saturating_add(bytes).min(ROOM);
            }
        }
        self.change(vec![(dir, name.to_owned(), None)]);
        Ok(())
    }

    /// Owner and mode.
    pub fn dress(&mut self, ino: Ino, owner: Option<(u32, u32)>, mode: u32) -> Result<(), Errno> {
        self.version += 1;
        let node = self.nodes.get_mut(&ino).ok_or(Errno::NOENT)?;
        node.now.owner = owner.unwrap_or(node.now.owner);
        node.now.mode = mode;
        Ok(())
    }

    /// write(2) at the end.
    pub fn append(&mut self, ino: Ino, content: &[u8], now_ns: i64) -> Result<(), Errno> {
        let bytes = content.len() as u64;
        if bytes > self.free {
            return Err(Errno::NOSPC);
        }
        self.version += 1;
        self.free -= bytes;
        let node = self.nodes.get_mut(&ino).ok_or(Errno::NOENT)?;
        Rc::make_mut(&mut node.now.data).extend_from_slice(content);
        node.now.mtime_ns = now_ns;
        Ok(())
    }

    /// What somebody who syncs what they write (SQLite, an administrator) leaves in a file: on the disk at once.
    pub fn store(&mut self, ino: Ino, content: Vec<u8>, now_ns: i64) {
        self.version += 1;
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.now.data = Rc::new(content);
            node.now.mtime_ns = now_ns;
            node.lasting = node.now.clone();
            // The names of what is synced are synced too, by whoever made it; but only those.
            self.settle(|change| change.0.iter().any(|(_, _, to)| *to == Some(ino)));
        }
    }

    /// fsync(2).
    pub fn sync(&mut self, ino: Ino) -> Result<(), Errno> {
        self.version += 1;
        let node = self.nodes.get_mut(&ino).ok_or(Errno::NOENT)?;
        node.lasting = node.now.clone();
        if node.kind == Kind::Directory {
            self.settle(|change| change.0.iter().any(|(dir, _, _)| *dir == ino));
        }
        Ok(())
    }

    /// sync(2): for what was there before the story begins.
    pub fn sync_all(&mut self) {
        self.settle(|_| true);
        self.nodes.values_mut().for_each(|node| node.lasting = node.now.clone());
    }

    /// Puts those changes on the disk that `wanted` wants, and the earlier ones that they stand on.
    fn settle(&mut self, mut wanted: impl FnMut(&Change) -> bool) {
        let changes = std::mem::take(&mut self.changes);
        let mut chosen: Vec<bool> = changes.iter().map(&mut wanted).collect();
        let mut touched: BTreeSet<(Ino, &OsStr)> = BTreeSet::new();
        for (change, chosen) in changes.iter().zip(&mut chosen).rev() {
            let slots = || change.0.iter().map(|(dir, name, _)| (*dir, name.as_os_str()));
            if *chosen || slots().any(|slot| touched.contains(&slot)) {
                *chosen = true;
                touched.extend(slots());
            }
        }
        for (change, _) in changes.iter().zip(&chosen).filter(|(_, chosen)| **chosen) {
            for (dir, name, to) in &change.0 {
                let Some(node) = self.nodes.get_mut(dir) else { continue };
                match to {
                    Some(ino) => drop(node.lasting_names.insert(name.clone(), *ino)),
                    None => drop(node.lasting_names.remove(name)),
                }
            }
        }
        self.changes = changes.into_iter().zip(chosen).filter(|(_, chosen)| !chosen).map(|(change, _)| change).collect();
    }

    /// The power is cut: what is left is what lay on the disk, and some of what did not yet.
    pub fn crash(&mut self, rng: &mut Rng) {
        self.version += 1;
        let percent = rng.pick(&[0, 10, 50, 50, 90, 100]);
        self.settle(|_| rng.chance(percent));
        self.changes.clear();
        for node in self.nodes.values_mut() {
            node.names = node.lasting_names.clone();
            if node.lasting != node.now {
                match rng.below(4) {
                    0 => node.lasting = node.now.clone(),
                    1 if node.lasting.data != node.now.data => {
                        let torn = usize::try_from(rng.below(node.now.data.len() as u64 + 1)).unwrap_or(0);
                        node.lasting.data = Rc::new(node.now.data.iter().take(torn).copied().collect());
                    }
                    _ => {}
                }
                node.now = node.lasting.clone();
            }
        }
        self.forget_nameless();
    }

    fn forget_nameless(&mut self) {
        let mut links: BTreeMap<Ino, u32> = BTreeMap::from([(ROOT, 1)]);
        let mut left = vec![ROOT];
        while let Some(dir) = left.pop() {
            for ino in self.nodes.get(&dir).into_iter().flat_map(|node| node.names.values()) {
                let links = links.entry(*ino).or_default();
                *links += 1;
                if *links == 1 {
                    left.push(*ino);
                }
            }
        }
        self.nodes.retain(|ino, _| links.contains_key(ino));
        self.nodes.iter_mut().for_each(|(ino, node)| node.links = links[ino]);
    }
}
