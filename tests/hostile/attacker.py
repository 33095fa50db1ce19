#!/usr/bin/env python3
"""What an unprivileged user may try against t3pin. Runs as that user, on the test machine.

  attacker.py file NAME       puts something hostile in place of a part of the user's own state
  attacker.py undo            takes it away again
  attacker.py race NAME       exchanges a part of the state and a hostile thing without end, in the background
  attacker.py thief NAME PORT takes a port as soon as it is free and lies on it, in the background
  attacker.py crowd           more processes than anybody needs, in the background
  attacker.py stop            ends what runs in the background
  attacker.py socket NAME     attacks the agent's socket; prints "escape ..." when something was let through
  attacker.py list KIND       the names
"""
import ctypes, json, os, shutil, signal, socket, sqlite3, struct, subprocess, sys, time

HOME = os.path.expanduser("~")
T3 = f"{HOME}/.t3"
DATA = f"{T3}/userdata"
ASIDE = f"{HOME}/aside"
PIDS = f"{HOME}/attack.pids"
CANARY = "/root/canary"
OTHER = "/home/bob/.t3"
SOCKET = "/run/t3pin/t3pin.sock"
libc = ctypes.CDLL(None, use_errno=True)


# --- files -------------------------------------------------------------------------------------------------------------------

def instead(path):
    """Moves the real thing aside and notes it; what takes its place is removed by undo."""
    os.makedirs(ASIDE, exist_ok=True)
    with open(f"{HOME}/attack.undo", "a") as undo:
        kept = f"{ASIDE}/{len(os.listdir(ASIDE))}"
        real = os.path.lexists(path)
        if real:
            os.rename(path, kept)
        undo.write(json.dumps([path, kept if real else None]) + "\n")
    return path


def link(path, to):
    os.symlink(to, instead(path))


def database(path, *statements):
    instead(path)
    for suffix in ("-wal", "-shm"):
        instead(path + suffix)
    db = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        db.execute(statement)
    db.close()


def schema(sql):
    return ("PRAGMA writable_schema=ON", "CREATE TABLE t(x)", f"UPDATE sqlite_schema SET sql='{sql}'", "PRAGMA writable_schema=OFF")


def many(path, count):
    os.mkdir(instead(path), 0o700)
    for number in range(count):
        open(f"{path}/{number}", "w").close()


def deep(path, levels):
    os.mkdir(instead(path), 0o700)
    here = os.getcwd()
    os.chdir(path)
    for _ in range(levels):
        os.mkdir("d", 0o700)
        os.chdir("d")
    os.chdir(here)


def odd(path):
    os.mkdir(instead(path), 0o700)
    for name in (b"new\nline", b"\xff\xfe", b"n" * 255, b"$(touch owned)", b"-rf", b"\x1b[2J", b"..."):
        open(os.path.join(path.encode(), name), "w").close()


def hard(path, to):
    os.mkdir(instead(path), 0o700)
    try:
        os.link(to, f"{path}/linked")
    except OSError:
        # The host forbids it (fs.protected_hardlinks); to one of the user's own files it is allowed.
        open(f"{HOME}/own", "w").close()
        os.link(f"{HOME}/own", f"{path}/linked")


def unix(path):
    server = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(os.path.dirname(instead(path)))
    server.bind(os.path.basename(path))
    os.chdir(here)


def sparse(path, size):
    with open(instead(path), "wb") as file:
        try:
            file.truncate(size)
        except OSError:
            file.truncate(1 << 40)


def shut(path):
    with open(f"{HOME}/attack.undo", "a") as undo:
        undo.write(json.dumps(["chmod", path]) + "\n")
    os.chmod(path, 0)


def write(path, text):
    with open(instead(path), "w") as file:
        file.write(text)


def work_dir(to):
    """The next work directories of t3pin's, as links."""
    os.makedirs(instead(f"{T3}/.t3pin"), 0o700)
    for number in range(200):
        os.symlink(to, f"{T3}/.t3pin/b{number:06}")


