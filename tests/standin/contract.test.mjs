// The stand-in keeps to the contract; section numbers are its. Run: node --test tests/standin (node 24 or newer).

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { install, json, killAll, level, packed, query, releases, scratch, seed, serve, t3, until } from "./harness.mjs";

const GOOD = ["0.0.24", "0.0.25", "0.0.28"];
const LEVELS = { "0.0.24": 30, "0.0.25": 31, "0.0.28": 32 };
const pairing = (version) => (version === "0.0.24" ? "/api/auth/bootstrap" : "/api/auth/browser-session");
const create = (version, base) => json(version, ["auth", "pairing", "create"], base);
const cookieOf = (answer) => answer.headers.get("set-cookie").split(";")[0];
const authenticated = async (server, cookie) => (await (await server.request("/api/auth/session", { headers: { cookie } })).json()).authenticated;

async function pair(version, server, base) {
  const answer = await server.post(pairing(version), { credential: create(version, base).credential });
  assert.equal(answer.status, 200);
  return cookieOf(answer);
}

after(killAll);

describe("commands (1)", () => {
  for (const version of GOOD) {
    test(`${version} says its version, and makes, lists and revokes links and sessions`, () => {
      const base = scratch();
      assert.deepEqual(t3(version, ["--version"]), { code: 0, out: `t3 v${version}\n`, err: "" });
      assert.equal(t3(version, ["-v"]).code, version === "0.0.28" ? 0 : 1);
      assert.deepEqual(readdirSync(base), []);

      const rights = version === "0.0.24" ? "role" : "scopes";
      const link = json(version, ["auth", "pairing", "create", "--label", "l", "--base-url", "http://h/"], base);
      assert.deepEqual(Object.keys(link), ["id", "credential", "label", rights, "expiresAt", "pairUrl"]);
      assert.match(link.credential, /^[A-Z2-9]{12}$/);
      assert.equal(link.pairUrl, `http://h/pair#token=${link.credential}`);
      assert.deepEqual(Object.keys(create(version, base)), ["id", "credential", rights, "expiresAt"]);
      assert.deepEqual(json(version, ["auth", "pairing", "list"], base).map(({ label }) => label), [undefined, "l"]);
      assert.equal(t3(version, ["auth", "pairing", "revoke", link.id, "--base-dir", base]).code, 0);
      assert.equal(json(version, ["auth", "pairing", "list"], base).length, 1);

      const session = json(version, ["auth", "session", "issue"], base);
      assert.deepEqual(Object.keys(session), ["sessionId", "token", "method", rights, "subject", "client", "expiresAt"]);
      assert.equal(version === "0.0.24" ? session.role : session.scopes.length, version === "0.0.24" ? "owner" : 8);
      assert.deepEqual(json(version, ["auth", "session", "list"], base).map(({ sessionId }) => sessionId), [session.sessionId]);
      const nobody = t3(version, ["auth", "session", "revoke", "nobody", "--base-dir", base]);
      assert.deepEqual([nobody.code, nobody.err], [0, ""]);
      assert.match(nobody.out, /^No active session found for nobody\.$/m);
      assert.equal(level(base), LEVELS[version]);
    });
  }

  test("what is not understood gets help and ERROR on stdout, and 1", () => {
    for (const args of [["serve", "--nope"], ["auth", "pairing", "create", "--ttl", "soon"], ["auth", "session", "issue", "--role", "owner"]]) {
      const { code, out, err } = t3("0.0.25", args);
      assert.deepEqual([code, err], [1, ""]);
      assert.match(out, /USAGE[^]*ERROR/);
    }
  });

  test("without --json two log lines come first", () => {
    const lines = t3("0.0.25", ["auth", "pairing", "create", "--base-dir", scratch()]).out.split("\n");
    assert.match(lines[0], /^\[\d\d:\d\d:\d\d\.\d{3}\] INFO \(#\d+\): Running all migrations\.\.\.$/);
    assert.match(lines[1], /Migrations ran successfully/);
    assert.match(lines[2], /^Issued client pairing token [\w-]+\.$/);
    assert.match(lines[4], /^Expires at: DateTime\.Utc\(.*Z\)$/);
  });
});

describe("serving (2, 3, 7)", () => {
  for (const version of GOOD) {
    test(`${version} makes its files, pairs, remembers sessions, and stops cleanly`, async () => {
      const base = scratch();
      let server = await serve(version, base, { waitFor: "Pairing URL" });
      const data = join(base, "userdata");
      const mode = (name) => (statSync(join(data, name)).mode & 0o777).toString(8);
      assert.deepEqual(["", "state.sqlite", "state.sqlite-wal", "environment-id", "secrets", "secrets/server-signing-key.bin"].map(mode),
        ["755", "644", "644", "644", "700", "600"]);
      assert.equal(existsSync(join(data, "secrets/cloud-link-ed25519-key-pair.bin")), version === "0.0.28");
      const runtime = JSON.parse(readFileSync(join(data, "server-runtime.json")));
      assert.deepEqual(Object.keys(runtime), ["version", "pid", "host", "port", "origin", "startedAt"]);
      assert.equal(runtime.pid, server.child.pid);

      const environment = await (await server.request("/.well-known/t3/environment")).json();
      assert.equal(environment.serverVersion, version);
      assert.equal(environment.environmentId, readFileSync(join(data, "environment-id"), "utf8"));
      for (const path of ["/", "/api/nope", "/health"]) assert.equal((await server.request(path)).status, 200);
      const nowhere = await server.post("/api/nope", {});
      assert.deepEqual([nowhere.status, await nowhere.text()], [404, ""]);
      const moved = await server.post(version === "0.0.24" ? "/api/auth/browser-session" : "/api/auth/bootstrap", { credential: "x" });
      assert.equal(moved.status, 404);

      const { credential } = create(version, base);
      const empty = await server.post(pairing(version), {});
      const emptyBody = version === "0.0.24" ? '{"error":"Invalid bootstrap payload."}' : "";
      assert.deepEqual([empty.status, await empty.text()], [400, emptyBody]);
      const good = await server.post(pairing(version), { credential }, { "user-agent": "a test" });
      assert.equal(good.status, 200);
      assert.match(good.headers.get("set-cookie"), /^t3_session=[\w-]+\.[\w-]+; Path=\/; Expires=[^;]+ GMT; HttpOnly; SameSite=Lax$/);
      const again = await server.post(pairing(version), { credential });
      const body = await again.json();
      assert.equal(again.status, 401);
      assert.equal(version === "0.0.24" ? body.error : body.reason, version === "0.0.24" ? "Invalid bootstrap credential." : "invalid_credential");
      const [session] = json(version, ["auth", "session", "list"], base);
      assert.deepEqual([session.subject, session.client.userAgent, session.client.ipAddress], ["one-time-token", "a test", "127.0.0.1"]);

      const cookie = cookieOf(good);
      assert.equal(await authenticated(server, cookie), true);
      assert.equal(await authenticated(server, `${cookie}x`), false);
      const token = json(version, ["auth", "session", "issue"], base).token;
      const snapshot = await server.request("/api/orchestration/snapshot", { headers: { authorization: `Bearer ${token}` } });
      assert.deepEqual(Object.keys(await snapshot.json()), ["snapshotSequence", "projects", "threads", "updatedAt"]);
      assert.match(server.log, new RegExp(`Token: ${query(base, "SELECT credential FROM auth_pairing_links ORDER BY created_at LIMIT 1")[0]}`));

      assert.equal(await server.stop(), 130);
      for (const gone of ["state.sqlite-wal", "state.sqlite-shm", "server-runtime.json"]) assert.equal(existsSync(join(data, gone)), false, gone);
      server = await serve(version, base);
      assert.equal(await authenticated(server, cookie), true);
      json(version, ["auth", "pairing", "list"], base);
      assert.equal(t3(version, ["auth", "session", "revoke", session.sessionId, "--base-dir", base]).code, 0);
      assert.equal(await authenticated(server, cookie), false);
      assert.equal(await server.stop("SIGHUP"), "SIGHUP");
      assert.ok(existsSync(join(data, "server-runtime.json")));
      server = await serve(version, base);
      assert.equal(await server.stop("SIGINT"), 130);
    });
  }

  test("a port in use ends it before there is a database", async () => {
    const first = await serve("0.0.25", scratch());
    const base = scratch();
    const second = await serve("0.0.25", base, { port: first.port });
    assert.equal(await second.exit, 1);
    assert.match(second.log, /ServeError[^]*EADDRINUSE/);
    assert.equal(existsSync(join(base, "userdata/state.sqlite")), false);
    await first.stop();
  });

  test("without pty.node it does not serve, but the commands work", () => {
    const served = t3("0.0.25", ["serve", "--base-dir", scratch()], { pty: false });
    assert.equal(served.code, 1);
    assert.match(served.out, /Failed to load native module: pty\.node/);
    assert.equal(t3("0.0.25", ["auth", "pairing", "create", "--base-dir", scratch()], { pty: false }).code, 0);
  });

  test("a corrupt database ends it, an empty one is taken for new, a locked one is not waited for", async () => {
    const base = scratch();
    mkdirSync(join(base, "userdata"));
    const file = join(base, "userdata/state.sqlite");
    writeFileSync(file, "no database ".repeat(1000));
    const corrupt = await serve("0.0.25", base);
    assert.equal(await corrupt.exit, 1);
    assert.match(corrupt.log, /SqlError: Failed to prepare statement[^]*file is not a database/);
    assert.equal(t3("0.0.25", ["auth", "pairing", "list", "--base-dir", base]).code, 1);
    writeFileSync(file, "");
    await (await serve("0.0.25", base)).stop();
    assert.equal(level(base), 31);
    const lock = new DatabaseSync(file);
    lock.exec("BEGIN IMMEDIATE");
    const locked = t3("0.0.25", ["auth", "pairing", "create", "--base-dir", base]);
    lock.close();
    assert.equal(locked.code, 1);
    assert.match(locked.out, /database is locked/);
  });

  test("the login shell is waited for", async () => {
    const home = scratch();
    writeFileSync(join(home, ".profile"), `sleep 1; touch ${home}/seen\n`);
    const server = await serve("0.0.25", scratch(), { env: { HOME: home } });
    assert.ok(existsSync(join(home, "seen")));
    await server.stop();
  });
});

describe("forwards and back (5, 6)", () => {
  test("0.0.24 to 0.0.25 and 0.0.28 loses links and sessions, and there is no way back but the old file", async () => {
    const base = scratch();
    let server = await serve("0.0.24", base);
    const cookie = await pair("0.0.24", server, base);
    const unused = create("0.0.24", base).credential;
    await server.stop();
    const before = readFileSync(join(base, "userdata/state.sqlite"));
    server = await serve("0.0.28", base);
    assert.match(server.log, /31_AuthAuthorizationScopes.*32_AuthPairingProofKeyThumbprint/);
    assert.equal(await authenticated(server, cookie), false);
    assert.equal((await server.post(pairing("0.0.28"), { credential: unused })).status, 401);
    const newer = await pair("0.0.28", server, base);
    await server.stop();

    server = await serve("0.0.24", base);
    assert.equal((await server.request("/.well-known/t3/environment")).status, 200);
    const refused = await server.post(pairing("0.0.24"), { credential: unused });
    assert.deepEqual([refused.status, await refused.json()], [500, { error: "Failed to validate bootstrap credential." }]);
    assert.equal(await authenticated(server, newer), false);
    assert.match(server.log, /migrations: \[\][^]*ignoring invalid keybinding entry[^]*auth route failed|ignoring invalid keybinding entry[^]*migrations: \[\][^]*auth route failed/);
    assert.doesNotMatch(server.log, /ready|Token/);
    const old = t3("0.0.24", ["auth", "pairing", "create", "--json", "--base-dir", base]);
    assert.equal(old.code, 1);
    assert.match(old.out, /AuthControlPlaneError: Failed to create pairing link\.[^]*table auth_pairing_links has no column named role/);
    assert.match(t3("0.0.24", ["auth", "pairing", "list", "--base-dir", base]).out, /no such column: role/);
    await server.stop();

    writeFileSync(join(base, "userdata/state.sqlite"), before);
    server = await serve("0.0.24", base);
    assert.equal(await authenticated(server, cookie), true);
    assert.equal((await server.post(pairing("0.0.24"), { credential: unused })).status, 200);
    await server.stop();
  });

  test("0.0.25 to 0.0.28 and back keeps everything", async () => {
    const base = scratch();
    let server = await serve("0.0.25", base);
    const cookie = await pair("0.0.25", server, base);
    const unused = create("0.0.25", base).credential;
    await server.stop();
    server = await serve("0.0.28", base);
    assert.equal(await authenticated(server, cookie), true);
    assert.equal((await server.post(pairing("0.0.28"), { credential: unused })).status, 200);
    await server.stop();
    server = await serve("0.0.25", base, { waitFor: "Token:" });
    assert.equal(await authenticated(server, cookie), true);
    await pair("0.0.25", server, base);
    await server.stop();
  });

  test("a newer command moves the database under a live older server", async () => {
    const base = scratch();
    const server = await serve("0.0.24", base);
    const cookie = await pair("0.0.24", server, base);
    json("0.0.25", ["auth", "pairing", "list"], base);
    assert.equal(level(base), 31);
    assert.equal(await authenticated(server, cookie), false);
    const answer = await server.post(pairing("0.0.24"), { credential: create("0.0.25", base).credential });
    assert.equal(answer.status, 500);
    assert.equal((await server.request("/")).status, 200);
    await server.stop();
  });
});

describe("what the tests order", () => {
  test("seeding and turns", async () => {
    const base = scratch();
    const server = await serve("0.0.24", base);
    seed(base, "--threads", "3", "--turns", "2", "--megabytes", "1", "--session", "2", "--busy", "b", "--pending-approval", "--last-activity", "-10m");
    const busy = "SELECT count(*) FROM projection_thread_sessions WHERE active_turn_id IS NOT NULL";
    assert.deepEqual([query(base, "SELECT count(*) FROM projection_threads")[0], query(base, busy)[0]], [4, 1]);
    const newest = Date.parse(query(base, "SELECT max(updated_at) FROM projection_threads")[0]);
    assert.ok(Math.abs(Date.now() - newest - 600_000) < 60_000);
    assert.equal(json("0.0.24", ["auth", "session", "list"], base).length, 2);
    seed(base, "--idle");
    assert.deepEqual([query(base, busy)[0], query(base, "SELECT sum(pending_approval_count) FROM projection_threads")[0]], [0, 0]);
    assert.equal((await server.post("/standin/turn", { thread: "t", state: "start" })).status, 200);
    assert.equal(query(base, busy)[0], 1);
    assert.equal((await server.post("/standin/turn", { thread: "t", state: "end" })).status, 200);
    assert.equal(query(base, busy)[0], 0);
    const { pid } = await (await server.post("/standin/terminal", { command: "sleep 30" })).json();
    assert.match(readFileSync(`/proc/${pid}/stat`, "utf8"), new RegExp(` ${server.child.pid} `));
    await server.stop();
  });

  const order = (fault) => releases.find(({ faults }) => faults.includes(fault)).version;

  test("servers that do not come up or do not stay", async () => {
    const crash = await serve(order("crash-at-start"), scratch());
    assert.equal(await crash.exit, 1);
    const loop = await serve(order("crash-loop"), scratch());
    assert.equal((await loop.request("/")).status, 200);
    assert.equal(await loop.exit, 1);
    const later = await serve(order("breaks-later"), scratch(), { waitFor: "Token" });
    await until(() => later.request("/").then(() => false, () => true));
    assert.equal(later.child.exitCode, null);
    assert.equal(await later.stop(), 130);
    const deaf = await serve(order("ignores-sigterm"), scratch());
    deaf.child.kill("SIGTERM");
    await until(() => deaf.log.includes("ignored as ordered"));
    assert.equal(await deaf.stop("SIGKILL"), "SIGKILL");
  });

  test("servers that cannot be paired with, or say the wrong thing", async () => {
    const status = async (version, env, path = "/api/auth/browser-session") => {
      const base = scratch();
      const server = await serve(version, base, { env });
      const answer = await server.post(path, { credential: create(version, base).credential });
      const { serverVersion } = await (await server.request("/.well-known/t3/environment")).json();
      await server.stop();
      return [answer.status, serverVersion];
    };
    assert.deepEqual(await status(order("root-only")), [500, order("root-only")]);
    const moved = order("pairing-moved");
    assert.deepEqual(await status(moved), [404, moved]);
    assert.deepEqual(await status(moved, {}, "/api/auth/bootstrap"), [404, moved]);
    assert.deepEqual(await status(moved, {}, "/api/auth/exchange-v3"), [200, moved]);
    const live = order("live-only");
    assert.deepEqual(await status(live), [200, live]);
    assert.deepEqual(await status(live, { T3_STANDIN_LIVE_FAULT: "1" }), [500, live]);
    assert.deepEqual(await status(order("wrong-version")), [200, "0.0.1"]);
  });

  test("migrations that take long, wipe or corrupt", async () => {
    const on = async (fault, env) => {
      const base = scratch();
      create("0.0.28", base);
      seed(base, "--threads", "3", "--turns", "2");
      const server = await serve(order(fault), base, { env, waitFor: "Running all" });
      let wal = 0;
      await until(() => {
        if (existsSync(join(base, "userdata/state.sqlite-wal"))) wal = Math.max(wal, statSync(join(base, "userdata/state.sqlite-wal")).size);
        return server.log.includes("Token");
      });
      await pair("0.0.28", server, base);
      await server.stop();
      return { base, wal };
    };
    const slow = await on("slow-migration", { T3_STANDIN_MIGRATION_MS: "1200" });
    assert.ok(slow.wal > 600_000, `${slow.wal}`);
    assert.equal(query(slow.base, "SELECT count(*) FROM projection_threads")[0], 3);
    const wiped = await on("migration-wipes");
    assert.equal(query(wiped.base, "SELECT count(*) FROM projection_threads")[0], 0);
    assert.equal(query(wiped.base, "PRAGMA quick_check")[0], "ok");
    const corrupt = await on("migration-corrupts");
    assert.throws(() => query(corrupt.base, "PRAGMA quick_check"), /malformed/);
    assert.equal(query(corrupt.base, "SELECT count(*) FROM projection_threads")[0], 3);
  });

  test("what holds the database, forks, or talks without end", async () => {
    const base = scratch();
    const keeps = await serve(order("keeps-db-open"), base);
    const holders = () => readdirSync("/proc").filter((pid) => /^\d+$/.test(pid) && holds(pid, base));
    await until(() => holders().length === 2);
    assert.equal(await keeps.stop(), 130);
    const [holder] = holders();
    process.kill(Number(holder), "SIGKILL");

    const forks = await serve(order("forks"), scratch(), { env: { T3_STANDIN_FORKS: "40" } });
    const children = () => readFileSync(`/proc/${forks.child.pid}/task/${forks.child.pid}/children`, "utf8").trim().split(/\s+/).filter(Boolean);
    await until(() => children().length === 40);
    for (const child of children()) process.kill(Number(child));
    await forks.stop();

    const talk = [process.execPath, install(order("endless-output")), "auth", "pairing", "create", "--json", "--base-dir", scratch()];
    assert.equal(execFileSync("sh", ["-c", '"$@" | head -c 10000000 | wc -c', "sh", ...talk], { encoding: "utf8" }).trim(), "10000000");
  });

  test("what fills the disk or eats memory", async () => {
    const [base, size] = [scratch(), "16"];
    const fills = await serve(order("fills-disk"), base, { env: { T3_STANDIN_FILL_MB: size } });
    const mine = (place) => readdirSync(place).filter((name) => name.startsWith(`standin-fills-${fills.child.pid}-`)).map((name) => join(place, name));
    for (const place of ["/tmp", "/var/tmp", "/dev/shm", join(base, "userdata")]) {
      const times = place.startsWith(base) ? 4 : 1;
      assert.equal(mine(place).reduce((sum, file) => sum + statSync(file).size, 0), times * (Number(size) << 20), place);
      for (const file of mine(place)) rmSync(file);
    }
    assert.equal(await fills.stop(), 130);

    const eats = await serve(order("eats-memory"), scratch(), { env: { T3_STANDIN_EATS_MB: "256" } });
    const [, kilobytes] = readFileSync(`/proc/${eats.child.pid}/status`, "utf8").match(/VmRSS:\s+(\d+) kB/);
    assert.ok(Number(kilobytes) > 256 * 1024, kilobytes);
    assert.equal(await eats.stop(), 130);
  });

  test("one that never listens", async () => {
    const server = await serve(order("hang"), scratch(), { waitFor: "" });
    await sleep(700);
    await assert.rejects(server.request("/"));
    assert.equal(server.child.exitCode, null);
    assert.equal(await server.stop(), 130);
  });

  test("packing gives the same bytes, and a release that fails to install", () => {
    const again = scratch();
    execFileSync(join(import.meta.dirname, "pack"), [again]);
    assert.equal(readdirSync(again).length, releases.length + 1);
    for (const name of readdirSync(again)) assert.ok(readFileSync(join(again, name)).equals(readFileSync(join(packed, name))), name);
    const { scripts } = JSON.parse(readFileSync(join(install(order("fails-to-install")), "../../package.json")));
    assert.match(scripts.install, /fails to install as ordered.*exit 1/);
    rmSync(again, { recursive: true });
  });
});

function holds(pid, base) {
  try {
    return execFileSync("sh", ["-c", `readlink /proc/${pid}/fd/*`], { encoding: "utf8", stdio: "pipe" }).includes(join(base, "userdata/state.sqlite\n"));
  } catch (problem) {
    return String(problem.stdout ?? "").includes(join(base, "userdata/state.sqlite\n"));
  }
}
