#!/usr/bin/env python3
"""A file system that is mounted and never answers, as a user makes one with fusermount (whose part root plays here), or as a file
server that has died leaves one behind. Speaks FUSE's protocol (fuse(4)) itself: it says what it is, and then no more.

  hang.py mount PATH own        in place of PATH, for the user alone
  hang.py mount PATH everybody  for everybody, root too (allow_other)
  hang.py end                   all of them are gone, and whoever waits for one is told
"""
import ctypes, os, pwd, signal, struct, subprocess, sys

USER = pwd.getpwnam("alice")
NOTES = "/run/hang"
INIT, GETATTR, STATFS = 26, 3, 17
libc = ctypes.CDLL(None, use_errno=True)


def answer(fuse, unique, body):
    os.write(fuse, struct.pack("IiQ", 16 + len(body), 0, unique) + body)


def serve(fuse, mode):
    while True:
        _, operation, unique, _ = struct.unpack_from("IIQQ", os.read(fuse, 1 << 18))
        if operation == INIT:
            answer(fuse, unique, struct.pack("IIIIHHII", 7, 31, 65536, 0, 12, 10, 65536, 1) + bytes(36))
        elif operation == GETATTR:
            times_and_size = struct.pack("QQQQQQIII", 1, 0, 0, 1, 1, 1, 0, 0, 0)
            attributes = times_and_size + struct.pack("IIIIIII", mode, 1, USER.pw_uid, USER.pw_gid, 0, 4096, 0)
            answer(fuse, unique, bytes(16) + attributes)


def mount(path, whose):
    if not os.path.exists("/dev/fuse"):
        os.mknod("/dev/fuse", 0o666 | 0o020000, os.makedev(10, 229))
    mode = 0o040700 if os.path.isdir(path) else 0o100600
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode={mode:o},user_id={USER.pw_uid},group_id={USER.pw_gid}"
    if whose == "everybody":
        options += ",allow_other"
    # nosuid, nodev
    if libc.mount(b"hang", path.encode(), b"fuse", 2 | 4, options.encode()):
        sys.exit(f"{path}: {os.strerror(ctypes.get_errno())}")
    if server := os.fork():
        with open(NOTES, "a") as notes:
            notes.write(f"{server} {path}\n")
        return
    os.setsid()
    for fd in range(3):
        os.dup2(os.open("/dev/null", os.O_RDWR), fd)
    os.chdir("/")
    os.setgroups([])
    os.setgid(USER.pw_gid)
    os.setuid(USER.pw_uid)
    serve(fuse, mode)


def end():
    if not os.path.exists(NOTES):
        return
    for line in reversed(open(NOTES).read().splitlines()):
        server, path = line.split(" ", 1)
        # With the last descriptor closed, all who wait are told that nobody is there.
        os.kill(int(server), signal.SIGKILL)
        subprocess.run(["umount", "--lazy", path])
    os.unlink(NOTES)


if sys.argv[1] == "mount":
    mount(*sys.argv[2:])
else:
    end()
