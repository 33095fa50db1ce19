//! Who is paired, which of the sessions that are asked for live, and which links were used.
//!
//! Versions of t3 differ in what they keep of a device: what is there is read by its name, and a database without such tables, or with
//! other ones, has nobody in it. Nothing secret is read: no `credential` is among the columns.

use std::path::Path;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};

use super::database::{Database, LIVE, task_error};
use super::handshake::AGENT_PREFIX;
use super::redact::redact;
use super::work_copy::{DATABASE, open_userdata};
use crate::domain::{Device, EntryKind, KEPT, Paired, PairedLook, UnixMs};
use crate::worker::files::FileError;
use crate::worker::protocol::TaskError;

/// A look holds a read transaction: no longer than this.
const LOOK: Duration = Duration::from_secs(5);

/// What is read of a session, in this order.
const COLUMNS: [&str; 8] = [
    "session_id",
    "client_label",
    "client_device_type",
    "client_browser",
    "client_os",
    "client_user_agent",
    "last_connected_at",
    "expires_at",
];

/// See [`crate::worker::Task::Paired`]. Without a database nobody is paired.
pub fn paired(userdata: &Path, sessions: &[String], links: &[String]) -> Result<PairedLook, TaskError> {
    let owner = rustix::process::geteuid().as_raw();
    let Some(dir) = open_userdata(userdata, owner)? else { return Ok(PairedLook::default()) };
    let path = userdata.join(DATABASE);
    let Some(seen) = dir.stat(DATABASE)? else { return Ok(PairedLook::default()) };
    if seen.check(&path, owner)? != EntryKind::File {
        return Err(FileError::bad(path, "is a directory").into());
    }
    let database = Database::open_source(&path, LOOK)?;
    let look = look(database.connection(), sessions, links).map_err(|error| task_error("reading who is paired", &error))?;
    database.close()?;
    Ok(look)
}

fn look(database: &Connection, sessions: &[String], links: &[String]) -> rusqlite::Result<PairedLook> {
    let mut look = PairedLook::default();
    let columns = columns(database, "auth_sessions")?;
    let has = |name: &str| columns.iter().any(|column| column == name);
    if ["session_id", "revoked_at", "expires_at"].into_iter().all(has) {
        let ours = if has("client_user_agent") {
            format!("AND coalesce(client_user_agent, '') NOT LIKE '{AGENT_PREFIX}%'")
        } else {
            String::new()
        };
        look.live = live(database, &format!("FROM auth_sessions WHERE {LIVE} {ours}"), &has)?;
        let mut one = database.prepare(&format!("SELECT 1 FROM auth_sessions WHERE session_id = ?1 AND {LIVE}"))?;
        for session in sessions {
            if one.exists([session])? {
                look.still.insert(session.clone());
            }
        }
    }
    let columns = self::columns(database, "auth_pairing_links")?;
    if ["id", "consumed_at"].into_iter().all(|name| columns.iter().any(|column| column == name)) {
        let mut one = database.prepare("SELECT 1 FROM auth_pairing_links WHERE id = ?1 AND consumed_at IS NOT NULL")?;
        for link in links {
            if one.exists([link])? {
                look.used.insert(link.clone());
            }
        }
    }
    Ok(look)
}

/// The live sessions `from` which they are read, those first that were connected last.
fn live(database: &Connection, from: &str, has: &dyn Fn(&str) -> bool) -> rusqlite::Result<Paired> {
    // However long a text is, no more than what is kept of it leaves the database.
    let read = |name: &str| if has(name) { format!("substr(CAST({name} AS TEXT), 1, 400)") } else { "NULL".to_owned() };
    let wanted: Vec<String> = COLUMNS.iter().map(|name| read(name)).collect();
    let order = if has("last_connected_at") { "last_connected_at DESC, session_id" } else { "session_id" };
    let listed = format!("SELECT {} {from} ORDER BY {order} LIMIT {KEPT}", wanted.join(", "));
    let mut statement = database.prepare(&listed)?;
    let devices = statement.query_map([], |row| Ok(device(row)))?.collect::<Result<Vec<_>, _>>()?;
    let all: i64 = database.query_row(&format!("SELECT count(*) {from}"), [], |row| row.get(0))?;
    let more = u64::try_from(all).unwrap_or(0).saturating_sub(u64::try_from(devices.len()).unwrap_or(0));
    Ok(Paired::of(devices, more))
}

fn device(row: &Row<'_>) -> Device {
    let raw = |column: usize| match row.get_ref(column) {
        Ok(ValueRef::Text(text)) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    };
    // A device may have put anything there, also what lets it in.
    let text = |column: usize| raw(column).map(|text| redact(&text));
    let time = |column: usize| raw(column).and_then(|text| time(&text));
    Device {
        session: raw(0).unwrap_or_default(),
        label: text(1),
        kind: text(2),
        browser: text(3),
        os: text(4),
        user_agent: text(5),
        last_ms: time(6),
        expires_ms: time(7),
    }
}

/// Times are RFC 3339; a number is ms since the epoch.
fn time(text: &str) -> Option<UnixMs> {
    text.parse::<jiff::Timestamp>().map(|at| at.as_millisecond()).or_else(|_| text.parse()).ok()
}

