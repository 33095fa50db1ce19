// Identifiers, credentials, signed tokens.

import { createHmac, randomBytes, randomInt, timingSafeEqual } from "node:crypto";

const LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/** A pairing credential: 12 characters that can be read aloud. */
export const credential = () => Array.from({ length: 12 }, () => LETTERS[randomInt(LETTERS.length)]).join("");

export const traceId = () => randomBytes(16).toString("hex");

const mac = (key, text) => createHmac("sha256", key).update(text).digest();

/** `<b64url payload>.<b64url HMAC>`, for cookies and bearers alike. */
export function sign(key, payload) {
  const body = Buffer.from(JSON.stringify(payload)).toString("base64url");
  return `${body}.${mac(key, body).toString("base64url")}`;
}

/** The payload of a token that this key signed, else nothing. */
export function verify(key, token) {
  const [body, signature, more] = token.split(".");
  if (!body || !signature || more !== undefined) return undefined;
  const given = Buffer.from(signature, "base64url");
  const right = mac(key, body);
  if (given.length !== right.length || !timingSafeEqual(given, right)) return undefined;
  try {
    return JSON.parse(Buffer.from(body, "base64url").toString());
  } catch {
    return undefined;
  }
}
