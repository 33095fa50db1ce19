#!/usr/bin/env node
// Fills a stand-in's database the way months of work would: see USAGE. Works on a live database too.

import { randomBytes, randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { parseArgs } from "node:util";

const USAGE = `usage: seed.mjs DB [options]
  --threads N             adds N threads
  --turns N               with N completed turns each (one event and two messages a turn)
  --megabytes N           adds messages of N MiB altogether
  --busy THREAD           a turn is under way in THREAD (made if it does not exist)
  --idle                  nothing is under way, nothing is waited for
  --pending-approval      an approval is waited for
  --pending-input         an answer is waited for
  --session N             adds N sessions, as made by pairing N browsers
  --last-activity WHEN    moves the newest sign of work to WHEN: an ISO time or -90s, -10m, -3h, -2d
Times of what is added: two days ago, of what waits or runs: now; --last-activity comes last and changes them.`;

const emitWarning = process.emitWarning;
process.emitWarning = (warning, ...rest) => rest[0] === "ExperimentalWarning" || emitWarning.call(process, warning, ...rest);
const { DatabaseSync } = await import("node:sqlite");

const { positionals, values: asked } = parse();
const db = existsSync(positionals[0]) ? new DatabaseSync(positionals[0], { timeout: 10_000 }) : undefined;
if (!db?.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'projection_threads'").get()) {
  console.error(`${positionals[0]} is not a database of t3: have a server or command of t3 make it first`);
  process.exit(1);
}
const run = (sql, ...values) => db.prepare(sql).run(...values);
const OLD = new Date(Date.now() - 2 * 864e5).toISOString();
const NOW = new Date().toISOString();

transaction(() => {
  for (let count = 0; count < asked.threads; count += 1) thread(`thread-${randomUUID()}`, OLD);
  if (asked.threads === 0 && asked.turns > 0) thread(`thread-${randomUUID()}`, OLD);
});
if (asked.megabytes > 0) fill(asked.megabytes);
transaction(() => {
  if (asked.idle) idle();
  if (asked.busy !== undefined) busy(asked.busy);
  if (asked["pending-approval"]) approval();
  if (asked["pending-input"]) run("UPDATE projection_threads SET pending_user_input_count = 1 WHERE thread_id = ?", some());
  for (let count = 0; count < asked.session; count += 1) session(count);
  if (asked["last-activity"]) last(asked["last-activity"]);
});
db.close();

function parse() {
  const text = { type: "string" };
  const flag = { type: "boolean", default: false };
  try {
    const options = {
      threads: text, turns: text, megabytes: text, session: text, busy: text, "last-activity": text,
      idle: flag, "pending-approval": flag, "pending-input": flag,
    };
    // A time such as -10m is a value, although it begins with a dash.
    const words = process.argv.slice(2).join("\0").replace(/(^|\0)--last-activity\0/g, "$1--last-activity=").split("\0");
    const parsed = parseArgs({ args: words, options, allowPositionals: true });
    for (const name of ["threads", "turns", "megabytes", "session"]) {
      const number = Number(parsed.values[name] ?? 0);
      if (!Number.isInteger(number) || number < 0) throw new Error(`--${name} wants a number`);
      parsed.values[name] = number;
    }
    if (parsed.positionals.length !== 1) throw new Error("one database is wanted");
    const when = parsed.values["last-activity"];
    if (when !== undefined) parsed.values["last-activity"] = time(when);
    return parsed;
  } catch (problem) {
    console.error(`${problem.message}\n${USAGE}`);
    return process.exit(2);
  }
}

function time(text) {
  const [, amount, unit] = /^-(\d+)([smhd])$/.exec(text) ?? [];
  const ms = unit ? Date.now() - amount * { s: 1e3, m: 6e4, h: 36e5, d: 864e5 }[unit] : Date.parse(text);
  if (Number.isNaN(ms)) throw new Error(`--last-activity: ${JSON.stringify(text)} is no time`);
  return new Date(ms).toISOString();
}

function transaction(work) {
  db.exec("BEGIN IMMEDIATE");
  work();
  db.exec("COMMIT");
}

function thread(id, at) {
  run(
    "INSERT OR IGNORE INTO projection_projects (project_id, title, workspace_root, created_at, updated_at) VALUES ('seed', 'seed', '/nowhere', ?1, ?1)",
    at,
  );
  run("INSERT INTO projection_threads (thread_id, project_id, title, created_at, updated_at) VALUES (?1, 'seed', ?1, ?2, ?2)", id, at);
  run("INSERT INTO projection_thread_sessions (thread_id, status, provider_name, updated_at) VALUES (?, 'ready', 'seed', ?)", id, at);
  run("INSERT INTO provider_session_runtime (thread_id, provider_name, status, last_seen_at) VALUES (?, 'seed', 'ready', ?)", id, at);
  event(id, "thread.created", at);
  for (let count = 0; count < asked.turns; count += 1) {
    const turn = randomUUID();
    run(
      "INSERT INTO projection_turns (thread_id, turn_id, state, requested_at, started_at, completed_at) VALUES (?1, ?2, 'completed', ?3, ?3, ?3)",
      id, turn, at,
    );
    message(id, turn, "user", "a question", at);
    message(id, turn, "assistant", "an answer", at);
    event(id, "thread.turn-completed", at);
  }
}

function message(id, turn, role, text, at) {
  run(
    `INSERT INTO projection_thread_messages (message_id, thread_id, turn_id, role, text, is_streaming, created_at, updated_at)
     VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?6)`,
    randomUUID(), id, turn, role, text, at,
  );
}

function event(id, type, at) {
  run(
    `INSERT INTO orchestration_events (event_id, aggregate_kind, stream_id, stream_version, event_type, occurred_at, actor_kind, payload_json, metadata_json)
     VALUES (?1, 'thread', ?2, (SELECT count(*) FROM orchestration_events WHERE stream_id = ?2), ?3, ?4, 'client', '{}', '{}')`,
    randomUUID(), id, type, at,
  );
}

/** Messages of 64 KiB that no compression makes small, 16 MiB a transaction. */
function fill(megabytes) {
  const id = some();
  for (let done = 0; done < megabytes * 16; ) {
    transaction(() => {
      for (const end = Math.min(done + 256, megabytes * 16); done < end; done += 1) {
        message(id, null, "assistant", randomBytes(49_152).toString("base64"), OLD);
      }
    });
  }
  db.exec("PRAGMA wal_checkpoint(PASSIVE)");
}

/** A thread that exists, made when there is none. */
function some() {
  const found = db.prepare("SELECT thread_id FROM projection_threads WHERE archived_at IS NULL AND deleted_at IS NULL ORDER BY rowid LIMIT 1").get();
  if (found) return found.thread_id;
  thread("thread-seed", OLD);
  return "thread-seed";
}

function busy(id) {
  if (!db.prepare("SELECT 1 FROM projection_threads WHERE thread_id = ?").get(id)) thread(id, OLD);
  const turn = randomUUID();
  run(
    `INSERT INTO projection_thread_sessions (thread_id, status, provider_name, active_turn_id, updated_at) VALUES (?, 'running', 'seed', ?, ?)
     ON CONFLICT (thread_id) DO UPDATE SET status = 'running', active_turn_id = excluded.active_turn_id, updated_at = excluded.updated_at`,
    id, turn, NOW,
  );
  run("INSERT INTO projection_turns (thread_id, turn_id, state, requested_at, started_at) VALUES (?1, ?2, 'running', ?3, ?3)", id, turn, NOW);
  event(id, "thread.turn-start-requested", NOW);
}

function idle() {
  run("UPDATE projection_thread_sessions SET status = 'ready', active_turn_id = NULL WHERE active_turn_id IS NOT NULL OR status IN ('starting', 'running')");
  run("UPDATE projection_turns SET state = 'completed', completed_at = coalesce(started_at, requested_at) WHERE completed_at IS NULL");
  run("UPDATE projection_pending_approvals SET status = 'resolved', decision = 'accept', resolved_at = created_at WHERE resolved_at IS NULL");
  run("UPDATE projection_threads SET pending_approval_count = 0, pending_user_input_count = 0");
}

function approval() {
  const id = some();
  run("INSERT INTO projection_pending_approvals (request_id, thread_id, status, created_at) VALUES (?, ?, 'pending', ?)", randomUUID(), id, NOW);
  run("UPDATE projection_threads SET pending_approval_count = pending_approval_count + 1 WHERE thread_id = ?", id);
}

function session(number) {
  const scopes = db.prepare("SELECT 1 FROM pragma_table_info('auth_sessions') WHERE name = 'scopes'").get();
  const rights = scopes ? '["orchestration:read","orchestration:operate","terminal:operate","review:write","relay:read"]' : "client";
  run(
    `INSERT INTO auth_sessions (session_id, subject, ${scopes ? "scopes" : "role"}, method, client_ip_address, client_user_agent, client_device_type,
       issued_at, expires_at) VALUES (?, 'one-time-token', ?, 'browser-session-cookie', ?, ?, 'desktop', ?, ?)`,
    randomUUID(), rights, `192.0.2.${(number % 250) + 1}`, `Mozilla/5.0 (seeded browser ${number + 1})`, OLD, new Date(Date.now() + 28 * 864e5).toISOString(),
  );
}

/** Every later sign of work is moved back to `when`, and one is put exactly there. */
function last(when) {
  const columns = {
    projection_threads: ["created_at", "updated_at"],
    projection_thread_sessions: ["updated_at"],
    projection_turns: ["requested_at", "started_at", "completed_at"],
    projection_pending_approvals: ["created_at", "resolved_at"],
    projection_thread_messages: ["created_at", "updated_at"],
    provider_session_runtime: ["last_seen_at"],
    orchestration_events: ["occurred_at"],
  };
  for (const [table, names] of Object.entries(columns)) {
    for (const name of names) run(`UPDATE ${table} SET ${name} = ? WHERE ${name} > ?`, when, when);
  }
  run("UPDATE projection_threads SET updated_at = ? WHERE thread_id = ?", when, some());
}