/// The columns of a table; none where there is no such table.
fn columns(database: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let known = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    if database.query_row(known, [table], |_| Ok(())).optional()?.is_none() {
        return Ok(Vec::new());
    }
    let statement = database.prepare(&format!("SELECT * FROM {table} LIMIT 0"))?;
    Ok(statement.column_names().into_iter().map(str::to_ascii_lowercase).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::worker::tasks::stage::{UID, as_user, make_database};

    const SESSIONS: &str =
        "CREATE TABLE auth_sessions(session_id, client_label, client_user_agent, client_device_type, issued_at,
        expires_at, last_connected_at, revoked_at);
        CREATE TABLE auth_pairing_links(id, credential, consumed_at);
        INSERT INTO auth_pairing_links VALUES ('l1', 'ABCD2345EFGH', NULL), ('l2', 'ABCD2345EFGJ', '2026-01-01T00:00:00.000Z');";

    fn seen(sql: &str, sessions: &[&str], links: &[&str]) -> PairedLook {
        let database = Connection::open_in_memory().unwrap();
        database.execute_batch(sql).unwrap();
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        look(&database, &owned(sessions), &owned(links)).unwrap()
    }

    #[test]
    fn devices_are_told_with_the_last_connected_first_and_revoked_expired_and_probes_not_at_all() {
        let look = seen(
            &format!(
                "{SESSIONS} INSERT INTO auth_sessions VALUES
                 ('old', NULL, 'Mozilla/5.0', 'unknown', 0, '2999-01-01T00:00:00.000Z', NULL, NULL),
                 ('new', 'my phone', NULL, 'mobile', 0, 32503680000000, '2026-01-01T00:00:00.000Z', NULL),
                 ('revoked', NULL, NULL, 'desktop', 0, '2999-01-01T00:00:00.000Z', NULL, 'now'),
                 ('expired', NULL, NULL, 'desktop', 0, '2001-01-01T00:00:00.000Z', NULL, NULL),
                 ('ours', NULL, 't3pin-probe/1 (x)', 'desktop', 0, '2999-01-01T00:00:00.000Z', NULL, NULL);"
            ),
            &["old", "revoked", "expired", "never"],
            &["l1", "l2", "l3"],
        );
        let names: Vec<_> = look.live.devices.iter().map(|device| (device.session.as_str(), device.name())).collect();
        assert_eq!(names, [("new", "my phone".to_owned()), ("old", "Mozilla/5.0".to_owned())]);
        assert_eq!(look.live.devices[0].expires_ms, Some(32_503_680_000_000));
        assert_eq!(look.live.devices[0].last_ms, Some(1_767_225_600_000));
        assert_eq!((look.live.more, look.live.devices[1].kind.as_deref()), (0, None));
        assert_eq!((look.still, look.used), (["old".to_owned()].into(), ["l2".to_owned()].into()));
    }

    #[test]
    fn hostile_rows_stay_bounded_and_tell_no_secret() {
        let rows = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 200)
            INSERT INTO auth_sessions SELECT 's' || x, CAST(zeroblob(100000) AS TEXT) || x, x'ff1b5b324a', 5, 0, '2999', NULL, NULL FROM n;
            INSERT INTO auth_sessions VALUES (x'00ff', 'cookie t3_session=abcdefghijklmnopqrst.abcdefghijklmnopqrst', NULL, NULL, 0, '2999', 'z', NULL),
              ('a', 'Token: ABCD2345EFGH', NULL, NULL, 0, '2999', 'y', NULL);";
        let look = seen(&format!("{SESSIONS} {rows}"), &["s1", "a' OR 1"], &["' OR 1"]);
        assert_eq!((look.live.devices.len(), look.live.count()), (KEPT - 1, 202));
        let told = serde_json::to_string(&look).unwrap();
        assert!(told.len() < 100_000 && !told.contains("ABCD2345EFGH") && !told.contains("abcdefghij"), "{told}");
        assert_eq!((look.still, look.used.len()), (["s1".to_owned()].into(), 0));
    }

    #[test]
    fn an_unknown_schema_has_nobody_in_it() {
        for sql in [
            "",
            "CREATE TABLE auth_sessions(id); CREATE TABLE auth_pairing_links(x);",
            "CREATE VIEW auth_sessions AS SELECT 's' AS session_id, NULL AS revoked_at, '2999' AS expires_at;",
        ] {
            assert_eq!(seen(sql, &["s"], &["l"]), PairedLook::default(), "{sql}");
        }
        let bare =
            "CREATE TABLE auth_sessions(session_id, revoked_at, expires_at); INSERT INTO auth_sessions VALUES ('s', NULL, NULL);";
        let look = seen(bare, &["s"], &[]);
        assert_eq!((look.live.devices[0].name().as_str(), look.still.len()), ("a device without a name", 1));
    }

    #[test]
    fn a_look_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(UID), Some(UID)).unwrap();
        as_user(|| {
            assert_eq!(paired(dir.path(), &[], &[]).unwrap(), PairedLook::default());
            make_database(&dir.path().join("state.sqlite"), 3, false);
            let look = paired(dir.path(), &["live".to_owned(), "gone".to_owned()], &[]).unwrap();
            assert_eq!((look.live.count(), look.still), (1, ["live".to_owned()].into()));
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        });
    }
}
