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

use std::io::{BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use database::{Database, Found};

use crate::domain::Activity;
use crate::worker::Answer;
use crate::worker::protocol::answer_line;

/// All looking together may take this long.
const DEADLINE: Duration = Duration::from_secs(2);

/// Migrations of t3's that make the tables read here; kept by every version (T3-CONTRACT section 4).
const LEDGER: &str = "effect_sql_migrations";

/// Bytes of one line to a lookout.
const LINE: u64 = 64;

/// See [`crate::worker::Task::Look`].
pub fn look(userdata: &Path) -> Activity {
    Lookout::at(userdata).look(DEADLINE)
}

/// See [`crate::worker::Task::Lookout`].
pub fn lookout(userdata: PathBuf, input: &mut impl BufRead, output: &mut impl Write) -> ExitCode {
    let mut lookout = Lookout::at(&userdata);
    loop {
        let mut line = String::new();
        match input.by_ref().take(LINE).read_line(&mut line) {
            Ok(0) => return ExitCode::SUCCESS,
            Ok(_) => {}
            Err(_) => return ExitCode::FAILURE,
        }
        let Ok(ms) = line.trim().parse() else { return ExitCode::FAILURE };
        let seen = Answer::Activity(lookout.look(Duration::from_millis(ms)));
        let said = answer_line(&seen).and_then(|line| output.write_all(&line)).and_then(|()| output.flush());
        if said.is_err() {
            return ExitCode::FAILURE;
        }
    }
}

/// Somebody who keeps the database open between two looks, so that the second costs a few ms.
struct Lookout {
    userdata: PathBuf,
    database: Option<Database>,
}

impl Lookout {
    fn at(userdata: &Path) -> Self {
        Self { userdata: userdata.to_owned(), database: None }
    }

    fn look(&mut self, deadline: Duration) -> Activity {
        self.look_within(deadline).unwrap_or_else(|why| Activity::Unknown { why })
    }

    fn look_within(&mut self, deadline: Duration) -> Result<Activity, String> {
        let Found::Database(path) = database::find(&self.userdata)? else {
            self.database = None;
            return Ok(Activity::Idle { last_activity_ms: None });
        };
        // One that was replaced, or that a server has opened since, would be read as it was.
        let database = match self.database.take().filter(|open| open.is_at(&path)) {
            Some(open) => open,
            None => Database::open(path)?,
        };
        let database = self.database.insert(database);
        database.within(deadline)?;
        activity(database)
    }
}

fn activity(database: &Database) -> Result<Activity, String> {
    if database.is_empty()? {
        return Ok(Activity::Idle { last_activity_ms: None });
    }
    check_schema(database)?;
    let reasons = signs::reasons(database)?;
    if !reasons.is_empty() {
        return Ok(Activity::Busy { reasons });
    }
    Ok(Activity::Idle { last_activity_ms: signs::last_activity(database)? })
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
