// Which release this is: the package's own version decides what the program does.

import { readFileSync } from "node:fs";

const description = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));

export const version = description.version;

const number = (text) => text.split("-")[0].split(".").map(Number);

/** Whether this release is `wanted` or newer. */
export function atLeast(wanted) {
  const [mine, theirs] = [number(version), number(wanted)];
  const at = mine.findIndex((part, index) => part !== theirs[index]);
  return at < 0 || mine[at] > theirs[at];
}

/** Whether this release was ordered to have the fault `name`. */
export const hasFault = (name) => (description.t3Faults ?? []).includes(name);

/** The highest migration of the good releases (contract, section 4). */
export const level = atLeast("0.0.26") ? 32 : atLeast("0.0.25") ? 31 : 30;

/** Roles became scopes, and the pairing endpoint moved, in 0.0.25. */
export const hasScopes = atLeast("0.0.25");
