//! How sure a hand-over of an instance is on this host, for the status.

use std::sync::OnceLock;

use crate::activity;
use crate::systemd::{ControlGroup, UnitState};

/// Why a hand-over of this running unit is less sure than it should be; `None` when it is not. A turn could then start, unseen,
/// in the milliseconds between the last look and the stop.
pub fn weaker(unit: &UnitState) -> Option<String> {
    static DEAF: OnceLock<Option<&'static str>> = OnceLock::new();
    if unit.control_group.is_empty() {
        return None;
    }
    let group = ControlGroup::named(&unit.control_group);
    let unfreezable = match &group {
        Ok(group) => group.unfreezable().map(|why| format!("it cannot be frozen: {why}")),
        Err(error) => Some(format!("it cannot be frozen: {error}")),
    };
    unfreezable.or_else(|| DEAF.get_or_init(activity::deaf).map(str::to_owned))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_without_a_freezer_is_said_to_be_less_sure_and_one_that_does_not_run_is_not() {
        let state = |group: &str| UnitState { control_group: group.to_owned(), ..UnitState::default() };
        assert!(weaker(&state("/there/is/no/such.service")).unwrap().starts_with("it cannot be frozen"));
        assert_eq!(weaker(&state("")), None);
    }
}
