//! A machine that reaches what the host reaches, for trying real releases of t3. Not for tests: they need no network.

use crate::Machine;
use crate::machine::Network;
use std::fs;
use std::path::Path;
use std::process::Command;

impl Machine {
    /// Boots a machine that shares the host's network and whose npm asks the registry that npm on the host is configured with: address,
    /// proxy and certificate authorities are handed in, credentials are not. Its ports are the host's, so there can be one at a time.
    pub fn boot_outside() -> Self {
        let machine = Self::boot_with(Network::Host);
        let mut npmrc = String::new();
        for key in ["registry", "proxy", "https-proxy", "noproxy"] {
            if let Some(value) = npm_setting(key) {
                npmrc += &format!("{key}={value}\n");
            }
        }
        let authorities = npm_setting("cafile").or_else(|| std::env::var("NODE_EXTRA_CA_CERTS").ok());
        if let Some(file) = authorities.filter(|file| Path::new(file).is_file()) {
            let inside = machine.copy_in(Path::new(&file));
            machine.ok(&format!("install -m 644 '{inside}' /usr/local/etc/host-ca.pem"));
            npmrc += "cafile=/usr/local/etc/host-ca.pem\n";
        }
        machine.write("/usr/local/etc/npmrc", &npmrc);
        machine.write("/etc/hosts", &fs::read_to_string("/etc/hosts").unwrap_or_default());
        machine
    }
}

/// A setting of the host's npm; `None` when it has no value.
fn npm_setting(key: &str) -> Option<String> {
    let output = Command::new("npm").args(["config", "get", key]).output().ok()?;
    let value = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !matches!(value.as_str(), "" | "null" | "undefined")).then_some(value)
}
