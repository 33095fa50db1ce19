// Runs in a test machine with t3pin installed: has a user's server handed over again and again while turns start and end on it at
// random moments, and prints what came of it as one line of JSON.
//
//   node inside.mjs HAND_OVERS
//
// Every hand-over is t3pin's own: a bump by order, then its rollback by order, asked for until nothing is in flight. The turns come
// from outside, as a browser's would: one client keeps its connection, the other makes a new one each time. Whether one was interrupted
// the server itself says: told to stop, the stand-in writes down which turns are in flight (T3_STANDIN_STOPS).
import { execFile } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const [FROM, TO] = ["0.0.25", "0.0.28"];
const USER = "alice";
const STOPS = `/home/${USER}/stops`;
const wanted = Number(process.argv[2] ?? 1000);
const say = (text) => process.stderr.write(`${text}\n`);

/** While a bump is waited for, a turn begins now and then; while a rollback is asked for, one begins in most looks. */
const CALM = { idle: 150, turn: 20 };
const BRISK = { idle: 40, turn: 15 };
let pace = CALM;

const run = (command, ...args) =>
  new Promise((done, failed) => {
    execFile(command, args, { maxBuffer: 1 << 28 }, (error, stdout, stderr) => {
      if (error) failed(new Error(`${command} ${args.join(" ")}: ${error.code}\n${stdout}${stderr}`));
      else done(stdout);
    });
  });

/** One request; its answer as JSON, or an error. */
function ask(where, method, path, body) {
  return new Promise((done, failed) => {
    const headers = body === undefined ? {} : { "content-type": "application/json" };
    const asked = request({ ...where, method, path, headers, timeout: 10_000 }, (answer) => {
      let text = "";
      answer.setEncoding("utf8").on("data", (piece) => (text += piece)).on("error", failed);
      answer.on("end", () => {
        if (answer.statusCode >= 300) failed(new Error(`${method} ${path}: ${answer.statusCode} ${text}`));
        else done(JSON.parse(text || "null"));
      });
    });
    asked.on("timeout", () => asked.destroy(new Error(`${method} ${path}: no answer`))).on("error", failed);
    asked.end(body === undefined ? undefined : JSON.stringify(body));
  });
}
const t3pin = (method, path, body) => ask({ socketPath: "/run/t3pin/t3pin.sock" }, method, path, body);

/** Puts in an order, and waits for its end. */
async function order(path, body) {
  let { id, done, outcome, message } = await t3pin("POST", path, body);
  while (!done) {
    await sleep(10);
    // A host that is busy for seconds is asked again.
    const now = await t3pin("GET", `/v1/runs/${id}`).catch((error) => say(error.message));
    if (now) ({ done, outcome, message } = now);
  }
  return { outcome, message };
}

/** A user's client: turns that begin and end when nobody expects it. */
async function client(port, name, agent) {
  const turn = (state) => ask({ host: "127.0.0.1", port, agent }, "POST", "/standin/turn", { thread: name, state });
  const some = (mean) => -Math.log(1 - Math.random()) * mean;
  for (;;) {
    await sleep(some(pace.idle));
    // One that was refused may have begun or not: in every case it is ended, when the server is back.
    await turn("start").catch(() => undefined);
    await sleep(some(pace.turn));
    while (!(await turn("end").then(() => true, () => false))) await sleep(20);
  }
}

const pin = (version) => writeFileSync("/etc/t3pin/pin.toml", `version = "${version}"\n`);

async function bump() {
  pace = CALM;
  pin(TO);
  await t3pin("POST", "/v1/quarantine/clear", { version: TO });
  const { outcome, message } = await order("/v1/enforce");
  if (!["done", "deferred"].includes(outcome)) throw new Error(`enforce: ${outcome}: ${message}`);
  for (let one; ; await sleep(20)) {
    one = (await t3pin("GET", `/v1/instances/${USER}`).catch((error) => say(error.message))) ?? {};
    if (one.state === "soaking") return;
    if (["held-back", "refused", "stuck", "rolling-back"].includes(one.state)) throw new Error(JSON.stringify(one));
  }
}

async function rollback() {
  pace = BRISK;
  for (;;) {
    const { outcome, message } = await order("/v1/rollback", { user: USER });
    if (outcome === "done") return;
    if (outcome !== "deferred") throw new Error(`rollback: ${outcome}: ${message}`);
  }
}

/** The agent's own lines on hand-overs: how long each server stood still, and what came of it. */
async function handOvers() {
  await run("journalctl", "--sync");
  const lines = (await run("journalctl", "-u", "t3pin", "-o", "json", "--no-pager")).trim().split("\n").map((line) => JSON.parse(line));
  const all = lines.filter((line) => line.T3PIN_STILL_MS !== undefined);
  return all.map((line) => ({ ms: Number(line.T3PIN_STILL_MS), stopped: line.MESSAGE.includes("is stopped"), story: line.MESSAGE.replace(/^.* ms, /, "") }));
}

/** One line for each server that was told to stop. */
const stops = () => (existsSync(STOPS) ? readFileSync(STOPS, "utf8").trim().split("\n").filter(Boolean).map((line) => JSON.parse(line)) : []);

writeFileSync(
  "/etc/t3pin/conf.d/50-handover.toml",
  '[activity]\nquiet = "0s"\npoll = "100ms"\n[health]\nsoak = "30min"\nwatch_interval = "30min"\n',
);
// Every hand-over is a line, and none may be held back as a flood.
writeFileSync("/etc/systemd/journald.conf", "[Journal]\nRateLimitIntervalSec=0\n");
await run("systemctl", "restart", "systemd-journald", "t3pin");
pin(FROM);
await run("t3pin", "enroll", USER);
const { port } = await t3pin("GET", `/v1/instances/${USER}`);
writeFileSync(`/etc/t3-serve/${USER}.env`, `T3_PORT=${port}\nT3_STANDIN_START_MS=0\nT3_STANDIN_STOPS=${STOPS}\n`);
await run("systemctl", "restart", `t3-serve@${USER}`);

client(port, "kept", new Agent({ keepAlive: true, maxSockets: 1 }));
client(port, "fresh", false);
let seen = [];
for (let round = 1; seen.length < wanted; round += 1) {
  await bump();
  await rollback();
  if (round % 5 === 0 || round === 1) {
    seen = await handOvers();
    for (const stop of stops().filter((stop) => stop.turns.length > 0)) say(JSON.stringify(stop));
    say(`round ${round}: ${seen.length} hand-overs, ${stops().filter((stop) => stop.turns.length > 0).length} interrupted`);
  }
}
seen = await handOvers();
const told = stops();
const stories = {};
for (const one of seen) stories[one.story] = (stories[one.story] ?? 0) + 1;
const stopped = seen.filter((one) => one.stopped).length;
// A server that was stopped and wrote nothing down was killed: nobody knows what was in flight.
const silent = stopped - told.length;
console.log(JSON.stringify({ still: seen.map((one) => one.ms), interrupted: told.reduce((sum, stop) => sum + stop.turns.length, 0), silent, stories }));
process.exit();
