// state.sqlite: opening it, and the migrations that every command runs first.

import { DatabaseSync } from "node:sqlite";

import { extraMigration } from "./faults.mjs";
import { info, named } from "./log.mjs";
import { migrations } from "./migrations.mjs";
import { level } from "./release.mjs";

/** An open database; `db` is exchanged when a fault closes and opens it. */
export class Database {
  constructor(path) {
    this.path = path;
    this.open();
  }

  open() {
    this.db = new DatabaseSync(this.path, { timeout: 0 });
    try {
      // t3 waits for no lock at all.
      this.db.exec("PRAGMA busy_timeout = 0; PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON;");
    } catch (cause) {
      throw sqlError("Failed to prepare statement", cause);
    }
  }

  all(sql, ...values) {
    return this.db.prepare(sql).all(...values);
  }

  get(sql, ...values) {
    return this.db.prepare(sql).get(...values);
  }

  run(sql, ...values) {
    return this.db.prepare(sql).run(...values);
  }

  exec(sql) {
    this.db.exec(sql);
  }

  transaction(work) {
    this.exec("BEGIN");
    try {
      const result = work();
      this.exec("COMMIT");
      return result;
    } catch (problem) {
      if (this.db.isTransaction) this.exec("ROLLBACK");
      throw problem;
    }
  }

  /** The last connection out brings the WAL into the file and removes -wal and -shm. */
  close() {
    if (this.db.isOpen) this.db.close();
  }
}

/** Opens the database and brings it to this release's level. A newer database is left as it is, without a word. */
export async function openDatabase(path) {
  const database = new Database(path);
  try {
    await migrate(database);
  } catch (cause) {
    try {
      database.close();
    } catch {
      // What went wrong before is what counts.
    }
    throw cause.name === "SqlError" ? cause : sqlError("Failed to prepare statement", cause);
  }
  return database;
}

async function migrate(database) {
  info("Running all migrations...");
  database.exec(`CREATE TABLE IF NOT EXISTS effect_sql_migrations (
    migration_id INTEGER PRIMARY KEY NOT NULL, created_at DATETIME NOT NULL DEFAULT current_timestamp, name VARCHAR(255) NOT NULL)`);
  const record = ({ id, name }) => database.run("INSERT INTO effect_sql_migrations (migration_id, name) VALUES (?, ?)", id, name);
  const before = database.get("SELECT coalesce(max(migration_id), 0) AS level FROM effect_sql_migrations").level;
  const due = migrations.filter(({ id }) => id > before && id <= level);
  if (due.length > 0) {
    database.transaction(() => {
      for (const step of due) {
        database.exec(step.sql);
        record(step);
      }
    });
  }
  const extra = extraMigration();
  if (extra && extra.id > before) {
    due.push(extra);
    await extra.run(database, () => record(extra));
  }
  info(`Migrations ran successfully migrations: [${due.map(({ id, name }) => ` '${id}_${name}'`).join(",")}${due.length ? " " : ""}]`);
}

export const sqlError = (message, cause) => named("SqlError", message, cause);
