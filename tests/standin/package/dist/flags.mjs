// The command line: commands, their flags, help.

import { print } from "./log.mjs";
import { atLeast, hasScopes, version } from "./release.mjs";

const BASE = { "base-dir": "text", "dev-url": "text" };
const SERVE = {
  mode: ["web", "desktop"],
  port: "port",
  host: "text",
  ...BASE,
  "no-browser": "switch",
  "bootstrap-fd": "number",
  "auto-bootstrap-project-from-cwd": "switch",
  "log-websocket-events": "switch",
  "log-ws-events": "switch",
  "tailscale-serve": "switch",
  "tailscale-serve-port": "port",
};
const GLOBAL = { help: "switch", version: "switch", completions: "text", "log-level": "text" };

/** Every command that runs, its flags, and how many positional arguments it needs and takes. */
const COMMANDS = {
  "": { flags: SERVE, takes: [0, 1] },
  start: { flags: SERVE, takes: [0, 1] },
  serve: { flags: SERVE, takes: [0, 1] },
  "auth pairing create": { flags: { ...BASE, json: "switch", ttl: "duration", label: "text", "base-url": "text" }, takes: [0, 0] },
  "auth pairing list": { flags: { ...BASE, json: "switch" }, takes: [0, 0] },
  "auth pairing revoke": { flags: BASE, takes: [1, 1] },
  "auth session issue": {
    flags: {
      ...BASE,
      json: "switch",
      ttl: "duration",
      label: "text",
      subject: "text",
      "token-only": "switch",
      ...(hasScopes ? {} : { role: ["owner", "client"] }),
    },
    takes: [0, 0],
  },
  "auth session list": { flags: { ...BASE, json: "switch" }, takes: [0, 0] },
  "auth session revoke": { flags: BASE, takes: [1, 1] },
  "project list": { flags: { ...BASE, json: "switch" }, takes: [0, 0] },
  ...(atLeast("0.0.28") ? { connect: { flags: {}, takes: [0, 9] } } : {}),
};

const UNITS = { ms: 1, millis: 1, s: 1e3, second: 1e3, m: 6e4, minute: 6e4, h: 36e5, hour: 36e5, d: 864e5, day: 864e5, w: 6048e5, week: 6048e5 };

function duration(text) {
  const [, amount, unit] = /^(\d+)\s*([a-z]+)$/.exec(text.trim()) ?? [];
  const factor = UNITS[unit] ?? UNITS[unit?.replace(/s$/, "")];
  return factor && Number(amount) > 0 ? Number(amount) * factor : undefined;
}

function value(kind, text) {
  if (Array.isArray(kind)) return kind.includes(text) ? text : undefined;
  if (kind === "duration") return duration(text);
  if (kind === "port") return /^\d{1,5}$/.test(text) && Number(text) < 65536 ? Number(text) : undefined;
  if (kind === "number") return /^\d+$/.test(text) ? Number(text) : undefined;
  return text;
}

/** Help on stdout, the way t3 answers `--help` and everything that it does not understand. */
export function help(command) {
  const known = Object.keys(COMMANDS).filter((name) => name && name.startsWith(command) && name !== command);
  const flags = { ...COMMANDS[command]?.flags, ...GLOBAL };
  print(`t3 v${version}\n\nUSAGE\n  t3${command && ` ${command}`}${known.length ? " <subcommand>" : ""} [flags]`);
  if (known.length) print(`\nSUBCOMMANDS\n${known.map((name) => `  ${name}`).join("\n")}`);
  print(`\nFLAGS\n${Object.keys(flags).map((name) => `  --${name}`).join("\n")}`);
}

function refuse(command, message) {
  help(command);
  print(`\nERROR\n  ${message}`);
  process.exit(1);
}

/** Takes a command line apart: `{command, flags, rest}`. Ends the process where it is none. */
export function parse(words) {
  const left = [...words];
  let command = "";
  while (left.length && Object.keys(COMMANDS).some((name) => name === `${command} ${left[0]}`.trim() || name.startsWith(`${command} ${left[0]} `.trimStart()))) {
    command = `${command} ${left.shift()}`.trim();
  }
  const known = { ...COMMANDS[command]?.flags, ...GLOBAL };
  const short = { "-h": "--help", ...(atLeast("0.0.28") ? { "-v": "--version" } : {}) };
  const flags = {};
  const rest = [];
  while (left.length) {
    const word = short[left[0]] ?? left[0];
    left.shift();
    if (!word.startsWith("-")) {
      rest.push(word);
      continue;
    }
    const [, name, given] = /^--([^=]+)(?:=(.*))?$/s.exec(word) ?? [];
    const kind = Object.hasOwn(known, name ?? "") ? known[name] : undefined;
    if (!kind) refuse(command, `Unrecognized flag: ${word} in command t3 ${command}`.trimEnd());
    if (kind === "switch") {
      flags[name] = given !== "false";
      continue;
    }
    const text = given ?? left.shift();
    const read = text === undefined ? undefined : value(kind, text);
    if (read === undefined) refuse(command, `Invalid value for flag --${name}: ${JSON.stringify(text ?? "")}`);
    flags[name] = read;
  }
  if (flags.version) {
    print(`t3 v${version}`);
    process.exit(0);
  }
  if (flags.help) {
    help(command);
    process.exit(0);
  }
  if (!COMMANDS[command]) refuse(command, rest.length ? `Unknown subcommand "${rest[0]}" for "t3 ${command}"` : "Missing subcommand");
  const [least, most] = COMMANDS[command].takes;
  if (rest.length < least) refuse(command, "Missing required argument");
  if (rest.length > most) refuse(command, `Unknown argument: ${rest[most]}`);
  return { command, flags, rest };
}
