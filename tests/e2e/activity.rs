//! What counts as work, and what only looks like it.

use crate::common::{GOOD, Site};

/// Starts a command in a terminal of a user's server; it may hold no quotes.
#[track_caller]
fn in_terminal(site: &Site, user: &str, command: &str) {
    let port = site.port(user);
    site.ok(&format!(
        "curl --silent --show-error --fail --data '{{\"command\":\"exec bash -ic \\\"{command}\\\"\"}}' http://127.0.0.1:{port}/standin/terminal"
    ));
}

#[test]
fn a_job_in_a_terminal_and_a_schema_nobody_knows_are_work_and_a_providers_idle_child_is_none() {
    let site = Site::with(&["alice"]);
    let run = site.runs(&["alice"]);
    site.pin(GOOD);

    in_terminal(&site, "alice", "sleep 301; true");
    site.until("the job runs", |site| site.sh("pgrep -fx 'sleep 301'").code == 0);
    let put_off = site.enforce_to(3);
    assert!(put_off.stdout.contains("sleep runs in a terminal"), "{put_off}");
    let deferral = site.instance("alice")["deferral"].clone();
    assert_eq!(deferral["owner"], "activity", "{deferral}");
    for since in ["since_ms", "last_look_ms"] {
        assert!(deferral[since].as_i64().is_some_and(|at| at > 0), "{since}: {deferral}");
    }
    let told = site.ok("t3pin status alice");
    assert!(told.contains("put off") && told.contains("last look"), "{told}");

    // A newer release may keep its turns elsewhere.
    let rename = |from: &str, to: &str| {
        format!(
            "sqlite3 -cmd '.timeout 5000' /home/alice/.t3/userdata/state.sqlite 'ALTER TABLE projection_turns RENAME COLUMN {from} TO {to}'"
        )
    };
    assert_eq!(site.as_user("alice", &rename("completed_at", "ended_at")).code, 0);
    // Without a tty: what a provider leaves running between two turns.
    in_terminal(&site, "alice", "setsid sleep 302 </dev/null >/dev/null 2>&1 & exit");
    site.ok("pkill -fx 'sleep 301'");
    site.until("only the child is left", |site| site.sh("pgrep -fx 'sleep 302' && ! pgrep -fx 'sleep 301'").code == 0);
    let put_off = site.enforce_to(3);
    assert!(put_off.stdout.contains("column projection_turns.completed_at"), "says which: {put_off}");
    assert_eq!(site.runs(&["alice"]), run, "somebody was interrupted");

    assert_eq!(site.as_user("alice", &rename("ended_at", "completed_at")).code, 0);
    site.await_state("alice", "settled");
    site.is_whole("alice", GOOD, "31");
    assert!(site.journal().contains("alice: stood still for"), "bumped beside an idle child of a provider's");
}

#[test]
fn a_turn_left_over_from_a_crash_is_told_with_its_title_and_passed_over_only_by_who_may() {
    let site = Site::with(&["alice", "bob"]);
    site.settings("[activity]\nstale_after = \"1min\"\n");
    site.turn("alice", "old-talk", "start");
    let old = "'2026-01-01T00:00:00.000Z'";
    let written = site.as_user(
        "alice",
        &format!(
            "sqlite3 -cmd '.timeout 5000' ~/.t3/userdata/state.sqlite \"
             UPDATE projection_threads SET title = 'Port the parser', created_at = {old}, updated_at = {old} WHERE thread_id = 'old-talk';
             UPDATE projection_thread_sessions SET updated_at = {old} WHERE thread_id = 'old-talk';
             UPDATE projection_turns SET requested_at = {old}, started_at = {old} WHERE thread_id = 'old-talk';
             UPDATE projection_thread_messages SET created_at = {old}, updated_at = {old} WHERE thread_id = 'old-talk';
             UPDATE provider_session_runtime SET last_seen_at = {old} WHERE thread_id = 'old-talk';
             UPDATE orchestration_events SET occurred_at = {old} WHERE stream_id = 'old-talk'\""
        ),
    );
    assert_eq!(written.code, 0, "{written}");
    let run = site.runs(&["alice"]);
    site.pin(GOOD);
    let put_off = site.enforce_to(3);
    for part in ["\"Port the parser\" (old-talk)", "has not moved since 2026-01-01", "stale", "--force"] {
        assert!(put_off.stdout.contains(part), "{part}: {put_off}");
    }
    assert_eq!(site.as_user("bob", "t3pin now alice --force").code, 5, "bob is not entitled");
    assert_eq!(site.as_user("alice", "t3pin now --wait").code, 3, "without --force it stays");
    assert_eq!(site.runs(&["alice"]), run, "somebody was interrupted");
    let forced = site.as_user("alice", "t3pin now --force --wait");
    assert_eq!(forced.code, 0, "{forced}");
    site.await_state("alice", "settled");
    site.is_whole("alice", GOOD, "31");
}
