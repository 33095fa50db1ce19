//! The signs of work in flight, and of work done (T3-CONTRACT section 4, DESIGN section 7).

use super::database::Database;
use super::times;
use crate::domain::{BusyReason, UnixMs};

/// The tables and columns without which nothing can be told; every version from 0.0.24 to 0.0.28 has them.
pub const NEEDED: [(&str, &[&str]); 4] = [
    ("projection_thread_sessions", &["thread_id", "status", "active_turn_id", "updated_at"]),
    ("projection_pending_approvals", &["thread_id", "status", "created_at", "resolved_at"]),
    ("projection_threads", &["pending_approval_count", "pending_user_input_count"]),
    ("projection_turns", &["turn_id", "state", "requested_at", "started_at", "completed_at"]),
];

/// Where times of work are kept: needed columns and, where a version has them, others.
const TIMES: [(&str, &[&str]); 5] = [
    ("projection_thread_sessions", &["updated_at"]),
    ("projection_pending_approvals", &["created_at", "resolved_at"]),
    ("projection_turns", &["requested_at", "started_at", "completed_at"]),
    ("projection_threads", &["created_at", "updated_at"]),
    ("provider_session_runtime", &["last_seen_at"]),
];

/// Threads named in an answer at most; the rest only counts.
const MOST_THREADS: usize = 16;

/// Every sign of work in flight.
pub fn reasons(database: &Database) -> Result<Vec<BusyReason>, String> {
    let mut reasons = turns(database)?;
    reasons.extend(approvals(database)?.map(|count| BusyReason::PendingApproval { count }));
    reasons.extend(waiting(database, "pending_user_input_count")?.map(|count| BusyReason::PendingInput { count }));
    Ok(reasons)
}

/// Sessions at work; and turns not completed whose session is not known to be over. Rows of a server that was killed
/// can be stale: a turn of a stopped session is, anything else counts.
fn turns(database: &Database) -> Result<Vec<BusyReason>, String> {
    let mut found = threads(
        database,
        "SELECT substr(thread_id, 1, 128), updated_at FROM projection_thread_sessions
         WHERE active_turn_id IS NOT NULL OR status IS NULL OR lower(status) IN ('starting', 'running')",
        "projection_thread_sessions.updated_at",
    )?;
    let (thread, over) = if database.columns("projection_turns")?.iter().any(|column| column == "thread_id") {
        ("t.thread_id", "s.thread_id = t.thread_id AND")
    } else {
        ("t.turn_id", "0 AND")
    };
    let open = threads(
        database,
        &format!(
            "SELECT substr({thread}, 1, 128), coalesce(t.started_at, t.requested_at) FROM projection_turns AS t
             WHERE t.completed_at IS NULL
             AND lower(coalesce(t.state, '')) NOT IN ('completed', 'error', 'failed', 'interrupted', 'cancelled', 'canceled')
             AND NOT EXISTS (SELECT 1 FROM projection_thread_sessions AS s WHERE {over}
                 s.active_turn_id IS NULL AND lower(s.status) IN ('stopped', 'error', 'interrupted'))"
        ),
        "projection_turns.started_at",
    )?;
    let named: Vec<String> = found.iter().map(|(thread, _)| thread.clone()).collect();
    found.extend(open.into_iter().filter(|(thread, _)| !named.contains(thread)));
    found.truncate(MOST_THREADS);
    let title = |thread: &str| title(database, thread);
    let moved = |thread: &str| last_moved(database, thread);
    found
        .into_iter()
        .map(|(thread, since_ms)| {
            let (title, since_ms) = (title(&thread)?, since_ms.max(moved(&thread)?));
            Ok(BusyReason::Turn { thread, title, since_ms, stale: false })
        })
        .collect()
}

/// What the user calls a thread, where this version keeps that.
fn title(database: &Database, thread: &str) -> Result<Option<String>, String> {
    if database.has_columns("projection_threads", &["thread_id", "title"])?.is_err() {
        return Ok(None);
    }
    let sql = "SELECT substr(title, 1, 128) FROM projection_threads WHERE thread_id = ?1 AND typeof(title) = 'text' LIMIT 1";
    let found: Vec<String> =
        database.rows(sql, &[thread], |row| Ok(String::from_utf8_lossy(row.get_ref(0)?.as_bytes()?).into_owned()))?;
    let plain = |title: String| title.chars().filter(|c| !c.is_control()).collect::<String>();
    Ok(found.into_iter().next().map(plain).filter(|title| !title.is_empty()))
}

