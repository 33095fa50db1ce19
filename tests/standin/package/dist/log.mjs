// Log lines as t3 writes them: on stdout, errors too.

import { writeSync } from "node:fs";

let quiet = false;

/** With --json stdout is pure JSON: only errors are still said. */
export function onlyErrors() {
  quiet = true;
}

/** Writes text to stdout at once, so that nothing is lost when the process exits right after. False when nobody reads. */
export function print(text) {
  let rest = Buffer.from(`${text}\n`);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(1, rest));
    } catch (error) {
      if (error.code === "EAGAIN") continue;
      if (error.code === "EPIPE") return false;
      throw error;
    }
  }
  return true;
}

function line(grade, message, fiber) {
  const now = new Date();
  const time = [now.getHours(), now.getMinutes(), now.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
  print(`[${time}.${String(now.getMilliseconds()).padStart(3, "0")}] ${grade} (#${fiber}): ${message}`);
}

export const info = (message, fiber = 1) => quiet || line("INFO", message, fiber);
export const warn = (message, fiber = 1) => quiet || line("WARN", message, fiber);
export const error = (message, fiber = 1) => line("ERROR", message, fiber);

/** An error and its causes, the way Effect shows them. */
export function failure(problem, fiber = 1) {
  let text = `${problem.name}: ${problem.message}`;
  for (let cause = problem.cause; cause; cause = cause.cause) {
    text += `\n  [cause]: ${cause.name}: ${cause.message}`;
  }
  error(text, fiber);
}

/** An error with one of t3's names. */
export function named(name, message, cause) {
  const problem = new Error(message, { cause });
  problem.name = name;
  return problem;
}
