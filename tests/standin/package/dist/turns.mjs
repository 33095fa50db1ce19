// Not in t3: POST /standin/turn and /standin/terminal, so that tests can have work done on a live server. What is written
// is what a real turn leaves behind (contract, section 4).

import { randomUUID } from "node:crypto";
import { appendFileSync } from "node:fs";
import { createRequire } from "node:module";

/** `{"thread", "state": "start" | "end"}` */
export function turn(database, { thread, state }) {
  const now = new Date().toISOString();
  if (typeof thread !== "string" || !["start", "end"].includes(state)) throw new Error("no such turn");
  return database.transaction(() => (state === "start" ? start(database, thread, now) : end(database, thread, now)));
}

function start(database, thread, now) {
  const id = randomUUID();
  database.run(
    `INSERT INTO projection_threads (thread_id, project_id, title, created_at, updated_at) VALUES (?1, 'standin', ?1, ?2, ?2)
     ON CONFLICT (thread_id) DO UPDATE SET updated_at = excluded.updated_at`,
    thread, now,
  );
  database.run(
    `INSERT INTO projection_thread_sessions (thread_id, status, provider_name, active_turn_id, updated_at)
     VALUES (?, 'running', 'standin', ?, ?) ON CONFLICT (thread_id) DO UPDATE
     SET status = 'running', active_turn_id = excluded.active_turn_id, updated_at = excluded.updated_at`,
    thread, id, now,
  );
  database.run("INSERT INTO projection_turns (thread_id, turn_id, state, requested_at, started_at) VALUES (?, ?, 'running', ?3, ?3)", thread, id, now);
  database.run(
    `INSERT INTO projection_thread_messages (message_id, thread_id, turn_id, role, text, is_streaming, created_at, updated_at)
     VALUES (?, ?, ?, 'user', 'said to the stand-in', 0, ?4, ?4)`,
    randomUUID(), thread, id, now,
  );
  database.run(
    `INSERT INTO provider_session_runtime (thread_id, provider_name, status, last_seen_at) VALUES (?, 'standin', 'running', ?)
     ON CONFLICT (thread_id) DO UPDATE SET status = 'running', last_seen_at = excluded.last_seen_at`,
    thread, now,
  );
  event(database, thread, "thread.turn-start-requested", { turnId: id }, now);
  return { turn: id };
}

function end(database, thread, now) {
  const changed = database.run("UPDATE projection_turns SET state = 'completed', completed_at = ? WHERE thread_id = ? AND completed_at IS NULL", now, thread);
  database.run("UPDATE projection_thread_sessions SET status = 'ready', active_turn_id = NULL, updated_at = ? WHERE thread_id = ?", now, thread);
  database.run("UPDATE provider_session_runtime SET status = 'ready', last_seen_at = ? WHERE thread_id = ?", now, thread);
  database.run("UPDATE projection_threads SET updated_at = ? WHERE thread_id = ?", now, thread);
  event(database, thread, "thread.turn-completed", {}, now);
  return { ended: Number(changed.changes) };
}

function event(database, thread, type, payload, now) {
  database.run(
    `INSERT INTO orchestration_events (event_id, aggregate_kind, stream_id, stream_version, event_type, occurred_at, actor_kind, payload_json, metadata_json)
     VALUES (?1, 'thread', ?2, (SELECT count(*) FROM orchestration_events WHERE stream_id = ?2), ?3, ?4, 'client', ?5, '{}')`,
    randomUUID(), thread, type, now, JSON.stringify(payload),
  );
}

/** Writes down how many turns are in flight as the server is told to stop, where a test asks for it (T3_STANDIN_STOPS). */
export function witness(database, file) {
  if (!file) return;
  const turns = database.all("SELECT thread_id AS thread, started_at AS since FROM projection_turns WHERE completed_at IS NULL");
  appendFileSync(file, `${JSON.stringify({ at: new Date().toISOString(), pid: process.pid, turns })}\n`);
}

/** `{"command"}`: a job in a terminal, a child of the server that no table knows. */
export function spawnTerminal(_database, { command = "sleep 60" }) {
  const terminal = createRequire(import.meta.url)("node-pty").spawn("/bin/sh", ["-c", command], { name: "xterm" });
  return { pid: terminal.pid };
}