/// When anything of a thread was last written, as far as this version says so: a turn that works writes messages.
fn last_moved(database: &Database, thread: &str) -> Result<Option<UnixMs>, String> {
    let mut newest = None;
    for table in ["projection_threads", "projection_thread_messages", "projection_thread_activities"] {
        for column in ["created_at", "updated_at"] {
            if database.has_columns(table, &["thread_id", column])?.is_err() {
                continue;
            }
            let sql = format!("SELECT max({column}) FROM {table} WHERE thread_id = ?1");
            let name = format!("{table}.{column}");
            let found = database.rows(&sql, &[thread], |row| Ok(times::read(row.get_ref(0)?, &name).ok().flatten()))?;
            newest = newest.max(found.into_iter().flatten().max());
        }
    }
    Ok(newest)
}

/// Rows of a thread's name and a time. A time that cannot be read is none here: busy is the answer anyway.
fn threads(database: &Database, sql: &str, column: &str) -> Result<Vec<(String, Option<UnixMs>)>, String> {
    database.rows(sql, &[], |row| {
        let thread = match row.get_ref(0)? {
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect(),
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            _ => String::new(),
        };
        Ok((thread, times::read(row.get_ref(1)?, column).ok().flatten()))
    })
}

/// Approvals that wait: rows not resolved, or what the threads count, whichever is more.
fn approvals(database: &Database) -> Result<Option<u64>, String> {
    let gone = gone_threads(database)?;
    let rows = positive(database.number(&format!(
        "SELECT count(*) FROM projection_pending_approvals WHERE resolved_at IS NULL
         AND lower(coalesce(status, '')) NOT IN
             ('resolved', 'approved', 'accepted', 'denied', 'declined', 'rejected', 'cancelled', 'canceled', 'expired') {gone}"
    ))?);
    Ok(rows.max(waiting(database, "pending_approval_count")?))
}

/// The sum of one of the threads' counters, threads that are archived or deleted left out.
fn waiting(database: &Database, counter: &str) -> Result<Option<u64>, String> {
    let living = living(database)?;
    // A counter that is no number counts as one.
    Ok(positive(database.number(&format!(
        "SELECT CAST(min(sum(CASE typeof({counter}) WHEN 'integer' THEN max(0, min({counter}, 1000000)) WHEN 'null' THEN 0 ELSE 1 END),
             1000000000) AS INTEGER) FROM projection_threads WHERE {living}"
    ))?))
}

/// The condition under which a row of `projection_threads` is neither archived nor deleted, as far as it can say so.
fn living(database: &Database) -> Result<String, String> {
    let columns = database.columns("projection_threads")?;
    let conditions = ["archived_at", "deleted_at"].into_iter().filter(|name| columns.iter().any(|column| column == name));
    let conditions: Vec<String> = conditions.map(|name| format!("{name} IS NULL")).collect();
    Ok(if conditions.is_empty() { "1".to_owned() } else { conditions.join(" AND ") })
}

/// The condition that leaves out rows of archived and deleted threads.
fn gone_threads(database: &Database) -> Result<String, String> {
    let living = living(database)?;
    if living == "1" || !database.columns("projection_threads")?.iter().any(|column| column == "thread_id") {
        return Ok(String::new());
    }
    Ok(format!("AND thread_id NOT IN (SELECT thread_id FROM projection_threads WHERE thread_id IS NOT NULL AND NOT ({living}))"))
}

/// The newest time at which anybody worked here.
pub fn last_activity(database: &Database) -> Result<Option<UnixMs>, String> {
    let mut newest = None;
    for (table, columns) in TIMES {
        let there = database.columns(table)?;
        for column in columns.iter().filter(|column| there.iter().any(|name| name == *column)) {
            // One row per kind of value: text and numbers do not compare.
            let sql = format!(
                "SELECT CASE typeof({column}) WHEN 'text' THEN substr(max({column}), 1, 64) ELSE max({column}) END
                 FROM {table} WHERE {column} IS NOT NULL GROUP BY typeof({column})"
            );
            let name = format!("{table}.{column}");
            for time in database.rows(&sql, &[], |row| Ok(times::read(row.get_ref(0)?, &name)))? {
                newest = newest.max(time?);
            }
        }
    }
    Ok(newest)
}

fn positive(number: Option<i64>) -> Option<u64> {
    number.and_then(|number| u64::try_from(number).ok()).filter(|number| *number > 0)
}
