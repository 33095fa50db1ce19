// Kills the agent with SIGKILL when its status says that a user is in a phase: `node killer.mjs USER PHASE DELAY_MS ...`.
// Phases are short, so the status is asked for without a pause; one that was missed all the same is made up for in the next.
// One kill for every triple, in any order, but for one user in the order given; one line on stdout for each.
import { execFileSync } from "node:child_process";
import http from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const ORDER = ["planned", "rehearsed", "ready", "baselined", "quiesced", "secured", "switched", "started", "verified", "soaking", "settled"];
const reached = (now, wanted) => now === wanted || (ORDER.includes(wanted) && ORDER.indexOf(now) > ORDER.indexOf(wanted));

const words = process.argv.slice(2);
const kills = [];
for (let i = 0; i < words.length; i += 3) kills.push({ user: words[i], phase: words[i + 1], delay: Number(words[i + 2]) });

const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const phases = () =>
  new Promise((done) => {
    const request = http.get({ socketPath: "/run/t3pin/t3pin.sock", path: "/v1/status", agent, timeout: 1000 }, async (response) => {
      let text = "";
      try {
        for await (const piece of response) text += piece;
        done(new Map(JSON.parse(text).instances.map(({ user, phase }) => [user, phase])));
      } catch {
        done(new Map());
      }
    });
    request.on("error", () => done(new Map())).on("timeout", () => request.destroy());
  });
const mainPid = () => Number(execFileSync("systemctl", ["show", "--property=MainPID", "--value", "t3pin.service"]));

// Five starts in five minutes are not what is tried here.
const forgive = () => execFileSync("systemctl", ["reset-failed", "t3pin.service"]);

let pid = mainPid();
console.log("watching");
while (kills.length > 0) {
  const now = await phases();
  const due = kills.findIndex(({ user, phase }, at) => reached(now.get(user), phase) && kills.findIndex((other) => other.user === user) === at);
  if (due < 0) continue;
  const [{ user, delay }] = kills.splice(due, 1);
  await sleep(delay);
  process.kill(pid, "SIGKILL");
  console.log(`killed in ${now.get(user)} of ${user}`);
  forgive();
  for (const dead = pid; pid === dead || pid === 0; pid = mainPid()) await sleep(20);
}
