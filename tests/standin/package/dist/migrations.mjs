// The schema, migration by migration (contract, section 4). Names but the last three are made up.

const LINKS = (rights) => `CREATE TABLE auth_pairing_links (
  id TEXT PRIMARY KEY, credential TEXT NOT NULL UNIQUE, method TEXT NOT NULL, ${rights} TEXT NOT NULL, subject TEXT NOT NULL,
  label TEXT, created_at TEXT NOT NULL, expires_at TEXT NOT NULL, consumed_at TEXT, revoked_at TEXT);
CREATE INDEX idx_auth_pairing_links_active ON auth_pairing_links(revoked_at, consumed_at, expires_at);`;

const SESSIONS = (rights) => `CREATE TABLE auth_sessions (
  session_id TEXT PRIMARY KEY, subject TEXT NOT NULL, ${rights} TEXT NOT NULL, method TEXT NOT NULL, client_label TEXT,
  client_ip_address TEXT, client_user_agent TEXT, client_device_type TEXT NOT NULL DEFAULT 'unknown', client_os TEXT,
  client_browser TEXT, issued_at TEXT NOT NULL, expires_at TEXT NOT NULL, last_connected_at TEXT, revoked_at TEXT);
CREATE INDEX idx_auth_sessions_active ON auth_sessions(revoked_at, expires_at, issued_at);`;

const BASE = {
  1: ["OrchestrationEvents", `CREATE TABLE orchestration_events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE, aggregate_kind TEXT NOT NULL, stream_id TEXT NOT NULL,
    stream_version INTEGER NOT NULL, event_type TEXT NOT NULL, occurred_at TEXT NOT NULL, command_id TEXT, causation_event_id TEXT,
    correlation_id TEXT, actor_kind TEXT NOT NULL, payload_json TEXT NOT NULL, metadata_json TEXT NOT NULL);
    CREATE INDEX idx_orch_events_stream ON orchestration_events(stream_id, stream_version);`],
  2: ["ProjectionProjects", `CREATE TABLE projection_projects (
    project_id TEXT PRIMARY KEY, title TEXT NOT NULL, workspace_root TEXT NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
    deleted_at TEXT);`],
  3: ["ProjectionThreads", `CREATE TABLE projection_threads (
    thread_id TEXT PRIMARY KEY, project_id TEXT NOT NULL, title TEXT NOT NULL, branch TEXT, worktree_path TEXT,
    pending_approval_count INTEGER NOT NULL DEFAULT 0, pending_user_input_count INTEGER NOT NULL DEFAULT 0, created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL, archived_at TEXT, deleted_at TEXT);`],
  4: ["ProjectionThreadMessages", `CREATE TABLE projection_thread_messages (
    message_id TEXT PRIMARY KEY, thread_id TEXT NOT NULL, turn_id TEXT, role TEXT NOT NULL, text TEXT NOT NULL,
    is_streaming INTEGER NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL);
    CREATE INDEX idx_projection_thread_messages_thread ON projection_thread_messages(thread_id, created_at);`],
  5: ["ProjectionThreadSessions", `CREATE TABLE projection_thread_sessions (
    thread_id TEXT PRIMARY KEY, status TEXT NOT NULL, provider_name TEXT, provider_session_id TEXT, provider_thread_id TEXT,
    active_turn_id TEXT, last_error TEXT, updated_at TEXT NOT NULL, runtime_mode TEXT NOT NULL DEFAULT 'full-access',
    provider_instance_id TEXT);`],
  6: ["ProjectionTurns", `CREATE TABLE projection_turns (
    row_id INTEGER PRIMARY KEY AUTOINCREMENT, thread_id TEXT NOT NULL, turn_id TEXT, state TEXT NOT NULL, requested_at TEXT NOT NULL,
    started_at TEXT, completed_at TEXT, UNIQUE (thread_id, turn_id));`],
  7: ["ProjectionPendingApprovals", `CREATE TABLE projection_pending_approvals (
    request_id TEXT PRIMARY KEY, thread_id TEXT NOT NULL, turn_id TEXT, status TEXT NOT NULL, decision TEXT, created_at TEXT NOT NULL,
    resolved_at TEXT);`],
  8: ["ProviderSessionRuntime", `CREATE TABLE provider_session_runtime (
    thread_id TEXT PRIMARY KEY, provider_name TEXT NOT NULL, status TEXT NOT NULL, last_seen_at TEXT NOT NULL, resume_cursor_json TEXT,
    runtime_payload_json TEXT);`],
  9: ["ProjectionState", `CREATE TABLE projection_state (
    projector TEXT PRIMARY KEY, last_applied_sequence INTEGER NOT NULL, updated_at TEXT NOT NULL);`],
  20: ["AuthAccessManagement", LINKS("role") + SESSIONS("role")],
  30: ["ProjectionThreadShellArchiveIndexes", `CREATE INDEX idx_projection_threads_archived ON projection_threads(archived_at);
    CREATE INDEX idx_projection_threads_deleted ON projection_threads(deleted_at);`],
};

const base = Array.from({ length: 30 }, (_, index) => {
  const id = index + 1;
  const [name, sql] = BASE[id] ?? [`StandInStep${id}`, ""];
  return { id, name, sql };
});

/** In order; `sql` is all there is to a migration. */
export const migrations = [
  ...base,
  {
    id: 31,
    name: "AuthAuthorizationScopes",
    sql: `DROP TABLE auth_pairing_links; DROP TABLE auth_sessions; ${LINKS("scopes")} ${SESSIONS("scopes")}`,
  },
  { id: 32, name: "AuthPairingProofKeyThumbprint", sql: "ALTER TABLE auth_pairing_links ADD COLUMN proof_key_thumbprint TEXT;" },
];
