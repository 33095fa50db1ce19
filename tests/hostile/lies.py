"""A port that is taken as soon as it is free, and the lies that are told on it."""
import json, os, random, socket, time

HOME = os.path.expanduser("~")


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


def descriptor(client, version="0.0.25", id=None, headers=b"", body=None):
    try:
        id = id or open(f"{HOME}/.t3/userdata/environment-id").read().strip()
    except OSError:
        id = "00000000-0000-4000-8000-000000000000"
    body = body or json.dumps({"environmentId": id, "serverVersion": version, "label": "x\x1b[2J", "platform": {}, "capabilities": {}}).encode()
    client.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + headers + b"content-length: %d\r\n\r\n" % len(body) + body)


def agrees(client):
    """Says yes to everything, with what a header must not hold."""
    evil = b"set-cookie: t3_session=a\x1b[2Jb\x00; Path=/\r\nset-cookie: t3_session=\xff\xfe\r\nx-a: b\r\n\tfolded\r\n"
    body = {"authenticated": True, "sessionMethod": "browser-session-cookie", "auth": {"sessionCookieName": "t3_session\r\nx-evil: 1"},
            "environmentId": "x", "serverVersion": "0.0.25", "expiresAt": "\x1b[2J"}
    descriptor(client, headers=evil, body=json.dumps(body).encode())


def continues(client):
    while True:
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def changes(client):
    descriptor(client, version=random.choice(["0.0.24", "0.0.25", "9.9.9", "0.0.25\n", "x" * 1000, "\x1b[2J"]), id=random.choice(["a", "b" * 5000, "../..", None]))


def bobs(client):
    descriptor(client, id="b0b00000-0000-4000-8000-000000000000")


def promises(client):
    client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\n{")
    time.sleep(60)


def elsewhere(client):
    client.sendall(random.choice([
        b"HTTP/1.1 302 Go\r\nlocation: file:///root/canary\r\n\r\n", b"HTTP/1.1 307 Go\r\nlocation: //127.0.0.1:3774/api/auth/session\r\n\r\n",
        b"HTTP/1.1 401 No\r\nwww-authenticate: Basic realm=x\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\n\r\n\xff\xff",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f\x8b", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
    ]))


LIES = {
    "drips": drip, "floods": flood, "endless-headers": headers, "redirects": redirect, "nests": nested,
    "agrees-to-everything": agrees, "tells-another-lie-each-time": lambda client: random.choice([changes, bobs, continues, promises, elsewhere])(client),
}
