"""Stands for what CRIU's restore does with a process of which pages are to follow, and is that process.

Run as `python3 restored.py DIRECTORY START:PAGES…`: it maps these pages, has the kernel tell of faults in them
(userfaultfd(2)), hands itself over as process 7 at the socket in the directory, and says that all are restored. Then it
does what its standard input says, a line each, and answers each with a line.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

USERFAULTFD, O_CLOEXEC, O_NONBLOCK = 323, 0o2000000, 0o4000
API, REGISTER = 0xC018AA3F, 0xC020AA00
EVENTS = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6
"""UFFD_FEATURE_EVENT_FORK, _REMAP, _REMOVE, _UNMAP."""

PAGE_BYTES = 4096
PRIVATE_ANONYMOUS, FIXED, READ_WRITE = 0x22, 0x100000, 3
DONTNEED, MAYMOVE_FIXED = 4, 3
FINISHED = 0x52535446

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def hand_over(directory: str, ranges: list[tuple[int, int]]) -> None:
    faults = libc.syscall(USERFAULTFD, O_CLOEXEC | O_NONBLOCK)
    fcntl.ioctl(faults, API, bytearray(struct.pack("QQQ", 0xAA, EVENTS, 0)))
    for start, pages in ranges:
        got = libc.mmap(start, pages * PAGE_BYTES, READ_WRITE, PRIVATE_ANONYMOUS | FIXED, -1, 0)
        assert got == start
        fcntl.ioctl(faults, REGISTER, bytearray(struct.pack("QQQQ", start, pages * PAGE_BYTES, 1, 0)))
    os.chdir(directory)
    with socket.socket(socket.AF_UNIX) as pager:
        pager.connect("lazy-pages.socket")
        pager.sendall(struct.pack("=i", -3))
        pager.sendall(struct.pack("=i", 7))
        socket.send_fds(pager, [b"x"], [faults])
        pager.sendall(struct.pack("=I", FINISHED))
    os.close(faults)


def first_words(start: int, pages: int) -> list[int]:
    return [ctypes.c_uint64.from_address(start + number * PAGE_BYTES).value for number in range(pages)]


def in_child(start: int, pages: int) -> Callable[[], str]:
    """Have a child read all of it. Returns what waits for what it found."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, repr(first_words(start, pages)).encode())
        os._exit(0)
    os.close(writer)

    def found() -> str:
        with os.fdopen(reader) as said:
            words = said.read()
        os.waitpid(child, 0)
        return words

    return found


def do(order: str, start: int, pages: int, to: int = 0) -> object:
    found: object = None
    match order:
        case "read":
            found = first_words(start, pages)
        case "write":
            for number in range(pages):
                ctypes.c_uint64.from_address(start + number * PAGE_BYTES).value = to
        case "drop":
            found = libc.madvise(start, pages * PAGE_BYTES, DONTNEED)
        case "unmap":
            found = libc.munmap(start, pages * PAGE_BYTES)
        case "move":
            found = libc.mremap(start, pages * PAGE_BYTES, pages * PAGE_BYTES, MAYMOVE_FIXED, to)
        case "fork":
            found = in_child(start, pages)()
        case "family":  # children come while others read, and the parent lets go of other memory all the time
            children = []
            for number in range(8):
                children.append(in_child(start, pages))
                libc.madvise(to + number * 8 * PAGE_BYTES, 8 * PAGE_BYTES, DONTNEED)
                first_words(start + number * 40 * PAGE_BYTES, 3)
            found = len({child() for child in children})
    return found


if __name__ == "__main__":
    hand_over(sys.argv[1], [(int(one.split(":")[0]), int(one.split(":")[1])) for one in sys.argv[2:]])
    print("restored", flush=True)
    for line in sys.stdin:
        name, *words = line.split()
        print(do(name, *map(int, words)), flush=True)
