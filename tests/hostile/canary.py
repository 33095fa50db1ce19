#!/usr/bin/env python3
"""Notes every open, read and change of a file (inotify(7)) as a line in another, until it is ended."""
import ctypes, os, struct, sys

libc = ctypes.CDLL(None)
queue = libc.inotify_init1(0)
# ACCESS, MODIFY, ATTRIB, OPEN, DELETE_SELF, MOVE_SELF
assert libc.inotify_add_watch(queue, sys.argv[1].encode(), 0x1 | 0x2 | 0x4 | 0x20 | 0x400 | 0x800) >= 0
with open(sys.argv[2], "w", buffering=1) as seen:
    seen.write("watching\n")
    while True:
        _, mask, _, _ = struct.unpack_from("iIII", os.read(queue, 4096))
        seen.write(f"{mask:#x}\n")
