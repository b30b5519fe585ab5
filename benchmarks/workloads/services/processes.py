"""Many processes with memory of their own, each of which counts. Arguments: PORT COUNT SIZE_MB.

Runs in the container, standard library only. SIZE_MB is what all of them hold together. A process that has vanished, or
does not count any more, is found at the next question.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time

from answering import serve

PAUSE_S = 0.01
POLL_S = 0.1
STALLED_S = 5
"""A live process counts a hundred times a second: on a machine with two processors and hundreds of them, a bit less."""


def count(counters: mmap.mmap, number: int, size: int) -> None:
    """A child's life: hold memory, count."""
    memory = bytearray(os.urandom(mmap.PAGESIZE)) * (size // mmap.PAGESIZE)
    counted = 0
    while True:
        counted += 1
        memory[counted % max(len(memory), 1)] = 1
        struct.pack_into("<Q", counters, 8 * number, counted)
        time.sleep(PAUSE_S)


class Family:
    """The children and how far they had counted when they were last looked at."""

    def __init__(self, counters: mmap.mmap, children: list[int]) -> None:
        self.counters, self.children = counters, children
        self.looked = time.monotonic()
        self.running_s = 0.0
        self.seen = [(0, 0.0) for _ in children]

    def whole(self) -> bool:
        """Whether all are there, none has counted back, none has stalled."""
        # The clock goes on while everything is frozen: of a time without questions only a part can have been running.
        now = time.monotonic()
        self.running_s += min(now - self.looked, POLL_S)
        self.looked = now
        for number in range(len(self.children)):
            counted = struct.unpack_from("<Q", self.counters, 8 * number)[0]
            before, at = self.seen[number]
            if counted < before or (counted == before and self.running_s - at > STALLED_S):
                return False
            if counted > before:
                self.seen[number] = counted, self.running_s
        return os.waitpid(-1, os.WNOHANG) == (0, 0)


def main(port: str, number_of: str, size_mb: str) -> None:
    """Fork the children, then answer."""
    number = int(number_of)
    counters = mmap.mmap(-1, max(8 * number, mmap.PAGESIZE))
    children = []
    for index in range(number):
        child = os.fork()
        if child == 0:
            count(counters, index, max(int(float(size_mb) * 1_000_000) // number, mmap.PAGESIZE))
        children.append(child)
    serve(int(port), Family(counters, children).whole)


if __name__ == "__main__":
    main(*sys.argv[1:])
