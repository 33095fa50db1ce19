// Runs in a test machine with t3pin installed: has a user's server handed over again and again while turns start and end on it at
// random moments, and prints what came of it as one line of JSON.
//
//   node inside.mjs HAND_OVERS
//
// Every hand-over is t3pin's own, by order: a bump, and then, many times, the restore of the snapshot that it left, which is the way
// back of a bump and needs no rehearsal. Who is found at work is asked for again at once. The turns come from outside, as a browser's
// would: one client keeps its connection, the other makes a new one each time. Whether one was interrupted the server itself says:
// told to stop, the stand-in writes down which turns are in flight (T3_STANDIN_STOPS).
import { execFile } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const [FROM, TO] = ["0.0.25", "0.0.28"];
const USER = "alice";
const STOPS = `/home/${USER}/stops`;
const wanted = Number(process.argv[2] ?? 1000);
/** A bump is rehearsed for seconds; so many hand-overs are had from each. */
const PER_BUMP = 25;
const say = (text) => process.stderr.write(`${text}\n`);

/** Mean times in ms: so that turns begin in many of the looks, and in many a moment between two. */
const IDLE = 120;
const TURN = 15;

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
/** On a connection of its own: one that is kept may have been closed by the agent meanwhile. */
const t3pin = (method, path, body) => ask({ socketPath: "/run/t3pin/t3pin.sock", agent: false }, method, path, body);

/** Puts in an order, and waits for its end. */
async function order(path, body) {
  let { id, done, outcome, message } = await t3pin("POST", path, body);
  while (!done) {
    await sleep(20);
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
    await sleep(some(IDLE));
    // One that was refused may have begun or not: in every case it is ended, when the server is back.
    await turn("start").catch(() => undefined);
    await sleep(some(TURN));
    while (!(await turn("end").then(() => true, () => false))) await sleep(20);
  }
}

const pin = (version) => writeFileSync("/etc/t3pin/pin.toml", `version = "${version}"\n`);

/** Orders it until it is done; as often as somebody is at work. */
async function insist(path, body) {
  for (;;) {
    const { outcome, message } = await order(path, body);
    if (outcome === "done") return;
    if (outcome !== "deferred") throw new Error(`${path}: ${outcome}: ${message}`);
  }
}

/** The newest snapshot of the old version. */
async function newest() {
  const [archive] = await t3pin("GET", `/v1/snapshots?user=${USER}`);
  return archive?.kept.filter((one) => one.version === FROM && !one.id.endsWith("-salvage")).at(-1)?.id;
}

/** To the new version; the id of the snapshot that is left, which is archived a moment later. */
async function bump() {
  const before = await newest();
  await t3pin("POST", "/v1/quarantine/clear", { version: TO });
  await insist("/v1/enforce");
  for (let id; ; await sleep(50)) if ((id = await newest()) !== before) return id;
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
  '[activity]\nquiet = "0s"\npoll = "100ms"\n[health]\nsoak = "0s"\nwatch_interval = "500ms"\n[snapshots]\nkeep = 3\n',
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
pin(TO);
let seen = [];
while (seen.length < wanted) {
  const id = await bump();
  for (let at = 1; at < PER_BUMP; at += 1) await insist("/v1/snapshots/restore", { user: USER, id });
  seen = await handOvers();
  for (const stop of stops().filter((stop) => stop.turns.length > 0)) say(JSON.stringify(stop));
  say(`${seen.length} hand-overs, ${stops().filter((stop) => stop.turns.length > 0).length} interrupted`);
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