DB = f"{DATA}/state.sqlite"
FILES = {
    "database-is-a-link-to-the-canary": lambda: link(DB, CANARY),
    "database-is-a-link-to-anothers": lambda: link(DB, f"{OTHER}/userdata/state.sqlite"),
    "database-is-a-link-to-a-device": lambda: link(DB, "/dev/zero"),
    "database-is-a-fifo": lambda: os.mkfifo(instead(DB)),
    "database-is-a-socket": lambda: unix(DB),
    "database-is-a-directory": lambda: os.mkdir(instead(DB)),
    "database-is-garbage": lambda: write(DB, "SQLite format 3\0" + "x" * 100000),
    "database-is-huge-and-empty": lambda: sparse(DB, 8 << 40),
    "database-names-a-schema-that-loads-code": lambda: database(DB, *schema("CREATE VIEW t AS SELECT load_extension(\"/tmp/evil.so\")")),
    "database-has-a-schema-that-is-none": lambda: database(DB, *schema("CREATE TABLE t(x, CHECK((((((((")),
    "database-has-tables-that-are-views": lambda: database(
        DB,
        "CREATE VIEW effect_sql_migrations AS WITH RECURSIVE n(migration_id) AS (SELECT 1 UNION ALL SELECT migration_id + 1 FROM n) SELECT * FROM n",
        "CREATE VIEW auth_sessions AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS revoked_at, x AS expires_at FROM n",
        "CREATE VIEW projection_turns AS SELECT zeroblob(1000000000) AS thread_id, 1 AS completed_at",
    ),
    "database-has-a-huge-row": lambda: database(DB, "CREATE TABLE effect_sql_migrations(migration_id)", "INSERT INTO effect_sql_migrations VALUES (zeroblob(200000000))"),
    "database-attaches-by-trigger": lambda: database(DB, "CREATE TABLE effect_sql_migrations(migration_id INTEGER)", "CREATE TRIGGER t AFTER INSERT ON effect_sql_migrations BEGIN SELECT writefile('/tmp/owned', 'x'); END"),
    "log-is-a-link-to-the-canary": lambda: link(DB + "-wal", CANARY),
    "log-is-a-fifo": lambda: os.mkfifo(instead(DB + "-wal")),
    "log-is-garbage": lambda: write(DB + "-wal", "\x37\x7f\x06\x82" + "y" * 200000),
    "userdata-is-a-link-to-roots-home": lambda: link(DATA, "/root"),
    "userdata-is-a-link-to-anothers": lambda: link(DATA, f"{OTHER}/userdata"),
    "userdata-is-a-file": lambda: write(DATA, "x"),
    "userdata-is-shut": lambda: shut(DATA),
    "base-is-a-link-to-anothers": lambda: link(T3, OTHER),
    "base-is-a-link-to-everything": lambda: link(T3, "/"),
    "base-is-a-fifo": lambda: os.mkfifo(instead(T3)),
    "home-is-shut": lambda: shut(HOME),
    "secrets-are-a-link-to-roots-home": lambda: link(f"{DATA}/secrets", "/root"),
    "secrets-are-hard-links": lambda: hard(f"{DATA}/secrets", "/etc/passwd"),
    "secrets-are-thousands": lambda: many(f"{DATA}/secrets", 5000),
    "secrets-are-nested-deeply": lambda: deep(f"{DATA}/secrets", 300),
    "secrets-have-odd-names": lambda: odd(f"{DATA}/secrets"),
    "environment-id-is-a-fifo": lambda: os.mkfifo(instead(f"{DATA}/environment-id")),
    "environment-id-is-a-link-to-the-canary": lambda: link(f"{DATA}/environment-id", CANARY),
    "settings-are-huge": lambda: sparse(f"{DATA}/settings.json", 1 << 42),
    "work-copies-are-a-link-to-roots-home": lambda: link(f"{T3}/.t3pin", "/root"),
    "work-copies-are-links-to-anothers": lambda: work_dir(f"{OTHER}/userdata"),
    "work-copies-are-a-fifo": lambda: os.mkfifo(instead(f"{T3}/.t3pin")),
    "work-copies-are-nested-deeply": lambda: deep(f"{T3}/.t3pin", 400),
    "npmrc-and-profile-run-programs": lambda: (
        write(f"{HOME}/.npmrc", f"prefix={HOME}/p\nscript-shell={HOME}/evil\nnode-options=--require={HOME}/evil.js\nregistry=http://127.0.0.1:1/\n"),
        write(f"{HOME}/.profile", f"id -u >>{HOME}/ran-as\n"),
        write(f"{HOME}/.bash_profile", f"id -u >>{HOME}/ran-as\n"),
        write(f"{HOME}/evil.js", f"require('fs').appendFileSync('{HOME}/ran-as', process.getuid() + '\\n')"),
        write(f"{HOME}/.config", "not a directory"),
    ),
}


def undo():
    os.chmod(HOME, 0o755)
    notes = f"{HOME}/attack.undo"
    if not os.path.exists(notes):
        return
    for line in reversed(open(notes).read().splitlines()):
        path, kept = json.loads(line)
        if path == "chmod":
            os.chmod(kept, 0o755)
            continue
        if os.path.isdir(path) and not os.path.islink(path):
            subprocess.run(["chmod", "-R", "u+rwx", path], stderr=subprocess.DEVNULL)
            subprocess.run(["rm", "-rf", path])
        elif os.path.lexists(path):
            os.unlink(path)
        if kept:
            os.rename(kept, path)
    os.unlink(notes)
    shutil.rmtree(ASIDE, ignore_errors=True)


