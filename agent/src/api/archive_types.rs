//! What crosses the socket about snapshots and salvage. As in `types`, additions are compatible.

use serde::{Deserialize, Serialize};

use crate::domain::{KeptId, UnixMs, UserName, Version};

/// What is kept of one user (`GET /v1/snapshots`).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ArchiveStatus {
    /// Whose.
    pub user: UserName,
    /// Bytes on disk of all snapshots together; they share what is the same in several.
    pub disk_bytes: u64,
    /// Snapshots and salvage, oldest first.
    pub kept: Vec<KeptStatus>,
}

/// A snapshot, or salvage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeptStatus {
    /// Its name.
    pub id: KeptId,
    /// The version whose data it is, when it is known.
    pub version: Option<Version>,
    /// Highest migration applied, when it is known.
    pub migration_level: Option<u32>,
    /// When it was taken or set aside.
    pub created_ms: UnixMs,
    /// Bytes of its files as they were.
    pub bytes: u64,
    /// When it was last read from end to end; never for salvage.
    pub verified_ms: Option<UnixMs>,
    /// What is wrong with it, when something is.
    pub damaged: Option<String>,
    /// Where it lies (root only).
    pub path: String,
    /// Its files, in `GET /v1/snapshots/USER/ID` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<KeptFile>,
}

/// One file of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeptFile {
    /// Path below t3's `userdata/`.
    pub path: String,
    /// Bytes.
    pub bytes: u64,
}

/// `POST /v1/snapshots/verify`, `prune`: of whom (`None`: of everybody), and which (`None`: all, or what retention says).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveRequest {
    /// Whose.
    #[serde(default)]
    pub user: Option<UserName>,
    /// Which one.
    #[serde(default)]
    pub id: Option<KeptId>,
}

/// `POST /v1/snapshots/restore`, `export`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptRequest {
    /// Whose.
    pub user: UserName,
    /// Which.
    pub id: KeptId,
    /// Restore: also an active instance (work in flight is lost).
    #[serde(default)]
    pub force: bool,
}

/// `POST /v1/versions/remove`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    /// Which version.
    pub version: Version,
}

/// `POST /v1/versions/verify`: one installed version, or all.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyVersionRequest {
    /// Which version; all when absent.
    #[serde(default)]
    pub version: Option<Version>,
}

/// Something to be done with what is kept.
#[derive(Debug, Clone)]
pub enum ArchiveOrder {
    /// Read everything again.
    Verify(ArchiveRequest),
    /// Apply retention, or remove one by name.
    Prune(ArchiveRequest),
    /// Make an ordinary SQLite file of it, to be fetched from `/v1/exports/RUN`.
    Export(KeptRequest),
    /// Bring it back.
    Restore(KeptRequest),
}
