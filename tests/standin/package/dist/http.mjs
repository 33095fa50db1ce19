// What the server answers (contract, section 3).

import { hostname } from "node:os";

import * as auth from "./auth.mjs";
import { breaksPairing } from "./faults.mjs";
import { error, warn } from "./log.mjs";
import { atLeast, hasFault, hasScopes, version } from "./release.mjs";
import { spawnTerminal, turn } from "./turns.mjs";
import { traceId } from "./tokens.mjs";

const INDEX = "<!doctype html><html><head><title>T3 Code</title></head><body><div id=\"root\"></div></body></html>\n";
const BODY_LIMIT = 1 << 20;
const SCHEMA_TOO_NEW = "Failed to validate bootstrap credential.";

/** The request handler of a server: `site` is {database, key, environmentId, host, port, cookie}. */
export function handler(site) {
  return (request, response) => {
    answer(site, request, response).catch((problem) => {
      error(`http request failed ${problem.message}`, 7);
      if (!response.headersSent) send(response, 500, undefined);
    });
  };
}

async function answer(site, request, response) {
  const path = new URL(request.url, "http://localhost").pathname;
  const body = await read(request);
  if (request.method === "POST") return post(site, path, body, request, response);
  if (request.method !== "GET" && request.method !== "HEAD") return send(response, 404, undefined);
  if (hasFault("root-only") && path.startsWith("/api/")) return send(response, 500, undefined);
  if (path === "/.well-known/t3/environment") return send(response, 200, descriptor(site));
  if (path === "/api/auth/session") return send(response, 200, state(site, request));
  if (path === "/api/orchestration/snapshot") {
    if (!session(site, request)) return send(response, 401, refusal("missing_credential", "Authentication required."));
    return send(response, 200, snapshot(site.database));
  }
  response.writeHead(200, { "content-type": "text/html; charset=utf-8" });
  return response.end(request.method === "HEAD" ? undefined : INDEX);
}

async function post(site, path, body, request, response) {
  const moved = hasFault("pairing-moved");
  const pairing = moved ? "/api/auth/exchange-v3" : hasScopes ? "/api/auth/browser-session" : "/api/auth/bootstrap";
  if (path === pairing) return pair(site, body, request, response);
  if (path === "/standin/turn" || path === "/standin/terminal") {
    const work = path === "/standin/turn" ? turn : spawnTerminal;
    return send(response, 200, work(site.database, JSON.parse(body || "{}")));
  }
  return send(response, 404, undefined);
}

function descriptor(site) {
  return {
    environmentId: site.environmentId,
    label: hostname(),
    platform: { os: process.platform, arch: process.arch },
    serverVersion: hasFault("wrong-version") ? "0.0.1" : version,
    capabilities: { repositoryIdentity: true, ...(atLeast("0.0.29") && !atLeast("0.0.90") && { connectionProbe: true }) },
  };
}

function state(site, request) {
  const found = session(site, request);
  const sessionMethods = [auth.cookieMethod, auth.bearerMethod, ...(atLeast("0.0.27") ? ["dpop-access-token"] : [])];
  const loopback = ["127.0.0.1", "localhost", "::1"].includes(site.host);
  return {
    authenticated: Boolean(found),
    auth: {
      policy: loopback ? "loopback-browser" : "remote-reachable",
      bootstrapMethods: ["one-time-token"],
      sessionMethods,
      sessionCookieName: site.cookie,
    },
    ...found,
  };
}

/** The valid session of a request, by cookie or bearer. */
function session(site, request) {
  const pairs = (request.headers.cookie ?? "").split(";").map((pair) => pair.trim());
  const cookie = pairs.find((pair) => pair.startsWith(`${site.cookie}=`))?.slice(site.cookie.length + 1);
  const bearer = /^Bearer (.+)$/i.exec(request.headers.authorization ?? "")?.[1];
  for (const token of [cookie, bearer]) {
    if (!token) continue;
    try {
      const found = auth.findSession(site.database, site.key, token);
      if (found) return found;
    } catch (problem) {
      warn(`Failed to verify session credential. ${problem.message}`, 7);
    }
  }
  return undefined;
}

function pair(site, body, request, response) {
  let credential;
  try {
    credential = JSON.parse(body)?.credential;
  } catch {
    // Answered below, like every other body without a credential.
  }
  if (typeof credential !== "string" || credential === "") {
    return send(response, 400, hasScopes ? undefined : { error: "Invalid bootstrap payload." });
  }
  if (breaksPairing()) return send(response, 500, undefined);
  let made;
  try {
    const link = auth.consume(site.database, credential.trim());
    if (!link) return send(response, 401, refusal("invalid_credential", "Invalid bootstrap credential."));
    const { rights, subject, label } = link;
    made = auth.createSession(site.database, site.key, { rights, subject, method: auth.cookieMethod, client: client(request, label) });
  } catch (problem) {
    error(`auth route failed ${SCHEMA_TOO_NEW} PersistenceSqlError AuthPairingLinkRepository.consumeAvailable:query ${problem.message}`, 7);
    return send(response, 500, hasScopes ? { _tag: "EnvironmentInternalError", code: "internal_error", traceId: traceId() } : { error: SCHEMA_TOO_NEW });
  }
  const expires = new Date(made.expiresAt).toUTCString();
  const rights = hasScopes ? { scopes: made.scopes } : { role: made.role };
  return send(
    response,
    200,
    { authenticated: true, ...rights, sessionMethod: auth.cookieMethod, expiresAt: made.expiresAt },
    {
      "set-cookie": `${site.cookie}=${made.token}; Path=/; Expires=${expires}; HttpOnly; SameSite=Lax`,
      ...(atLeast("0.0.27") && { "cache-control": "no-store" }),
    },
  );
}

/** What is noted of a client: its address and its own words. */
function client(request, label) {
  const userAgent = request.headers["user-agent"];
  const deviceType = /mobile|android|iphone/i.test(userAgent) ? "mobile" : /mozilla/i.test(userAgent) ? "desktop" : "unknown";
  return { label, ipAddress: request.socket.remoteAddress?.replace(/^::ffff:/, ""), userAgent, deviceType };
}

function refusal(reason, message) {
  if (!hasScopes) return { error: message };
  return { _tag: "EnvironmentAuthInvalidError", code: "auth_invalid", reason, traceId: traceId() };
}

function snapshot(database) {
  const rows = (table) => database.all(`SELECT * FROM ${table} WHERE deleted_at IS NULL ORDER BY created_at LIMIT 1000`);
  return {
    snapshotSequence: database.get("SELECT coalesce(max(sequence), 0) AS last FROM orchestration_events").last,
    projects: rows("projection_projects"),
    threads: rows("projection_threads"),
    updatedAt: new Date().toISOString(),
  };
}

async function read(request) {
  const pieces = [];
  let size = 0;
  for await (const piece of request) {
    size += piece.length;
    if (size <= BODY_LIMIT) pieces.push(piece);
  }
  return Buffer.concat(pieces).toString();
}

function send(response, status, body, headers = {}) {
  const json = body && { "content-type": "application/json" };
  response.writeHead(status, { ...json, ...headers });
  response.end(body && JSON.stringify(body));
}