# --- in the background -------------------------------------------------------------------------------------------------------

def background(work):
    if os.fork():
        return
    os.setsid()
    with open(PIDS, "a") as pids:
        pids.write(f"{os.getpid()}\n")
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    try:
        work()
    finally:
        os._exit(0)


def stop():
    if os.path.exists(PIDS):
        for pid in open(PIDS).read().split():
            try:
                os.killpg(int(pid), signal.SIGKILL)
            except OSError:
                pass
        os.unlink(PIDS)


def exchange(one, other):
    """Until it is stopped: renameat2 with RENAME_EXCHANGE (2)."""
    while True:
        libc.renameat2(-100, one.encode(), -100, other.encode(), 2)


def race(path, to):
    trap = f"{path}.trap"
    if not os.path.lexists(trap):
        os.symlink(to, trap)
    exchange(path, trap)


def race_work():
    while True:
        try:
            for name in os.listdir(f"{T3}/.t3pin"):
                path = f"{T3}/.t3pin/{name}"
                if not os.path.islink(path):
                    os.rename(path, f"{HOME}/stolen-{time.monotonic_ns()}")
                    os.symlink("/root", path)
        except OSError:
            pass


RACES = {
    "userdata-and-a-link-to-roots-home": lambda: race(DATA, "/root"),
    "userdata-and-a-link-to-anothers": lambda: race(DATA, f"{OTHER}/userdata"),
    "base-and-a-link-to-anothers": lambda: race(T3, OTHER),
    "database-and-a-link-to-the-canary": lambda: race(DB, CANARY),
    "work-copies-are-stolen-as-they-are-made": race_work,
}


def unrace():
    for path in (DATA, T3, DB):
        trap = f"{path}.trap"
        if os.path.islink(path) and os.path.lexists(trap):
            libc.renameat2(-100, path.encode(), -100, trap.encode(), 2)
        if os.path.islink(trap):
            os.unlink(trap)
    subprocess.run(f"chmod -R u+rwx {HOME}/stolen-* 2>/dev/null; rm -rf {HOME}/stolen-*; find {T3}/.t3pin -type l -delete 2>/dev/null", shell=True)


def steal(port, lie):
    while True:
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", port))
            server.listen(64)
        except OSError:
            server.close()
            continue
        break
    open(f"{HOME}/stolen-port", "w").close()
    while True:
        client, _ = server.accept()
        if os.fork() == 0:
            try:
                client.recv(65536)
                lie(client)
            finally:
                os._exit(0)
        client.close()


def drip(client):
    while True:
        client.send(b"H")
        time.sleep(0.2)


def flood(client):
    client.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"serverVersion\":\"")
    while True:
        client.sendall(b"9" * 65536)


def headers(client):
    client.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        client.sendall(b"x-" + b"y" * 1000 + b": z\r\n")


def redirect(client):
    client.sendall(b"HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:3774/.well-known/t3/environment\r\ncontent-length: 0\r\n\r\n")


def nested(client):
    body = b"[" * 60000
    client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)


LIES = {"drips": drip, "floods": flood, "endless-headers": headers, "redirects": redirect, "nests": nested}


def crowd():
    children = []
    for _ in range(300):
        child = os.fork()
        if child == 0:
            held = [open(DB) for _ in range(50)]
            time.sleep(600)
            os._exit(len(held))
        children.append(child)
    time.sleep(600)


# --- the socket --------------------------------------------------------------------------------------------------------------

def talk(raw, wait=20.0):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(wait)
    client.connect(SOCKET)
    try:
        client.sendall(raw)
        said = b""
        while chunk := client.recv(65536):
            said += chunk
    except OSError:
        said = b""
    client.close()
    return said


