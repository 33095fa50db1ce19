// Pairing links and sessions: rows of auth_pairing_links and auth_sessions. Up to 0.0.24 they carry a role, later scopes;
// a binary of one kind fails with SQLite's own words on the tables of the other (contract, section 5).

import { randomUUID } from "node:crypto";

import { hasScopes } from "./release.mjs";
import { credential, sign, verify } from "./tokens.mjs";

const RIGHTS = hasScopes ? "scopes" : "role";
const CLIENT = ["orchestration:read", "orchestration:operate", "terminal:operate", "review:write", "relay:read"];
const OWNER = [...CLIENT, "access:read", "access:write", "relay:write"];

/** What a paired client may do, and what an owner may, in this release's words. */
export const clientRights = hasScopes ? CLIENT : "client";
export const ownerRights = hasScopes ? OWNER : "owner";

export const bearerMethod = hasScopes ? "bearer-access-token" : "bearer-session-token";
export const cookieMethod = "browser-session-cookie";

/** The subject of the link that `serve` prints: in the table, but never listed. */
const STARTUP = "owner-bootstrap";
const PAIRED = "one-time-token";

const MONTH = 30 * 864e5;
const write = (rights) => (hasScopes ? JSON.stringify(rights) : rights);
const read = (row) => ({ [RIGHTS]: hasScopes ? JSON.parse(row[RIGHTS]) : row[RIGHTS] });
const iso = (ms) => new Date(ms).toISOString();

/** Makes a pairing link. */
export function createLink(database, { ttl = 5 * 6e4, label, startup = false } = {}) {
  const rights = startup ? ownerRights : clientRights;
  const now = Date.now();
  const link = { id: randomUUID(), credential: credential(), ...(label && { label }), [RIGHTS]: rights, expiresAt: iso(now + ttl) };
  database.run(
    `INSERT INTO auth_pairing_links (id, credential, method, ${RIGHTS}, subject, label, created_at, expires_at)
     VALUES (?, ?, 'one-time-token', ?, ?, ?, ?, ?)`,
    link.id, link.credential, write(rights), startup ? STARTUP : PAIRED, label ?? null, iso(now), link.expiresAt,
  );
  return link;
}

/** Links that can still be used, newest first. */
export function listLinks(database) {
  const rows = database.all(
    `SELECT id, label, ${RIGHTS}, created_at, expires_at FROM auth_pairing_links
     WHERE consumed_at IS NULL AND revoked_at IS NULL AND expires_at > ? AND subject <> ? ORDER BY created_at DESC, rowid DESC`,
    iso(Date.now()), STARTUP,
  );
  return rows.map((row) => ({
    id: row.id, ...(row.label && { label: row.label }), ...read(row), createdAt: row.created_at, expiresAt: row.expires_at,
  }));
}

/** Whether there was such a link to revoke. */
export function revokeLink(database, id) {
  const sql = "UPDATE auth_pairing_links SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL AND consumed_at IS NULL";
  return database.run(sql, iso(Date.now()), id).changes > 0;
}

/** Uses a credential up. Its link's rights and subject, or nothing when it is wrong, expired or used. */
export function consume(database, text) {
  const now = iso(Date.now());
  const row = database.get(
    `UPDATE auth_pairing_links SET consumed_at = ? WHERE credential = ? AND consumed_at IS NULL AND revoked_at IS NULL AND expires_at > ?
     RETURNING ${RIGHTS}, subject, label`,
    now, text, now,
  );
  return row && { rights: read(row)[RIGHTS], subject: row.subject, label: row.label };
}

/** Makes a session and the signed token for it. */
export function createSession(database, key, { rights, subject, method, ttl = MONTH, client }) {
  const now = Date.now();
  const session = { sessionId: randomUUID(), method, [RIGHTS]: rights, subject, expiresAt: iso(now + ttl) };
  database.run(
    `INSERT INTO auth_sessions (session_id, subject, ${RIGHTS}, method, client_label, client_ip_address, client_user_agent,
       client_device_type, issued_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    session.sessionId, subject, write(rights), method, client.label ?? null, client.ipAddress ?? null, client.userAgent ?? null,
    client.deviceType, iso(now), session.expiresAt,
  );
  const token = sign(key, { v: 1, kind: "session", sid: session.sessionId, sub: subject, method, iat: now, exp: now + ttl });
  return { ...session, token };
}

/** The session that a cookie or bearer stands for, if it is valid now. Throws what the database throws. */
export function findSession(database, key, token) {
  const payload = verify(key, token);
  if (!payload || !(payload.exp > Date.now())) return undefined;
  const row = database.get(
    `SELECT ${RIGHTS}, method, expires_at FROM auth_sessions WHERE session_id = ? AND revoked_at IS NULL AND expires_at > ?`,
    String(payload.sid), iso(Date.now()),
  );
  return row && { ...read(row), sessionMethod: row.method, expiresAt: row.expires_at };
}

/** Sessions that are valid, newest first. Only a server knows who is connected. */
export function listSessions(database) {
  const rows = database.all(
    `SELECT * FROM (SELECT rowid AS at, session_id, ${RIGHTS}, subject, method, client_label, client_ip_address, client_user_agent, client_device_type,
       issued_at, expires_at, last_connected_at FROM auth_sessions WHERE revoked_at IS NULL AND expires_at > ?) ORDER BY issued_at DESC, at DESC`,
    iso(Date.now()),
  );
  return rows.map((row) => ({
    sessionId: row.session_id,
    method: row.method,
    ...read(row),
    subject: row.subject,
    client: {
      ...(row.client_label && { label: row.client_label }),
      ...(row.client_ip_address && { ipAddress: row.client_ip_address }),
      ...(row.client_user_agent && { userAgent: row.client_user_agent }),
      deviceType: row.client_device_type,
    },
    connected: false,
    issuedAt: row.issued_at,
    expiresAt: row.expires_at,
    lastConnectedAt: row.last_connected_at,
  }));
}

/** Whether there was such a session to revoke. */
export function revokeSession(database, id) {
  const sql = "UPDATE auth_sessions SET revoked_at = ? WHERE session_id = ? AND revoked_at IS NULL";
  return database.run(sql, iso(Date.now()), id).changes > 0;
}
