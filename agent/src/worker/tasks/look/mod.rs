//! Looking for work in flight, in the database, as the user.
//!
//! Works beside a running server and on a frozen one. Anything that cannot be read or is not as expected is
//! [`Activity::Unknown`], never idle (promise 4). The database is the user's: bounded in time and memory, its views and
//! triggers not trusted.

mod database;
mod signs;
#[cfg(test)]
mod tests;
mod times;

pub use database::immutable;

use std::path::Path;
use std::time::Duration;

use database::{Database, Opened};

use crate::domain::Activity;

/// All looking together may take this long.
const DEADLINE: Duration = Duration::from_secs(2);

/// Migrations of t3's that make the tables read here; kept by every version (T3-CONTRACT section 4).
const LEDGER: &str = "effect_sql_migrations";

/// See [`crate::worker::Task::Look`].
pub fn look(userdata: &Path) -> Activity {
    look_at(userdata, DEADLINE).unwrap_or_else(|why| Activity::Unknown { why })
}

fn look_at(userdata: &Path, deadline: Duration) -> Result<Activity, String> {
    let database = match database::open(userdata, deadline)? {
        Opened::Missing => return Ok(Activity::Idle { last_activity_ms: None }),
        Opened::Database(database) => database,
    };
    if database.is_empty()? {
        return Ok(Activity::Idle { last_activity_ms: None });
    }
    check_schema(&database)?;
    let reasons = signs::reasons(&database)?;
    if !reasons.is_empty() {
        return Ok(Activity::Busy { reasons });
    }
    Ok(Activity::Idle { last_activity_ms: signs::last_activity(&database)? })
}

/// Every table and column that the signs are read from is there.
fn check_schema(database: &Database) -> Result<(), String> {
    let level = match database.has_columns(LEDGER, &["migration_id"])? {
        Ok(()) => {
            database.number(&format!("SELECT max(migration_id) FROM {LEDGER}"))?.map_or("none".to_owned(), |n| n.to_string())
        }
        Err(_) => "none".to_owned(),
    };
    for (table, columns) in signs::NEEDED {
        if let Err(missing) = database.has_columns(table, columns)? {
            return Err(format!("the database (migration level {level}) has no {missing}: its schema is not one t3pin knows"));
        }
    }
    Ok(())
}
