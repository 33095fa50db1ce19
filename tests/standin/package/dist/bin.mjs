#!/usr/bin/env node
// Entry point. node:sqlite warns on stderr that it is experimental; t3's stderr stays empty.

const emitWarning = process.emitWarning;
process.emitWarning = (warning, ...rest) => {
  if (rest[0] !== "ExperimentalWarning" && rest[0]?.type !== "ExperimentalWarning") emitWarning.call(process, warning, ...rest);
};

const { main } = await import("./cli.mjs");
await main(process.argv.slice(2));
