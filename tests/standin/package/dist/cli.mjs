// The commands. All but `serve` open the database themselves: no server is needed, none is asked.

import * as auth from "./auth.mjs";
import { openDatabase } from "./database.mjs";
import { endlessOutput } from "./faults.mjs";
import { places, prepare, signingKey } from "./files.mjs";
import { parse } from "./flags.mjs";
import { failure, named, onlyErrors, print } from "./log.mjs";
import { hasScopes } from "./release.mjs";

/** Runs the command line `words`. */
export async function main(words) {
  const { command, flags, rest } = parse(words);
  if (["", "start", "serve"].includes(command)) {
    const { serve } = await import("./serve.mjs");
    return serve(flags);
  }
  if (command === "connect") {
    print("T3 Connect is unavailable in builds without public configuration.");
    process.exit(1);
  }
  if (flags.json || flags["token-only"]) onlyErrors();
  try {
    const at = places(flags);
    prepare(at);
    const database = await openDatabase(at.database);
    try {
      COMMANDS[command](database, flags, rest[0], at);
    } finally {
      database.close();
    }
  } catch (problem) {
    failure(problem);
    process.exitCode = 1;
  }
}

const COMMANDS = {
  "auth pairing create": (database, flags) => {
    endlessOutput();
    const link = attempt("Failed to create pairing link.", () => auth.createLink(database, flags));
    const pairUrl = flags["base-url"] && `${flags["base-url"].replace(/\/+$/, "")}/pair#token=${link.credential}`;
    if (flags.json) return print(JSON.stringify({ ...link, ...(pairUrl && { pairUrl }) }));
    print(`Issued client pairing token ${link.id}.\nToken: ${link.credential}`);
    if (pairUrl) print(`Pair URL: ${pairUrl}`);
    return print(`Expires at: DateTime.Utc(${link.expiresAt})`);
  },
  "auth pairing list": (database, flags) => {
    const links = attempt("Failed to list pairing links.", () => auth.listLinks(database));
    if (flags.json) return print(JSON.stringify(links));
    const lines = links.map((link) => `${link.id}${link.label ? ` (${link.label})` : ""} expires ${link.expiresAt}`);
    return print(lines.join("\n") || "No active pairing credentials.");
  },
  "auth pairing revoke": (database, _flags, id) => {
    const found = attempt("Failed to revoke pairing link.", () => auth.revokeLink(database, id));
    print(found ? `Revoked pairing credential ${id}.` : `No active pairing credential found for ${id}.`);
  },
  "auth session issue": (database, flags, _rest, at) => {
    const { token, ...session } = attempt("Failed to issue session token.", () =>
      auth.createSession(database, signingKey(at), {
        rights: hasScopes ? auth.ownerRights : (flags.role ?? "owner"),
        subject: flags.subject ?? "cli-issued-session",
        method: auth.bearerMethod,
        ttl: flags.ttl,
        client: { label: flags.label ?? "t3-cli", deviceType: "bot" },
      }));
    const { sessionId, method, subject, expiresAt, ...rights } = session;
    const client = { label: flags.label ?? "t3-cli", deviceType: "bot" };
    if (flags["token-only"]) return print(token);
    if (flags.json) return print(JSON.stringify({ sessionId, token, method, ...rights, subject, client, expiresAt }));
    return print(`Issued session ${sessionId}.\nToken: ${token}\nExpires at: DateTime.Utc(${expiresAt})`);
  },
  "auth session list": (database, flags) => {
    const sessions = attempt("Failed to list sessions.", () => auth.listSessions(database));
    if (flags.json) return print(JSON.stringify(sessions));
    return print(sessions.map((session) => `${session.sessionId} ${session.subject} expires ${session.expiresAt}`).join("\n") || "No active sessions.");
  },
  "auth session revoke": (database, _flags, id) => {
    const found = attempt("Failed to revoke session.", () => auth.revokeSession(database, id));
    print(found ? `Revoked session ${id}.` : `No active session found for ${id}.`);
  },
  "project list": (database, flags) => {
    const projects = database.all("SELECT project_id AS id, title FROM projection_projects WHERE deleted_at IS NULL");
    print(flags.json ? JSON.stringify(projects) : projects.map(({ id, title }) => `${id} ${title}`).join("\n") || "No projects.");
  },
};

function attempt(message, work) {
  try {
    return work();
  } catch (cause) {
    throw named("AuthControlPlaneError", message, cause);
  }
}
