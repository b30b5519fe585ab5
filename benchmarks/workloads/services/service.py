"""The service itself: runs in the container (`python3 -c`), standard library only. Argument: PORT.

Every line that a client sends is answered by one JSON object: who the process is, how far its threads have counted,
what became of its files, and how often a clock stepped back (never, one hopes).
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import pathlib
import socketserver
import struct
import sys
import tempfile
import threading
import time

THREADS = 4
BLOCK = os.urandom(8 << 20)
BLOCK_HASH = hashlib.sha256(BLOCK).hexdigest()
DATA = pathlib.Path("/home/workload")

counts = [0] * THREADS
steps_back = {"monotonic": 0, "boottime": 0}


class Numbers:
    """A file of consecutive 64-bit numbers, written one by one: what is missing or twice in it shows."""

    def __init__(self, path: pathlib.Path | None) -> None:
        # Without a path the file is open but has no name any more.
        self.file = path.open("w+b", buffering=0) if path else tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self.written = 0

    def write(self) -> None:
        """Append the next number."""
        self.file.write(struct.pack("<Q", self.written))
        self.written += 1

    def report(self) -> dict[str, object]:
        """Whether the file holds what was written, and its offset is where it was left."""
        content = os.pread(self.file.fileno(), 8 * self.written, 0)
        expected = b"".join(struct.pack("<Q", number) for number in range(self.written))
        offset = os.lseek(self.file.fileno(), 0, os.SEEK_CUR)
        return {
            "numbers": self.written,
            "whole": content == expected,
            "offset_kept": offset == 8 * self.written,
        }


class Mapping:
    """A number in a file that is mapped shared: the kernel gives the file its content whenever it likes."""

    def __init__(self, path: pathlib.Path) -> None:
        path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self.map = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self.number = 0

    def write(self) -> None:
        """Store the next number."""
        self.number += 1
        struct.pack_into("<Q", self.map, 0, self.number)

    def report(self) -> dict[str, object]:
        """Whether the file holds the number stored last."""
        return {"number": self.number, "whole": struct.unpack_from("<Q", self.map, 0)[0] == self.number}


lock = threading.Lock()
files = {
    "layer": Numbers(pathlib.Path("/tmp/numbers")),
    "volume": Numbers(DATA / "numbers"),
    "deleted": Numbers(None),
}
mappings = {"layer": Mapping(pathlib.Path("/tmp/mapped")), "volume": Mapping(DATA / "mapped")}


def count(number: int) -> None:
    """One thread's work."""
    while True:
        counts[number] += 1
        time.sleep(0.001)


def write() -> None:
    """The writing thread's work."""
    while True:
        with lock:
            for file in files.values():
                file.write()
            for mapping in mappings.values():
                mapping.write()
        time.sleep(0.002)


def watch_clocks() -> None:
    """Compare each reading of both clocks with the one before."""
    clocks = {"monotonic": time.CLOCK_MONOTONIC, "boottime": time.CLOCK_BOOTTIME}
    last = {name: time.clock_gettime_ns(clock) for name, clock in clocks.items()}
    while True:
        for name, clock in clocks.items():
            now = time.clock_gettime_ns(clock)
            steps_back[name] += now < last[name]
            last[name] = now
        time.sleep(0.001)


def report() -> dict[str, object]:
    """Everything that a migration could change."""
    with lock:
        return {
            "pid": os.getpid(),
            "uid": os.getuid(),
            "gid": os.getgid(),
            "groups": os.getgroups(),
            "cwd": str(pathlib.Path.cwd()),
            "environment": dict(os.environ),
            "argv": pathlib.Path("/proc/self/cmdline").read_bytes().decode().split("\0")[-2:],
            "hostname": os.uname().nodename,
            "threads": sorted(thread.name for thread in threading.enumerate() if not thread.daemon),
            "memory_whole": hashlib.sha256(BLOCK).hexdigest() == BLOCK_HASH,
            "memory": BLOCK_HASH,
            "counts": list(counts),
            "files": {name: file.report() for name, file in files.items()},
            "mappings": {name: mapping.report() for name, mapping in mappings.items()},
            "monotonic_ns": time.clock_gettime_ns(time.CLOCK_MONOTONIC),
            "boottime_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            "steps_back": dict(steps_back),
        }


class Answer(socketserver.StreamRequestHandler):
    """One client's connection."""

    def handle(self) -> None:
        """A report for every line."""
        for _ in self.rfile:
            self.wfile.write(json.dumps(report()).encode() + b"\n")


class Server(socketserver.ThreadingTCPServer):
    """Where clients connect."""

    allow_reuse_address = True
    daemon_threads = True


workers = [
    threading.Thread(target=count, args=(number,), name=f"count-{number}") for number in range(THREADS)
]
workers += [
    threading.Thread(target=write, name="write"),
    threading.Thread(target=watch_clocks, name="clocks"),
]
for worker in workers:
    worker.start()
print("serving", flush=True)
Server(("0.0.0.0", int(sys.argv[-1])), Answer).serve_forever()