def ask(method, path, body="", extra=""):
    return talk(f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{extra}content-length: {len(body)}\r\n\r\n{body}".encode())


def code(said):
    return said.split(b" ", 2)[1].decode() if said.startswith(b"HTTP/1.1 ") else "none"


CHANGES = {
    "enforce": "", "rollback": '{"user":"bob"}', "rollback-all": "{}", "enroll": '{"user":"bob"}', "unenroll": '{"user":"bob"}',
    "freeze": "{}", "thaw": "", "quarantine/clear": '{"version":"0.0.25"}', "now": '{"user":"bob","force":true}',
    "defer": '{"user":"bob","until_ms":99999999999999}',
}
LIKE_ROOT = "x-uid: 0\r\nx-forwarded-user: root\r\nauthorization: Basic cm9vdDo=\r\ncookie: uid=0\r\n"


def refused(said, what):
    if code(said).startswith("2"):
        print(f"escape {what}: {said[:200]!r}")


def change(name):
    path = name.removesuffix("-all")
    refused(ask("POST", f"/v1/{path}", CHANGES[name], LIKE_ROOT), name)


def smuggle():
    inner = "POST /v1/freeze HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
    said = ask("GET", "/v1/status", inner, "transfer-encoding: chunked\r\n")
    if b'"done":true' in said:
        print("escape smuggled a change")


def paths():
    for path in ("/v1/instances/..%2f..%2fetc%2fpasswd", "/v1/instances/bob", "/v1/explain/bob", "/v1/explain/b000001", "/v1/runs/1",
                 "/v1/../../root/canary", "/v1/snapshots/bob", "/v1/instances/bob%00alice", "//v1//status", "/v1/history?user=bob"):
        said = ask("GET", path)
        if b"canary" in said.lower() and b"there is nothing" not in said or (b'"user":"bob"' in said):
            print(f"escape {path}: {said[:300]!r}")


def open_many():
    clients = []
    for _ in range(1000):
        try:
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            client.connect(SOCKET)
            client.send(b"GET /v1/sta")
            clients.append(client)
        except OSError:
            pass
    time.sleep(3)


def drip_request():
    client = socket.socket(socket.AF_UNIX)
    client.connect(SOCKET)
    client.settimeout(1)
    until = time.monotonic() + 30
    try:
        for byte in b"GET /v1/status HTTP/1.1\r\nx: " + b"y" * 10000:
            client.send(bytes([byte]))
            time.sleep(0.05)
            if time.monotonic() > until:
                print("escape a request was dripped for 30 s")
                return
    except OSError:
        pass


SOCKETS = {
    **{f"change-{name}": (lambda name=name: change(name)) for name in CHANGES},
    "paths-of-others": paths,
    "smuggled-request": smuggle,
    "endless-headers": lambda: talk(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200000),
    "endless-line": lambda: talk(b"GET /" + b"a" * 5000000),
    "oversized-json": lambda: refused(ask("POST", "/v1/defer", '{"reason":"' + "x" * 5000000 + '"}'), "oversized"),
    "nested-json": lambda: refused(ask("POST", "/v1/defer", "[" * 60000), "nested"),
    "length-that-lies": lambda: talk(b"POST /v1/defer HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n{}"),
    "binary": lambda: talk(os.urandom(100000)),
    "a-thousand-clients": open_many,
    "a-dripping-client": drip_request,
    "the-workers-socket": lambda: print("escape the workers' socket") if socket.socket(socket.AF_UNIX).connect_ex("/run/t3pin/workers.sock") == 0 else None,
    "an-agent-of-ones-own": lambda: print("escape an agent") if subprocess.run(["t3pin", "agent"], capture_output=True, timeout=20).returncode == 0 else None,
    "a-recovery-of-ones-own": lambda: print("escape recover") if subprocess.run(["t3pin", "recover"], capture_output=True, timeout=20).returncode == 0 else None,
    "a-worker-of-ones-own-on-anothers-data": lambda: print("escape worker") if b"live-copy" in subprocess.run(
        ["t3pin", "worker"], capture_output=True, timeout=20,
        input=json.dumps({"protocol": 1, "message": {"task": "copy-live", "userdata": f"{OTHER}/userdata", "dest": f"{HOME}/x/y"}}).encode(),
    ).stdout else None,
    "environment-of-ones-own": lambda: print("escape environment") if subprocess.run(
        ["t3pin", "freeze"], capture_output=True, timeout=20, env={"T3PIN_WORKERS": "/tmp/x", "PATH": os.environ["PATH"], "USER": "root", "LOGNAME": "root", "HOME": "/root"},
    ).returncode == 0 else None,
}


def main():
    what, *rest = sys.argv[1:]
    if what == "list":
        print("\n".join({"file": FILES, "race": RACES, "thief": LIES, "socket": SOCKETS}[rest[0]]))
    elif what == "file":
        FILES[rest[0]]()
    elif what == "undo":
        undo()
    elif what == "race":
        background(RACES[rest[0]])
    elif what == "thief":
        background(lambda: steal(int(rest[1]), LIES[rest[0]]))
    elif what == "crowd":
        background(crowd)
    elif what == "stop":
        stop()
        unrace()
    elif what == "socket":
        SOCKETS[rest[0]]()


main()
