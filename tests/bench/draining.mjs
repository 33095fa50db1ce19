// Runs in a test machine with t3pin installed: node draining.mjs INSTANCES TESTS
//
// Three users have a real server and are really put off. The others are made from the first one: account, home with a copy of the
// database, unit (a process that says which version it is in place of the server), and a copy of the waiting bump in the journal; to rehearse them all would
// take an hour and say nothing about waiting.
import { execFile } from "node:child_process";
import { appendFileSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const count = Number(process.argv[2] ?? 500);
/** The product's own tests: only they can write a journal. */
const journalist = process.argv[3];
const real = ["alice", "bob", "carol"];
const [from, to] = ["0.0.24", "0.0.25"];
const SECONDS = 60;
const QUIET = 10;

const say = (text) => process.stderr.write(`${text}\n`);
const run = (command, ...args) =>
  new Promise((done, failed) => {
    execFile(command, args, { maxBuffer: 1 << 28 }, (error, stdout, stderr) => {
      if (error) failed(new Error(`${command} ${args.join(" ")}: ${error.code}\n${stdout}${stderr}`));
      else done(stdout);
    });
  });
const shell = (script) => run("bash", "-c", script);
const settings = (quiet) => writeFileSync("/etc/t3pin/conf.d/50-bench.toml", `[activity]\nquiet = "${quiet}"\n[health]\nsoak = "0s"\n`);
const pin = (version) => writeFileSync("/etc/t3pin/pin.toml", `version = "${version}"\n`);

/** Processor time of the agent and of the workers that it has had started, in ms. The workers' unit comes and goes. */
let workers = { now: 0, before: 0 };
function cpu() {
  const used = (unit) => {
    const stat = `/sys/fs/cgroup/system.slice/${unit}.service/cpu.stat`;
    return existsSync(stat) ? Number(/^usage_usec (\d+)/m.exec(readFileSync(stat, "utf8"))[1]) / 1000 : 0;
  };
  const now = used("t3pin-workers");
  workers = { now, before: now < workers.now ? workers.before + workers.now : workers.before };
  return used("t3pin") + workers.now + workers.before;
}
setInterval(cpu, 1000).unref();

/** Of the agent, in MB: all that is in memory, and the part of it that is not the program itself. */
async function memory() {
  const pid = (await run("systemctl", "show", "-P", "MainPID", "t3pin")).trim();
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return ["VmRSS", "RssAnon"].map((name) => Number(new RegExp(`^${name}:\\s*(\\d+)`, "m").exec(status)[1]) / 1024);
}

const port = (user) => Number(/^T3_PORT=(\d+)/m.exec(readFileSync(`/etc/t3-serve/${user}.env`, "utf8"))[1]);

async function turn(user, state) {
  const answer = await fetch(`http://127.0.0.1:${port(user)}/standin/turn`, { method: "POST", body: JSON.stringify({ thread: "bench", state }) });
  if (!answer.ok) throw new Error(`${user}: the turn could not ${state}: ${answer.status}`);
}

/** Answers what a server answers who is asked for its version, and nothing else; small, so that there can be hundreds. */
const STANDS_IN = `use IO::Socket::INET;
my ($port, $version) = @ARGV;
my $door = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $port, Listen => 16, ReuseAddr => 1) or die;
my $body = qq({"environmentId":"id-$port","label":"bench","platform":{"os":"linux","arch":"x64"},"serverVersion":"$version","capabilities":{}});
while (my $caller = $door->accept) {
  while (defined(my $line = <$caller>)) { last if $line =~ /^\\r?$/ }
  print $caller "HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: ", length $body, "\\r\\nconnection: close\\r\\n\\r\\n", $body;
  close $caller;
}
`;

/** The others, while the agent is down. */
async function clone(users) {
  writeFileSync("/usr/local/bin/stands-in", STANDS_IN);
  const lines = users.map((user, at) => `${user}:x:${20_000 + at}:${20_000 + at}::/home/${user}:/bin/bash\n`);
  appendFileSync("/etc/passwd", lines.join(""));
  appendFileSync("/etc/group", users.map((user, at) => `${user}:x:${20_000 + at}:\n`).join(""));
  await shell("sqlite3 /home/alice/.t3/userdata/state.sqlite '.backup /root/state.sqlite' && sqlite3 /root/state.sqlite 'PRAGMA journal_mode = wal' >/dev/null");
  for (const [at, user] of users.entries()) {
    writeFileSync(`/etc/t3-serve/${user}.env`, `T3_PORT=${20_000 + at}\n`);
    symlinkSync(`../versions/${from}`, `/var/lib/t3pin/bindings/${user}`);
    const dropIn = `/run/systemd/system/t3-serve@${user}.service.d`;
    mkdirSync(dropIn, { recursive: true });
    writeFileSync(`${dropIn}/bench.conf`, `[Service]\nExecStart=\nExecStart=/usr/bin/perl /usr/local/bin/stands-in ${20_000 + at} ${from} /var/lib/t3pin/bindings/${user}/\n`);
  }
  await shell(`T3PIN_BENCH_USERS='${users.join(" ")}' ${journalist} --ignored --exact journal::tests::a_waiting_bump_is_made_for_many_users`);
  await shell(`for user in ${users.join(" ")}; do
      mkdir -p /home/$user/.t3/userdata && cp /root/state.sqlite /home/$user/.t3/userdata/ && chown -R $user:$user /home/$user; done
    systemctl daemon-reload && systemctl start ${users.map((user) => `t3-serve@${user}`).join(" ")}`);
}

/** Until the agent, which was just started, has looked at everybody and come to rest; what it has used until then, in ms. */
async function rest() {
  let calm = 0;
  for (let last = cpu(); calm < 3; ) {
    await sleep(5000);
    const now = cpu();
    calm = now > 2 * count && now - last < 250 ? calm + 1 : 0;
    last = now;
  }
  return cpu();
}

async function measure(what, meanwhile = () => sleep(SECONDS * 1000)) {
  say(`${SECONDS} s ${what}`);
  const before = cpu();
  await meanwhile();
  return ((cpu() - before) / SECONDS / 1000) * 100;
}

say("three users, each with a turn in flight, are put off");
settings("15min");
await run("systemctl", "restart", "t3pin");
pin(from);
for (const user of real) {
  await run("t3pin", "enroll", user);
  await turn(user, "start");
}
pin(to);
await shell("t3pin enforce --wait || [ $? = 3 ]");

const users = Array.from({ length: Math.max(0, count - real.length) }, (_, at) => `u${String(at).padStart(4, "0")}`);
say(`${users.length} more are made from the first`);
await run("systemctl", "stop", "t3pin.socket", "t3pin");
await clone(users);
say("the agent starts and looks at everybody once");
await run("systemctl", "start", "t3pin.socket", "t3pin");
const perLook = (await rest()) / count;

const still = await measure("in which nothing changes");
const [rss, own] = await memory();
const writers = users.slice(0, Math.round(count / 25));
const working = await measure(`in which ${writers.length} of them write to their databases every second`, async () => {
  for (const end = Date.now() + SECONDS * 1000; Date.now() < end; ) {
    const begun = Date.now();
    const writes = writers.map((user) => `runuser -u ${user} -- sqlite3 /home/${user}/.t3/userdata/state.sqlite 'UPDATE projection_threads SET title = hex(randomblob(4))' & `);
    await shell(`${writes.join("")} wait`);
    await sleep(Math.max(0, 1000 - (Date.now() - begun)));
  }
});

say("the turns end one after the other: how long until the bump begins");
settings(`${QUIET}s`);
await run("systemctl", "restart", "t3pin");
await rest();
const lates = [];
for (const user of real) {
  await turn(user, "end");
  const eligible = Date.now() + QUIET * 1000;
  let begun;
  while (begun === undefined && Date.now() < eligible + 60_000) {
    await sleep(500);
    const history = JSON.parse(await run("t3pin", "history", user, "--json"));
    begun = history.find((bump) => bump.to === to && bump.started_ms > eligible - 5000)?.started_ms;
  }
  if (begun === undefined) throw new Error(`${user} is not bumped: ${await shell("journalctl -u t3pin -n 50 --no-pager")}`);
  lates.push((begun - eligible) / 1000);
  say(`${user}: ${lates.at(-1).toFixed(2)} s after becoming eligible`);
}

const late = Math.max(...lates);
const polled = (perLook * count) / 5000 * 100;
const rows = [
  [`${count} watched, nothing changes: processor`, `${still.toFixed(2)} % of a core`, "under 1 %", still < 1],
  [`${count} watched, ${writers.length} of them at work: processor`, `${working.toFixed(2)} % of a core`, "under 1 %", working < 1],
  [`${count} watched: memory (RSS)`, `${rss.toFixed(1)} MB (${own.toFixed(1)} MB without the program)`, "under 20 MB", rss < 20],
  ["from eligible to the beginning of the bump, longest of 3", `${late.toFixed(2)} s`, "within 5 s", late <= 5],
];
const table = [["number", "measured", "reach", ""], ...rows.map((row) => [...row.slice(0, 3), row[3] ? "ok" : "short"])];
const widths = [0, 1, 2].map((column) => Math.max(...table.map((row) => row[column].length)));
console.log();
for (const row of table) console.log(row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ").trimEnd());
console.log(`
Beside it: one look costs ${perLook.toFixed(1)} ms of processor; looking at all ${count} every 5 s, in place of watching, would take ${polled.toFixed(0)} % of a core.
The host's load was ${readFileSync("/proc/loadavg", "utf8").split(" ").slice(0, 2).join(", ")}.`);
process.exitCode = rows.every((row) => row[3]) ? 0 : 1;
process.exit();
