//! What a sealed version consists of, and the marker that makes it usable.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::domain::{UnixMs, Version};

/// File with the manifest, in the version's directory.
pub(super) const MANIFEST: &str = "manifest.json";
/// File that says the version is usable; written last.
pub(super) const OK: &str = "ok";
/// An `ok` marker is a few hundred bytes.
const MAX_MARKER_BYTES: u64 = 64 * 1024;
/// A real manifest has 2 to 3 MB.
const MAX_MANIFEST_BYTES: u64 = 64 << 20;

/// One entry of a sealed tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Path below the version's directory.
    pub path: String,
    /// What it is.
    #[serde(flatten)]
    pub content: Content,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Content {
    /// A regular file.
    File {
        /// Permission bits.
        mode: u32,
        /// Bytes.
        size: u64,
        /// BLAKE3 of its content, hex.
        blake3: String,
    },
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u32,
    },
    /// A link that stays inside the tree.
    Link {
        /// Where to.
        target: String,
    },
}

/// The `ok` marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    /// Which version.
    pub version: Version,
    /// Integrity of the npm tarball.
    pub integrity: String,
    /// Bytes of all files.
    pub bytes: u64,
    /// When it was sealed.
    pub sealed_ms: UnixMs,
    /// BLAKE3 of the manifest, hex.
    pub manifest_blake3: String,
}

impl Marker {
    /// Reads the marker of the version in `directory`; `None` when there is none, or none that makes sense: then the
    /// version is not usable.
    pub(super) fn read(directory: &Path) -> io::Result<Option<Self>> {
        let path = directory.join(OK);
        let size = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(_) => return Ok(None),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(error),
        };
        if size > MAX_MARKER_BYTES {
            return Ok(None);
        }
        Ok(serde_json::from_slice(&fs::read(&path)?).ok())
    }

    /// Writes the marker, last of all, and syncs it.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        write_new(&directory.join(OK), &serde_json::to_vec_pretty(self)?, 0o444)?;
        super::tree::sync_directory(directory)
    }
}

/// Writes the manifest; returns its BLAKE3.
pub(super) fn write_manifest(directory: &Path, entries: &[Entry]) -> io::Result<String> {
    let text = serde_json::to_vec(entries)?;
    write_new(&directory.join(MANIFEST), &text, 0o444)?;
    Ok(blake3::hash(&text).to_hex().to_string())
}

/// What the version in `directory` consists of; `None` when that is not what its marker was written for.
pub(super) fn read_manifest(directory: &Path, marker: &Marker) -> io::Result<Option<Vec<Entry>>> {
    let path = directory.join(MANIFEST);
    if !fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MAX_MANIFEST_BYTES) {
        return Ok(None);
    }
    let text = fs::read(&path)?;
    let is_its = blake3::hash(&text).to_hex().as_str() == marker.manifest_blake3;
    Ok(is_its.then(|| serde_json::from_slice(&text).ok()).flatten())
}

/// Makes a new file with exactly this mode, and syncs it.
pub(super) fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}
