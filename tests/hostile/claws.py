#!/usr/bin/env python3
"""What a user may do to the processes that t3pin runs with their ids. Runs as that user, in the background, until it is killed.

  claws.py NAME FOUND   writes what it should not have got to the file FOUND, as lines "escape ..."
  claws.py list
"""
import ctypes, os, signal, sys

libc = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE = 0x4206
PIDFD_OPEN, PIDFD_GETFD = 434, 438


def processes():
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                yield int(name), os.stat(f"/proc/{name}"), open(f"/proc/{name}/cmdline", "rb").read()
            except OSError:
                pass


def workers():
    """A worker that cannot be looked into belongs to root in /proc, and to its user all the same."""
    for pid, _, command in processes():
        if command.startswith(b"/proc/self/exe\0worker"):
            yield pid


def traced(pid):
    """What a process is that could be traced; nothing when it could not. Who traced it has ended then, and it is free again."""
    hears, says = os.pipe()
    if (child := os.fork()) == 0:
        if libc.ptrace(PTRACE_SEIZE, pid, 0, 0) == 0:
            # It may have become something else since its name was read.
            os.write(says, open(f"/proc/{pid}/cmdline", "rb").read() or b"something that has ended")
        os._exit(0)
    os.waitpid(child, 0)
    os.close(says)
    with open(hears, "rb") as heard:
        return heard.read()


def all_workers(number):
    while True:
        for pid in workers():
            try:
                os.kill(pid, number)
            except OSError:
                pass


def look():
    found = set()

    def got(what):
        if what not in found:
            found.add(what)
            with open(sys.argv[2], "a") as out:
                out.write(f"escape {what}\n")

    while True:
        for pid, seen, command in processes():
            ours = command.startswith((b"/proc/self/exe\0worker", b"/usr/bin/t3pin\0agent", b"/usr/bin/t3pin\0workers"))
            if not ours:
                continue
            is_worker = b"worker" == command.split(b"\0")[1]
            # A worker is its user's until it has shut itself off, some ms after its start; what it has by then is its own: no
            # secret, and no descriptor of root's but the two pipes by which it is asked.
            try:
                for fd in os.listdir(f"/proc/{pid}/fd"):
                    to = os.readlink(f"/proc/{pid}/fd/{fd}")
                    if not to.startswith(("pipe:", "/dev/null", "anon_inode:", "socket:")) and not is_worker:
                        got(f"a descriptor of {command!r}: {to}")
                    if is_worker and int(fd) <= 2 and not to.startswith("pipe:"):
                        got(f"descriptor {fd} of a worker is {to}, and not a pipe of its own")
            except OSError:
                pass
            try:
                environment = open(f"/proc/{pid}/environ", "rb").read()
                if any(word in environment for word in (b"T3PIN_", b"LISTEN_", b"INVOCATION_ID", b"NOTIFY_SOCKET", b"canary")):
                    got(f"the environment of root's in {command!r}: {environment[:200]!r}")
            except OSError:
                pass
            if not is_worker and (now := traced(pid)) and not now.startswith(b"/proc/self/exe\0worker"):
                got(f"ptrace of {now!r}")


def look_at_those_that_stand():
    """Workers that have been told what to do are beyond reach: stopped by us, they stay long enough to be tried."""
    tried = set()
    while True:
        for pid in workers():
            if pid in tried:
                continue
            try:
                # The last of what it gives up before it is told anything.
                if b"Max cpu time              7200" not in open(f"/proc/{pid}/limits", "rb").read():
                    continue
                tried.add(pid)
                os.kill(pid, signal.SIGSTOP)
                while ") T " not in open(f"/proc/{pid}/stat").read():
                    pass
                # It may have become the t3 that it runs, which is the user's.
                if not open(f"/proc/{pid}/cmdline", "rb").read().startswith(b"/proc/self/exe\0worker"):
                    os.kill(pid, signal.SIGCONT)
                    continue
                reached = []
                for part in ("mem", "environ", "maps"):
                    try:
                        os.close(os.open(f"/proc/{pid}/{part}", os.O_RDONLY))
                        reached.append(part)
                    except OSError:
                        pass
                try:
                    os.listdir(f"/proc/{pid}/fd")
                    reached.append("fd")
                except OSError:
                    pass
                if traced(pid):
                    reached.append("ptrace")
                handle = libc.syscall(PIDFD_OPEN, pid, 0)
                if handle >= 0:
                    if libc.syscall(PIDFD_GETFD, handle, 1, 0) >= 0:
                        reached.append("pidfd_getfd")
                    os.close(handle)
                os.kill(pid, signal.SIGCONT)
                with open(sys.argv[2], "a") as out:
                    out.write("".join(f"escape {part} of a worker\n" for part in reached) or "tried\n")
            except OSError:
                pass


CLAWS = {
    "kill-workers": lambda: all_workers(signal.SIGKILL),
    "stop-workers": lambda: all_workers(signal.SIGSTOP),
    "look-into-everything": look,
    "look-into-workers-that-work": look_at_those_that_stand,
}

if sys.argv[1] == "list":
    print("\n".join(CLAWS))
else:
    if os.fork():
        sys.exit()
    os.setsid()
    with open(os.path.expanduser("~/attack.pids"), "a") as pids:
        pids.write(f"{os.getpid()}\n")
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    CLAWS[sys.argv[1]]()
