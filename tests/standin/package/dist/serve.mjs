// `t3 serve`: from the start to the last breath (contract, sections 2 and 7).

import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { networkInterfaces, userInfo } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";

import { createLink } from "./auth.mjs";
import { openDatabase } from "./database.mjs";
import * as faults from "./faults.mjs";
import { announce, places, prepare, prepareServer, signingKey, trace, withdraw } from "./files.mjs";
import { handler } from "./http.mjs";
import { error, failure, info, named, print, warn } from "./log.mjs";
import { witness } from "./turns.mjs";

/** Milliseconds that a start takes beyond what has to be done; benchmarks set it to what real t3 takes. */
const START_MS = Number(process.env.T3_STANDIN_START_MS ?? 150);

/** Serves until a signal ends it. */
export async function serve(flags) {
  const at = places(flags);
  const running = { at, database: undefined, announced: false, shell: undefined };
  for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => faults.ignores(signal) || stop(running));
  try {
    loadTerminal();
    await loginShell(running);
    await faults.beforeListening();
    await sleep(START_MS / 2);
    const host = flags.host ?? (process.env.T3CODE_HOST || "127.0.0.1");
    const server = await listen(host, Number(flags.port ?? (process.env.T3CODE_PORT || 3773)));
    prepare(at);
    const environmentId = prepareServer(at);
    running.database = await openDatabase(at.database);
    await faults.beforeServing(at);
    await sleep(START_MS / 2);
    const { port } = server.address();
    const cookie = flags.mode === "desktop" ? `t3_session_${port}` : "t3_session";
    // Requests that came before this are never answered, as with the real one.
    server.on("request", handler({ database: running.database, key: signingKey(at), environmentId, host, port, cookie }));
    announce(at, host, port);
    running.announced = true;
    info(`Listening on http://${host}:${port}`);
    trace(at);
    info("provider.session.reaper.started", 12);
    greet(running.database, host, port);
    telemetry();
    faults.whileServing(server);
  } catch (problem) {
    failure(problem);
    running.database?.close();
    process.exit(1);
  }
}

/** node-pty's native part: without it there is no serving. */
function loadTerminal() {
  try {
    createRequire(import.meta.url)("node-pty");
  } catch (cause) {
    throw named("Error", "Failed to load native module: pty.node", cause);
  }
}

/** The user's profile is run for its environment, and waited for, however long it takes. */
async function loginShell(running) {
  const shell = process.env.SHELL || ownShell() || "/bin/sh";
  const mark = "__T3_ENVIRONMENT__";
  let output = "";
  // A session of its own: an interactive shell must not stop for a terminal.
  const child = spawn(shell, ["-ilc", `printf '%s' ${mark}; printenv PATH; printf '%s' ${mark}`], {
    detached: true,
    stdio: ["ignore", "pipe", "inherit"],
  });
  running.shell = child;
  child.stdout.on("data", (piece) => {
    output = (output + piece).slice(-65_536);
  });
  await new Promise((done) => child.on("error", done).on("close", done));
  running.shell = undefined;
  const path = output.split(mark)[1]?.trim();
  if (path) process.env.PATH = path;
}

function ownShell() {
  try {
    return userInfo().shell;
  } catch {
    // A user without an entry has none.
    return undefined;
  }
}

function listen(host, port) {
  const server = createServer({ keepAlive: true });
  return new Promise((done, refused) => {
    server.once("error", (cause) => refused(named("ServeError", "Failed to start the HTTP server.", cause)));
    server.listen(port, host, () => {
      server.removeAllListeners("error");
      server.on("error", (problem) => error(`http server: ${problem.message}`, 7));
      done(server);
    });
  });
}

/** The startup link. Where it cannot be made (newer tables), nothing of this is ever printed (contract, section 5). */
function greet(database, host, port) {
  let link;
  try {
    link = createLink(database, { startup: true });
  } catch {
    return;
  }
  const reached = ["0.0.0.0", "::"].includes(host) ? (lanAddress() ?? "127.0.0.1") : host;
  const origin = `http://${reached}:${port}`;
  print("T3 Code server is ready.");
  print(`Connection string: ${origin}\nToken: ${link.credential}\nPairing URL: ${origin}/pair#token=${link.credential}`);
  const pixel = (at) => " ▀▄█"[(link.credential.charCodeAt(at % 12) >> ((at / 12) & 3)) & 3];
  print(Array.from({ length: 12 }, (_, row) => Array.from({ length: 24 }, (_, column) => pixel(row * 24 + column)).join("")).join("\n"));
}

function lanAddress() {
  const all = Object.values(networkInterfaces()).flat();
  return all.find((address) => address.family === "IPv4" && !address.internal)?.address;
}

/** Telemetry that cannot be sent is complained about every second, forever (contract, section 7). */
function telemetry() {
  if (process.env.T3CODE_TELEMETRY_ENABLED === "false") return;
  const where = Array.from({ length: 6 }, (_, depth) => `\n    at telemetry.flush (standin:${depth + 1})`).join("");
  setInterval(() => error(`Failed to flush telemetry\n  TransportError: connect ECONNREFUSED${where}`, 20), 1000);
}

/** A clean stop: the WAL goes into the database, and the exit code is 130. */
function stop(running) {
  try {
    if (running.shell?.pid) process.kill(-running.shell.pid, "SIGKILL");
  } catch {
    // Already gone.
  }
  try {
    if (running.announced) witness(running.database, process.env.T3_STANDIN_STOPS);
    running.database?.close();
  } catch (problem) {
    warn(`database: ${problem.message}`);
  }
  if (running.announced) withdraw(running.at);
  process.exit(130);
}
