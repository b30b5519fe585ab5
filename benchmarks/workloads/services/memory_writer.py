"""Memory of a given size, written at a given rate, in a given part of it. Arguments: PORT SIZE_MB RATE_MB_S LOCALITY.

Runs in the container, standard library only. A page is "written" when one number in it changes; RATE counts whole
pages, as dirty tracking does. LOCALITY is the part of the memory that the writes fall
into, between 0 and 1, spread evenly: a
writer of 100 MB with locality 0.1 dirties 10 MB again and again.
"""

from __future__ import annotations

import os
import random
import struct
import sys
import threading
import time

from answering import serve

PAGE = 4096
TICK_S = 0.01


class Memory:
    """Pages that each carry their own number and how often they were written."""

    def __init__(self, pages: int) -> None:
        self.block = bytearray(os.urandom(PAGE)) * pages  # random: nothing on the way may compress it away
        self.pages = pages
        self.written = [0] * pages
        self.random = random.Random(1)  # noqa: S311 - no secret, and the same on every run
        for page in range(pages):
            self._store(page)

    def write(self, count: int, among: int) -> None:
        """Write `count` pages, anywhere among the first `among`."""
        for _ in range(count):
            page = self.random.randrange(among)
            self.written[page] += 1
            self._store(page)

    def whole(self) -> bool:
        """Whether a handful of pages hold what was written last."""
        return all(self._holds(self.random.randrange(self.pages)) for _ in range(8))

    def _store(self, page: int) -> None:
        struct.pack_into("<QQ", self.block, page * PAGE, page, self.written[page])

    def _holds(self, page: int) -> bool:
        return struct.unpack_from("<QQ", self.block, page * PAGE) == (page, self.written[page])


def main(port: str, size_mb: str, rate_mb_s: str, locality: str) -> None:
    """Write in one thread and answer in another, one of them at a time."""
    memory = Memory(int(float(size_mb) * 1_000_000) // PAGE)
    among = max(int(memory.pages * float(locality)), 1)
    lock = threading.Lock()

    def write() -> None:
        due = 0.0
        last = time.monotonic()
        while True:
            time.sleep(TICK_S)
            now = time.monotonic()
            # After a stall the writer does not make up for what it has missed: that would be a storm of its own.
            due += min(now - last, 10 * TICK_S) * float(rate_mb_s) * 1_000_000 / PAGE
            last = now
            with lock:
                memory.write(int(due), among)
            due -= int(due)

    def whole() -> bool:
        with lock:
            return memory.whole()

    threading.Thread(target=write, daemon=True).start()
    serve(int(port), whole)


if __name__ == "__main__":
    main(*sys.argv[1:])
