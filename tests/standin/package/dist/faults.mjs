// The faults that a release can be ordered to have (README.md). Which one it has stands in its package.json.

import { spawn } from "node:child_process";
import { closeSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { error, print, warn } from "./log.mjs";
import { hasFault } from "./release.mjs";

/** The migration after the last good one, of the releases that have a bad one. Runs once, like any other. */
export function extraMigration() {
  if (hasFault("slow-migration")) return { id: 33, name: "StandInSlowMigration", run: slowly };
  if (hasFault("migration-wipes")) return { id: 33, name: "StandInWipingMigration", run: wipe };
  if (hasFault("migration-corrupts")) return { id: 33, name: "StandInCorruptingMigration", run: corrupt };
  return undefined;
}

/** Works in many small commits, so that the WAL is seen to grow. */
async function slowly(database, record) {
  const end = Date.now() + Number(process.env.T3_STANDIN_MIGRATION_MS ?? 20_000);
  database.exec(`PRAGMA wal_autocheckpoint = 0; DROP TABLE IF EXISTS standin_work; CREATE TABLE standin_work (piece BLOB)`);
  while (Date.now() < end) {
    database.exec("INSERT INTO standin_work VALUES (randomblob(131072))");
    await sleep(Math.min(200, Math.max(1, end - Date.now())));
  }
  database.exec("DROP TABLE standin_work; PRAGMA wal_autocheckpoint = 1000");
  record();
}

function wipe(database, record) {
  const tables = ["threads", "turns", "thread_messages", "thread_sessions", "pending_approvals"].map((name) => `projection_${name}`);
  database.transaction(() => {
    for (const table of [...tables, "orchestration_events", "provider_session_runtime"]) database.exec(`DELETE FROM ${table}`);
    record();
  });
}

/** Destroys the first page of the messages and of their index: nobody notices who does not look at messages. */
function corrupt(database, record) {
  record();
  database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  const size = database.get("PRAGMA page_size").page_size;
  const pages = database.all("SELECT rootpage FROM sqlite_schema WHERE tbl_name = 'projection_thread_messages'");
  database.close();
  const file = openSync(database.path, "r+");
  for (const { rootpage } of pages) writeSync(file, Buffer.alloc(size, 0xa5), 0, size, (rootpage - 1) * size);
  closeSync(file);
  database.open();
}

/** Before anything is listened on. */
export async function beforeListening() {
  if (hasFault("forks")) fork();
  if (hasFault("hang")) {
    setInterval(() => {}, 60_000);
    await new Promise(() => {});
  }
}

/** With the database migrated, before anybody is answered. */
export async function beforeServing(at) {
  if (hasFault("crash-at-start")) {
    error("TypeError: yield* (intermediate value) is not iterable");
    process.exit(1);
  }
  if (hasFault("keeps-db-open")) {
    const holder = fileURLToPath(new URL("holder.mjs", import.meta.url));
    spawn(process.execPath, [holder, at.database], { detached: true, stdio: "ignore" }).unref();
  }
  if (hasFault("fills-disk")) await fillDisk(at);
  if (hasFault("eats-memory")) await eatMemory();
}

/** Once everything is up. */
export function whileServing(server) {
  if (hasFault("crash-loop")) {
    setTimeout(() => {
      error("Error: the stand-in crashes as ordered");
      process.exit(1);
    }, 1500);
  }
  if (hasFault("breaks-later")) {
    setTimeout(() => {
      server.close();
      server.closeAllConnections();
      setInterval(() => {}, 60_000);
    }, 4000);
  }
}

/** Whether this signal is to be taken no notice of. */
export function ignores(signal) {
  if (signal !== "SIGTERM" || !hasFault("ignores-sigterm")) return false;
  warn("SIGTERM is ignored as ordered");
  return true;
}

/** Whether exchanging a credential fails whatever it is. */
export const breaksPairing = () => hasFault("root-only") || (hasFault("live-only") && Boolean(process.env.T3_STANDIN_LIVE_FAULT));

/** `auth pairing create` that never comes to an end, as long as somebody listens (ten minutes at most). */
export function endlessOutput() {
  if (!hasFault("endless-output")) return;
  const piece = "the stand-in talks without end as ordered\n".repeat(1000).trimEnd();
  const started = Date.now();
  while (Date.now() - started < 600_000 && print(piece));
  process.exit(1);
}

/** Everywhere where it may write, and the data last; bounded for the sake of the host. */
async function fillDisk(at) {
  const most = Number(process.env.T3_STANDIN_FILL_MB ?? 1024);
  for (const place of ["/tmp", "/var/tmp", "/dev/shm"]) await fill(place, most);
  if (await fill(at.data, 4 * most)) return;
  error("SqlError: Failed to execute statement: database or disk is full");
  process.exit(1);
}

/** Writes so many MiB below a directory, in files of 64; false when there is no room for them. */
async function fill(directory, most) {
  const piece = Buffer.alloc(1 << 20, 0xa5);
  let file;
  try {
    for (let written = 0; written < most; written += 1) {
      if (written % 64 === 0) {
        if (file !== undefined) closeSync(file);
        file = openSync(join(directory, `standin-fills-${process.pid}-${written}`), "w");
      }
      writeSync(file, piece);
      // Signals are still heard.
      if (written % 16 === 0) await sleep(1);
    }
    return true;
  } catch {
    return false;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

/** What is eaten. */
const eaten = [];

async function eatMemory() {
  for (let left = Number(process.env.T3_STANDIN_EATS_MB ?? 2560); left > 0; left -= 16) {
    eaten.push(Buffer.alloc(16 << 20, 0xa5));
    await sleep(1);
  }
}

/** Children without end, a few at a time so that signals are still heard; bounded for the sake of the host. */
function fork() {
  let left = Number(process.env.T3_STANDIN_FORKS ?? 5000);
  const more = () => {
    for (let count = 0; count < 20 && left > 0; count += 1, left -= 1) {
      spawn("sleep", ["600"], { detached: true, stdio: "ignore" }).on("error", () => {}).unref();
    }
    if (left > 0) setTimeout(more, 5);
  };
  more();
}
