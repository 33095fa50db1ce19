// Runs in a test machine with t3pin installed: measures, prints the table, ends with 1 when a number is not reached.
//
//   node inside.mjs ROUNDS
//
// Three users; alice is bumped from 0.0.24 to 0.0.25 and rolled back again and again, bob and carol are held where they are. Downtime
// is seen from outside: every few milliseconds a new connection asks for the descriptor; a gap is from the beginning of the first
// request that failed to the first answer of one that began later.
import { execFile } from "node:child_process";
import { readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";

const [from, to] = ["0.0.24", "0.0.25"];
const rounds = Number(process.argv[2] ?? 7);

/** What the stand-in's start takes beyond what it does, so that all of it takes what real t3 takes: 2.8 s (T3-CONTRACT, section 9). */
const START_MS = 2450;

/** A server that is starting does not answer at all (T3-CONTRACT): so long a request may take before it counts as failed. */
const PATIENCE_MS = 250;

/** An agent at rest tells systemd's watchdog that it lives, every 15 s: 2 or 3 times in 30 s, with 3 voluntary switches each time. */
const WAKE_UPS = 9;

const now = () => performance.now();
const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];
const say = (text) => process.stderr.write(`${text}\n`);

/** Runs a command; its output, or an error with all it said. */
function run(command, ...args) {
  return new Promise((done, failed) => {
    execFile(command, args, { maxBuffer: 1 << 28 }, (error, stdout, stderr) => {
      if (error) failed(new Error(`${command} ${args.join(" ")}: ${error.code}\n${stdout}${stderr}`));
      else done(stdout);
    });
  });
}
const shell = (script) => run("bash", "-c", script);

/** Asks one port again and again, from now on. */
class Poller {
  constructor(port, interval) {
    this.port = port;
    this.samples = [];
    this.timer = setInterval(() => this.ask(), interval);
  }

  ask() {
    const sample = { begun: now(), ended: undefined, ok: false };
    const socket = connect({ port: this.port, host: "127.0.0.1" });
    const end = (ok) => {
      if (sample.ended !== undefined) return;
      sample.ended = now();
      sample.ok = ok;
      this.samples.push(sample);
      socket.destroy();
    };
    socket.setTimeout(PATIENCE_MS, () => end(false));
    socket.on("error", () => end(false)).on("close", () => end(false));
    socket.on("data", (data) => end(data.toString("latin1").startsWith("HTTP/1.1 200")));
    socket.write("GET /.well-known/t3/environment HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
  }

  /** The gaps, in ms. */
  gaps() {
    const samples = [...this.samples].sort((a, b) => a.begun - b.begun);
    const gaps = [];
    for (let at = 0; at < samples.length; at += 1) {
      if (samples[at].ok) continue;
      const later = samples.slice(at + 1);
      const answer = later.filter((sample) => sample.ok).reduce((first, sample) => Math.min(first, sample.ended), Infinity);
      gaps.push(answer - samples[at].begun);
      const next = samples.findIndex((sample) => sample.begun >= answer);
      if (next < 0) break;
      at = next - 1;
    }
    return gaps;
  }

  async stop() {
    clearInterval(this.timer);
    await sleep(PATIENCE_MS + 50);
  }
}

function pin(version) {
  const held = ["bob", "carol"].map((user) => `[users.${user}]\nversion = "${from}"\nreason = "stays"\n`).join("");
  writeFileSync("/etc/t3pin/pin.toml", `version = "${version}"\n${held}`);
}

async function instance(user) {
  const status = JSON.parse(await run("t3pin", "status", "--json"));
  return status.instances.find((one) => one.user === user);
}

/** Until the user's server answers as `version` and nothing is under way with it. */
async function resting(user, version) {
  const until = now() + 60_000;
  for (let one; now() < until; await sleep(100)) {
    one = await instance(user);
    if (one.running_version === version && !["bumping", "soaking", "rolling-back"].includes(one.state) && (await answers(one.port))) return;
  }
  throw new Error(`${user} does not come to rest on ${version}: ${await run("t3pin", "status")}`);
}

async function answers(port) {
  const poller = new Poller(port, 20);
  await poller.stop();
  return poller.samples.every((sample) => sample.ok);
}

/** The one gap of alice's server while `work` is done. */
async function gapOf(port, work) {
  // Not more often: a server that is asked all the time is never at rest, and is not stopped.
  const poller = new Poller(port, 20);
  await sleep(200);
  await work();
  const until = now() + 20_000;
  while (now() < until && !poller.samples.slice(-20).every((sample) => sample.ok)) await sleep(20);
  await poller.stop();
  const gaps = poller.gaps();
  if (gaps.length !== 1) throw new Error(`one gap was expected, and there were ${gaps.length}: ${gaps}`);
  return gaps[0];
}

/** Where the time goes between the stop and the start: median ms per phase, from the agent's own lines. */
async function phases() {
  const text = await shell("journalctl --sync; journalctl -u t3pin T3PIN_USER=alice -o json --no-pager");
  const bumps = new Map();
  for (const line of text.trim().split("\n").map((line) => JSON.parse(line))) {
    if (!line.T3PIN_BUMP || !line.T3PIN_PHASE) continue;
    const begun = bumps.get(line.T3PIN_BUMP) ?? {};
    bumps.set(line.T3PIN_BUMP, begun);
    begun[line.T3PIN_PHASE] ??= Number(line._SOURCE_REALTIME_TIMESTAMP ?? line.__REALTIME_TIMESTAMP) / 1000;
  }
  const whole = [...bumps.values()].filter((begun) => begun.Verified);
  const took = (phase, next) => `${median(whole.map((begun) => begun[next] - begun[phase])).toFixed(0)} ms`;
  return {
    "looking, freezing, stopping": took("Quiesced", "Secured"),
    "copy, custody, snapshot": took("Secured", "Switched"),
    "copy in place, binding": took("Switched", "Started"),
    "start job": took("Started", "Verified"),
  };
}

/** Voluntary switches and CPU ms of all threads of a process. */
function effort(pid) {
  let [switches, nanoseconds] = [0, 0];
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const status = readFileSync(`/proc/${pid}/task/${thread}/status`, "utf8");
    switches += Number(/^voluntary_ctxt_switches:\s*(\d+)/m.exec(status)[1]);
    nanoseconds += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ")[0]);
  }
  return { switches, ms: nanoseconds / 1e6 };
}

