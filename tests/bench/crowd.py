"""Runs in a test machine with t3pin installed: measures, prints the table, ends with 1 when the number is not reached."""
import os, signal, socket, statistics, sys, time

PATH = "/run/t3pin/t3pin.sock"
# Who only wants to know asks a few times a second at most; asking without a pause is what the crowd does.
USERS, IDLE, BUSY, ROUNDS, PAUSE, REACH_MS = 100, 1000, 100, 60, 0.2, 50.0
REQUEST = b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n"
children = []


def connect():
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30)
    client.connect(PATH)
    return client


def ask(client):
    client.sendall(REQUEST)
    said = b""
    while b"\r\n\r\n" not in said:
        chunk = client.recv(65536)
        if not chunk:
            raise OSError("hung up")
        said += chunk
    head, body = said.split(b"\r\n\r\n", 1)
    if not head.startswith(b"HTTP/1.1 200"):
        raise OSError(head[:200])
    length = int(next(line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")))
    while len(body) < length:
        body += client.recv(65536)


def as_uid(uid, work):
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            work()
        finally:
            os._exit(0)
    children.append(child)


def idle():
    """Keeps its connections; whoever is hung up on comes back."""
    while True:
        held = []
        for _ in range(IDLE // USERS):
            try:
                held.append(connect())
            except OSError:
                pass
        time.sleep(8)


def busy():
    while True:
        try:
            client = connect()
            while True:
                ask(client)
        except OSError:
            time.sleep(0.05)


def measure(uid):
    """Milliseconds of a status on a connection of its own."""
    read, write = os.pipe()
    def work():
        for _ in range(ROUNDS):
            began = time.monotonic()
            try:
                client = connect()
                ask(client)
                client.close()
                took = (time.monotonic() - began) * 1000
            except OSError as error:
                took = 1e6
                print(error, file=sys.stderr)
            os.write(write, b"%f\n" % took)
            time.sleep(PAUSE)
    as_uid(uid, work)
    os.close(write)
    os.waitpid(children.pop(), 0)
    with os.fdopen(read) as pipe:
        return [float(line) for line in pipe]


alone = {uid: measure(uid) for uid in (0, 5000)}
for number in range(USERS):
    as_uid(6000 + number, idle)
for number in range(BUSY):
    as_uid(7000 + number, busy)
time.sleep(5)
crowded = {uid: measure(uid) for uid in (0, 5000)}
connections = sum(1 for line in open("/proc/net/unix") if line.rstrip().endswith(PATH)) - 1
for child in children:
    os.kill(child, signal.SIGKILL)
short = False
print("number  measured  reach")
for uid, who in ((0, "root"), (5000, "a user")):
    for name, of in (("median", statistics.median), ("95 of 100", lambda all: sorted(all)[int(len(all) * 0.95)])):
        before, after = of(alone[uid]), of(crowded[uid])
        measured = f"{after:.1f} ms ({after / before:.1f} x {before:.1f} ms alone)"
        if name == "median":
            short |= after > REACH_MS
            print(f"status beside 1 000 idle and 100 busy clients, {who}  {measured}  under 50 ms  {'short' if after > REACH_MS else 'ok'}")
        else:
            print(f"the same, {name}, {who}  {measured}")
print(f"{connections} connections at the end")
sys.exit(short)
