// The child of "keeps-db-open": holds the database open, for ten minutes at most.

process.emitWarning = () => {};
const { DatabaseSync } = await import("node:sqlite");
const database = new DatabaseSync(process.argv[2]);
database.prepare("SELECT count(*) FROM sqlite_schema").get();
for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"]) process.on(signal, () => {});
setTimeout(() => database.close(), 600_000);
