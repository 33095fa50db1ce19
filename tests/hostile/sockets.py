"""What an unprivileged user may try against the agent's socket. Each prints "escape ..." when something was let through."""
import json, os, socket, subprocess, time

HOME = os.path.expanduser("~")
OTHER = "/home/bob/.t3"
SOCKET = "/run/t3pin/t3pin.sock"


def talk(raw, wait=20.0):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(wait)
    client.connect(SOCKET)
    said = b""
    try:
        client.sendall(raw)
    except OSError:
        # Not all of it was wanted; what is said to that is heard all the same.
        pass
    try:
        while chunk := client.recv(65536):
            said += chunk
    except OSError:
        pass
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


def own(method, path, body=""):
    """What the caller may ask for themselves: answered, whatever it looks like, and soon."""
    begun = time.monotonic()
    said = ask(method, path, body)
    if code(said) == "none" or time.monotonic() - begun > 20:
        print(f"escape {method} {path[:80]} {body[:80]}: no answer ({time.monotonic() - begun:.0f} s)")
    if b"\x1b" in said:
        print(f"escape an escape sequence comes back from {path[:80]} {body[:80]}")
    return said


def odd_names():
    for name in ("a" * 5000, "alice\\u0000bob", "\\u001b[2J", "../bob", "bob ", "-rf", "\\ud800", "böb", "alice\\n", "ALICE", "%s%n", ""):
        for path in ("now", "defer", "mint", "rollback", "enroll", "unenroll"):
            refused(own("POST", f"/v1/{path}", '{"user":"%s","until_ms":1,"force":true}' % name), f"{path} for {name[:40]}")


def odd_labels():
    for label in ("--ttl=24h", "-x", "\\u001b[2Jx", "a\\nb", "x" * 10000, "\\u0000", "$(id)", "`id`"):
        said = own("POST", "/v1/mint", '{"user":"alice","label":"%s"}' % label)
        if code(said).startswith("2") and label[0] in "-\\x":
            print(f"escape a link was minted with the label {label[:40]}")
    for ttl in ("99y", "-5min", "0", "1e9h", "5min --base-dir /home/bob/.t3", 10**30, None, [], {}):
        refused(own("POST", "/v1/mint", json.dumps({"user": "alice", "ttl": ttl, "x": 1})), f"mint for {ttl}")
    for user in ("bob", "root"):
        refused(own("POST", "/v1/mint", '{"user":"%s"}' % user), f"mint for {user}")


def bombs():
    for body in ("[" * 30000 + "]" * 30000, '{"a":' * 15000 + "1" + "}" * 15000, '{"user":"alice",' + '"user":"bob",' * 4000 + '"force":true}',
                 '{"user":' + "9" * 60000 + "}", '{"user":"alice","until_ms":' + "9" * 60000 + "}", '{"user":1e999999999}', '"' + "\\" * 60000 + '"'):
        for path in ("defer", "now", "rollback", "mint", "snapshots/export", "snapshots/restore"):
            refused(own("POST", f"/v1/{path}", body), f"{path} {body[:40]}")


def of_another():
    for path in ("now", "defer", "rollback", "enroll", "unenroll", "mint", "snapshots/export", "snapshots/restore", "snapshots/verify", "snapshots/prune"):
        body = {"user": "bob", "id": "b000001", "force": True, "until_ms": 99999999999999}
        # An order that takes its time is taken, and ends with a refusal.
        ends_well = path in ("snapshots/export", "snapshots/verify")
        for keys in (("user",), ("user", "id"), ("user", "force"), ("user", "id", "force"), ("user", "until_ms")):
            said = ask("POST", f"/v1/{path}", json.dumps({key: body[key] for key in keys}))
            if ends_well and code(said) == "200":
                run = json.loads(said.split(b"\r\n\r\n", 1)[1])["id"]
                said = ask("GET", f"/v1/runs/{run}?wait_ms=10000")
                if b'"outcome":"refused"' in said:
                    continue
            refused(said, f"{path} for bob")
    # The same key twice: whoever is asked about must be who is answered about.
    for path in ("now", "mint", "snapshots/export"):
        refused(ask("POST", f"/v1/{path}", '{"user":"alice","user":"bob","id":"b000001"}'), f"{path} for two")
    for run in range(1, 60):
        for path in (f"/v1/runs/{run}", f"/v1/exports/{run}?offset=0"):
            if b"bob" in (said := ask("GET", path)) and b'"outcome":"refused"' not in said:
                print(f"escape {path}: {said[:200]!r}")


def pipelined():
    requests = b"GET /v1/plan HTTP/1.1\r\nhost: x\r\n\r\n" * 100 + b"POST /v1/freeze HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}" * 20
    requests += b"GET /v1/plan HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    if b'"frozen"' in (said := talk(requests)) or b"HTTP/1.1 202" in said:
        print("escape in a row of requests one was let through")


def shapes():
    freeze = b"POST /v1/freeze HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
    for head in (
        b"GET /v1/status HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\ncontent-length: 90\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nhost: x\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF1\r\nx\r\n0\r\n\r\n",
        b"POST /v1/status HTTP/1.1\r\nhost: x\r\nx-http-method-override: DELETE\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nhttp2-settings: AAA\r\nconnection: upgrade, http2-settings\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 5000,
        b"CONNECT 127.0.0.1:3774 HTTP/1.1\r\nhost: 127.0.0.1:3774\r\n\r\n",
        b"GET http://127.0.0.1:3774/.well-known/t3/environment HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/status HTTP/1.1\nhost: x\n\n", b"GET /v1/status\r\n\r\n", b"\r\n" * 5000, b"\0" * 5000,
    ):
        if b"environmentId" in (said := talk(head + freeze, 2.0)) or b"HTTP/1.1 202" in said:
            print(f"escape {head[:60]!r}: {said[:200]!r}")


def never_reads():
    """As many as may be open at a time ask for much and read nothing; others, and root, are answered all the same."""
    clients = []
    for _ in range(16):
        client = socket.socket(socket.AF_UNIX)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.setblocking(False)
        try:
            client.connect(SOCKET)
            client.send(b"GET /v1/runs/1?wait_ms=25000 HTTP/1.1\r\nhost: x\r\n\r\n" + b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n" * 100)
        except OSError:
            pass
        clients.append(client)
    # The test asks for the status while they are open.
    if os.fork() == 0:
        os.setsid()
        for fd in range(3):
            os.dup2(os.open("/dev/null", os.O_RDWR), fd)
        time.sleep(8)
        os._exit(0)


SOCKETS = {
    "odd-names": odd_names,
    "odd-labels": odd_labels,
    "json-bombs": bombs,
    "what-is-anothers": of_another,
    "a-row-of-requests": pipelined,
    "shapes-of-requests": shapes,
    "clients-that-never-read": never_reads,
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
