//! Which installed versions are still needed, and by what.

use std::collections::BTreeMap;

use crate::domain::Version;

/// What needs which version. A version that is not in here may go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs(BTreeMap<Version, Vec<String>>);

impl Needs {
    /// Notes that `version` is needed; `by` is a phrase after "needed by".
    pub fn add(&mut self, version: &Version, by: impl Into<String>) {
        let by = by.into();
        let all = self.0.entry(version.clone()).or_default();
        if !all.contains(&by) {
            all.push(by);
        }
    }

    /// What needs `version`, for people; `None` when nothing does.
    pub fn of(&self, version: &Version) -> Option<String> {
        self.0.get(version).map(|all| all.join(", "))
    }

    /// Those of `installed` that nothing needs. The newest always stays: it is what a host without a pin would be bumped to next.
    pub fn unneeded(&self, installed: &[Version]) -> Vec<Version> {
        let newest = installed.iter().max();
        installed.iter().filter(|version| Some(*version) != newest && !self.0.contains_key(*version)).cloned().collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn what_nothing_needs_may_go_but_never_the_newest() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        let installed = ["0.0.24", "0.0.25", "0.0.28"].map(version);
        let mut needs = Needs::default();
        assert_eq!(needs.unneeded(&installed), ["0.0.24", "0.0.25"].map(version));
        needs.add(&version("0.0.24"), "snapshot b000001 of alice");
        needs.add(&version("0.0.24"), "snapshot b000001 of alice");
        needs.add(&version("0.0.24"), "the binding of bob");
        assert_eq!(needs.unneeded(&installed), [version("0.0.25")]);
        assert_eq!(needs.of(&version("0.0.24")).unwrap(), "snapshot b000001 of alice, the binding of bob");
        assert_eq!(needs.of(&version("0.0.25")), None);
    }
}
