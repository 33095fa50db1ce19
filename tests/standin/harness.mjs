// Packs, unpacks and runs the stand-in on this machine, for contract.test.mjs.

import { execFileSync, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";

const here = import.meta.dirname;
const work = mkdtempSync(join(tmpdir(), "t3-standin-"));
const started = new Set();
process.on("exit", () => {
  killAll();
  rmSync(work, { recursive: true, force: true });
});
execFileSync(join(here, "pack"), [join(work, "packed")]);

/**
 * A node_modules with a node-pty that was really built: T3_STANDIN_NODE_MODULES, or made once by npm under target/.
 */
function nodeModules() {
  if (process.env.T3_STANDIN_NODE_MODULES) return process.env.T3_STANDIN_NODE_MODULES;
  const prefix = join(here, "../../target/standin", process.version);
  const built = join(prefix, "node_modules");
  if (!existsSync(join(built, "node-pty/build/Release/pty.node"))) {
    mkdirSync(prefix, { recursive: true });
    const nodedir = dirname(dirname(process.execPath));
    const headers = existsSync(join(nodedir, "include/node/node.h")) ? { npm_config_nodedir: nodedir } : {};
    const options = ["install", "--no-audit", "--no-fund", "--prefix", prefix, join(work, "packed/t3-0.0.28.tgz")];
    const env = { ...process.env, ...headers, PATH: `${dirname(process.execPath)}:${process.env.PATH}` };
    execFileSync("npm", options, { env, stdio: ["ignore", "ignore", "inherit"] });
    // Newer npm runs no install script that it was not asked for.
    if (!existsSync(join(built, "node-pty/build/Release/pty.node"))) {
      execFileSync("npm", ["rebuild", "--prefix", prefix, "node-pty"], { env, stdio: ["ignore", "ignore", "inherit"] });
    }
  }
  return built;
}

const modules = nodeModules();

/** Ends the servers that a test left running. */
export function killAll() {
  for (const child of started) child.kill("SIGKILL");
}

/** A directory that goes away with the tests. */
export const scratch = () => mkdtempSync(join(work, "d"));

/** Where the release `version` is installed; `pty: false`: without node-pty's native part. */
export function install(version, { pty = true } = {}) {
  const tree = join(work, `${version}${pty ? "" : "-no-pty"}`);
  if (!existsSync(tree)) {
    mkdirSync(join(tree, "node_modules"), { recursive: true });
    execFileSync("tar", ["xzf", join(work, `packed/t3-${version}.tgz`), "-C", join(tree, "node_modules")]);
    execFileSync("mv", [join(tree, "node_modules/package"), join(tree, "node_modules/t3")]);
    if (pty) symlinkSync(join(modules, "node-pty"), join(tree, "node_modules/node-pty"));
    else execFileSync("cp", ["-r", join(modules, "node-pty"), join(tree, "node_modules/node-pty")]);
    if (!pty) rmSync(join(tree, "node_modules/node-pty/build"), { recursive: true });
  }
  return join(tree, "node_modules/t3/dist/bin.mjs");
}

const environment = (more) => ({
  PATH: process.env.PATH, HOME: work, SHELL: "/bin/sh", T3CODE_TELEMETRY_ENABLED: "false", T3_STANDIN_START_MS: "20", ...more,
});

/** Runs a command to its end. */
export function t3(version, args, { env, pty } = {}) {
  const done = spawnSync(process.execPath, [install(version, { pty }), ...args], { env: environment(env), encoding: "utf8", timeout: 20_000 });
  return { code: done.status, out: done.stdout, err: done.stderr };
}

/** Runs a command with --json that has to succeed. */
export function json(version, args, base) {
  const { code, out, err } = t3(version, [...args, "--json", "--base-dir", base]);
  if (code !== 0 || err !== "") throw new Error(`t3 ${args.join(" ")}: ${code} ${out} ${err}`);
  return JSON.parse(out);
}

/** Starts a server; `waitFor` is what it prints when it is as far as wanted. */
export async function serve(version, base, { env, waitFor = "Listening on", args = [], port } = {}) {
  port ??= await freePort();
  const words = [install(version), "serve", "--port", String(port), "--base-dir", base, "--no-browser", ...args];
  const child = spawn(process.execPath, words, { env: environment(env), stdio: ["ignore", "pipe", "pipe"] });
  started.add(child);
  const server = { child, port, log: "", exit: new Promise((done) => child.on("exit", (code, signal) => done(code ?? signal))) };
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (piece) => (server.log += piece));
  server.exit.then(() => started.delete(child));
  server.stop = (signal = "SIGTERM") => (child.kill(signal), server.exit);
  server.request = (path, { method = "GET", body, headers } = {}) =>
    fetch(`http://127.0.0.1:${port}${path}`, {
      method, headers: { connection: "close", ...headers }, body: body && JSON.stringify(body), signal: AbortSignal.timeout(5000),
    });
  server.post = (path, body, headers) => server.request(path, { method: "POST", body, headers });
  await until(() => server.log.includes(waitFor) || child.exitCode !== null);
  return server;
}

/** Waits until `true_` says so, ten seconds at most. */
export async function until(true_) {
  for (const end = Date.now() + 10_000; !(await true_()); await sleep(10)) {
    if (Date.now() > end) throw new Error(`never came about: ${true_}`);
  }
}

function freePort() {
  return new Promise((done) => {
    const probe = createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => done(port));
    });
  });
}

/** One query against the database of `base`. */
export function query(base, sql) {
  const db = new DatabaseSync(join(base, "userdata/state.sqlite"));
  try {
    return db.prepare(sql).all().map((row) => Object.values(row)[0]);
  } finally {
    db.close();
  }
}

export const level = (base) => query(base, "SELECT max(migration_id) FROM effect_sql_migrations")[0];

/** Runs seed.mjs on the database of `base`. */
export function seed(base, ...args) {
  execFileSync(process.execPath, [join(here, "seed.mjs"), join(base, "userdata/state.sqlite"), ...args]);
}

export const releases = JSON.parse(readFileSync(join(here, "releases.json"), "utf8"));
export const packed = join(work, "packed");
