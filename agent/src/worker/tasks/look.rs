//! Looking for work in flight.

use std::path::Path;

use crate::domain::Activity;

/// See [`crate::worker::Task::Look`].
pub fn look(userdata: &Path) -> Activity {
    let _ = userdata;
    unimplemented!()
}