/** What an agent with nothing to do does in `seconds`, once the threads of its last work have ended (tokio keeps them for 10 s). */
async function idle(seconds) {
  const pid = (await run("systemctl", "show", "-P", "MainPID", "t3pin")).trim();
  await sleep(15_000);
  const before = effort(pid);
  await sleep(seconds * 1000);
  const after = effort(pid);
  const rss = Number(/^VmRSS:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]) / 1024;
  return { rss, switches: after.switches - before.switches, ms: after.ms - before.ms };
}

say(`three users on ${from}, alice with a database of 1 MB`);
writeFileSync("/etc/t3pin/conf.d/50-bench.toml", '[health]\nsoak = "1s"\nwatch_interval = "500ms"\n[activity]\nquiet = "0s"\npoll = "1s"\n');
await run("systemctl", "restart", "t3pin");
pin(from);
const ports = {};
for (const user of ["alice", "bob", "carol"]) {
  await run("t3pin", "enroll", user);
  await shell(`echo T3_STANDIN_START_MS=${START_MS} >>/etc/t3-serve/${user}.env && systemctl restart t3-serve@${user}`);
  await resting(user, from);
  ports[user] = (await instance(user)).port;
}
const database = "/home/alice/.t3/userdata/state.sqlite";
await shell(`cp /root/seed.mjs /usr/local/lib/ && cd / && runuser -u alice -- node /usr/local/lib/seed.mjs ${database} --threads 20 --turns 10 --megabytes 1`);

const others = [new Poller(ports.bob, 20), new Poller(ports.carol, 20)];
const [bumps, restarts] = [[], []];
for (let round = 1; round <= rounds; round += 1) {
  pin(to);
  bumps.push(
    await gapOf(ports.alice, async () => {
      // 3: it was asked just then; it goes on by itself.
      await shell("t3pin enforce --wait || [ $? = 3 ]");
      await resting("alice", to);
    }),
  );
  await resting("alice", to);
  restarts.push(await gapOf(ports.alice, () => run("systemctl", "restart", "t3-serve@alice")));
  say(`round ${round} of ${rounds}: down for ${bumps.at(-1).toFixed(0)} ms by the bump, ${restarts.at(-1).toFixed(0)} ms by a bare restart of ${to}`);
  if (round === rounds) break;
  await run("t3pin", "rollback", "alice", "--force");
  await resting("alice", from);
  await run("t3pin", "versions", "clear", to);
}
for (const other of others) await other.stop();
const gaps = others.flatMap((other) => other.gaps());
const asked = others.reduce((sum, other) => sum + other.samples.length, 0);

say("t3pin status, 50 times");
const times = [];
for (let count = 0; count < 50; count += 1) {
  const begun = now();
  await run("t3pin", "status");
  times.push(now() - begun);
}
say("30 s of an agent with nothing to do, with the shipped settings");
rmSync("/etc/t3pin/conf.d/50-bench.toml");
await run("t3pin", "enforce", "--wait");
const rest = await idle(30);

const added = (median(bumps) / median(restarts) - 1) * 100;
const detail = Object.entries(await phases()).map(([name, ms]) => `${name} ${ms}`).join("; ");
const rows = [
  ["added downtime of a bump over a bare restart", `${added.toFixed(1)} %`, "at most 15 %", added <= 15],
  ["servers unreachable while another is bumped, or a version installed", `${gaps.length} gaps in ${asked} requests`, "0 gaps", gaps.length === 0],
  ["agent idle: memory (RSS)", `${rest.rss.toFixed(1)} MB`, "under 15 MB", rest.rss < 15],
  ["agent idle: wake-ups in 30 s, nobody in soak", `${rest.switches} (${rest.ms.toFixed(1)} ms of CPU)`, `at most ${WAKE_UPS}`, rest.switches <= WAKE_UPS],
  ["t3pin status, three instances", `${median(times).toFixed(1)} ms`, "under 20 ms", median(times) < 20],
];
const table = [["number", "measured", "reach", ""], ...rows.map((row) => [...row.slice(0, 3), row[3] ? "ok" : "short"])];
const widths = [0, 1, 2].map((column) => Math.max(...table.map((row) => row[column].length)));
console.log();
for (const row of table) console.log(row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ").trimEnd());
console.log(`
Downtime: medians of ${rounds} rounds, taken in turn: ${median(bumps).toFixed(0)} ms by the bump ${from} -> ${to} of a 1 MB database, ${median(restarts).toFixed(0)} ms by
"systemctl restart" of the same unit with ${to}. In the bump, before the start that both have: ${detail}.
The host's load was ${readFileSync("/proc/loadavg", "utf8").split(" ").slice(0, 2).join(", ")}: above 1 or so, times say more about the host than about t3pin.`);
process.exitCode = rows.every((row) => row[3]) ? 0 : 1;
process.exit();
