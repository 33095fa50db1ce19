// What lies under the base directory, and with which modes (contract, section 2).

import { randomBytes, randomUUID } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";

import { named, warn } from "./log.mjs";
import { atLeast } from "./release.mjs";

/** Where everything is, from the flags and the environment. */
export function places(flags) {
  const base = resolve(flags["base-dir"] ?? (process.env.T3CODE_HOME || join(homedir(), ".t3")));
  const data = join(base, flags["dev-url"] ? "dev" : "userdata");
  return {
    base,
    data,
    database: join(data, "state.sqlite"),
    secrets: join(data, "secrets"),
    runtime: join(data, "server-runtime.json"),
  };
}

/** The directories that every command makes, and the signing key. */
export function prepare(at) {
  try {
    for (const name of ["attachments", "logs/provider", "logs/terminals", "secrets"]) mkdirSync(join(at.data, name), { recursive: true });
    chmodSync(at.secrets, 0o700);
  } catch (cause) {
    throw named("SecretStoreError", `Failed to secure secrets directory ${at.secrets}.`, cause);
  }
  once(join(at.secrets, "server-signing-key.bin"), () => randomBytes(32), 0o600);
  if (atLeast("0.0.28")) once(join(at.secrets, "cloud-link-ed25519-key-pair.bin"), () => randomBytes(96), 0o600);
}

/** The key that signs cookies and tokens. */
export const signingKey = (at) => readFileSync(join(at.secrets, "server-signing-key.bin"));

/** What only a server makes. Returns the environment's id. */
export function prepareServer(at) {
  for (const name of ["caches", "worktrees"]) mkdirSync(join(at.base, name), { recursive: true });
  for (const provider of ["codex", "claude"]) {
    writeFileSync(join(at.base, "caches", `${provider}.json`), JSON.stringify({ provider, status: "missing", checkedAt: new Date().toISOString() }));
  }
  once(join(at.data, "anonymous-id"), randomUUID, 0o644);
  once(join(at.data, "environment-id"), randomUUID, 0o644);
  keybindings(join(at.data, "keybindings.json"));
  return readFileSync(join(at.data, "environment-id"), "utf8").trim();
}

const OLD_KEYS = ["terminal.toggle", "terminal.split", "chat.new", "diff.toggle"];
const NEW_KEYS = ["review.open", "preview.toggle"];

/** 0.0.28 adds entries that older servers do not know, and say so. */
function keybindings(path) {
  const mine = atLeast("0.0.28") ? [...OLD_KEYS, ...NEW_KEYS] : OLD_KEYS;
  let entries = [];
  try {
    entries = JSON.parse(readFileSync(path, "utf8"));
  } catch {
    // None yet, or none that can be read: made anew.
  }
  if (!Array.isArray(entries)) entries = [];
  const there = entries.map((entry) => entry?.command);
  for (const command of there) {
    if (!mine.includes(command)) warn(`ignoring invalid keybinding entry ${JSON.stringify(command)}`);
  }
  const missing = mine.filter((command) => !there.includes(command));
  if (missing.length === 0) return;
  const added = missing.map((command) => ({ key: `mod+${mine.indexOf(command) + 1}`, command }));
  writeFileSync(path, `${JSON.stringify([...entries, ...added], null, 2)}\n`);
}

/** About 200 KB of trace, as after a real start. */
export function trace(at) {
  const span = JSON.stringify({ name: "server.start", durationMs: 1, attributes: { filler: "x".repeat(900) } });
  writeFileSync(join(at.data, "logs", "server.trace.ndjson"), `${span}\n`.repeat(200));
}

/** Tells other programs of this server. Nobody looks whose file it is (contract, section 7). */
export function announce(at, host, port) {
  const reached = host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host;
  const origin = `http://${reached.includes(":") ? `[${reached}]` : reached}:${port}`;
  writeFileSync(at.runtime, JSON.stringify({ version: 1, pid: process.pid, host, port, origin, startedAt: new Date().toISOString() }));
}

export const withdraw = (at) => rmSync(at.runtime, { force: true });

function once(path, content, mode) {
  if (!existsSync(path)) writeFileSync(path, content(), { mode });
}
