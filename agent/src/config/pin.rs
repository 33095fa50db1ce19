//! The pin file.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::domain::{UserName, Version};

/// A good pin file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The version this host is to run.
    pub version: Version,
    /// Integrity of the npm tarball; when given it must match.
    pub integrity: Option<String>,
    /// Users held elsewhere.
    pub users: BTreeMap<UserName, UserPin>,
}

/// One user held elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserPin {
    /// The version this user is to run.
    pub version: Version,
    /// Why, for the next operator.
    pub reason: Option<String>,
}

impl Pin {
    /// The version that `user` is to run.
    pub fn wanted(&self, user: &UserName) -> &Version {
        self.users.get(user).map_or(&self.version, |held| &held.version)
    }
}

/// Reads and checks the pin file. `user_exists` asks the user database.
pub fn load_pin(path: &Path, user_exists: &dyn Fn(&UserName) -> bool) -> Result<Pin, ConfigError> {
    let _ = (path, user_exists);
    unimplemented!()
}

/// Checks the text of a pin file; `path` is only for messages.
pub fn parse_pin(path: &Path, text: &str, user_exists: &dyn Fn(&UserName) -> bool) -> Result<Pin, ConfigError> {
    let _ = (path, text, user_exists);
    unimplemented!()
}
