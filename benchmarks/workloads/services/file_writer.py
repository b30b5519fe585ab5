"""Files that grow and change without pause. Arguments: PORT SIZE_MB RATE_MB_S.

Runs in the container, standard library only: blocks of a file of SIZE_MB are overwritten, RATE_MB_S of them a second,
and a second file gets the number of every write appended.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path

from answering import serve

BLOCK_BYTES = 1 << 16
TICK_S = 0.01
FOLDER = Path(tempfile.gettempdir())


class Files:
    """A file of numbered blocks, and the log of what was written to it."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.data = (FOLDER / "data").open("w+b", buffering=0)
        self.log = (FOLDER / "log").open("w+b", buffering=0)
        self.written = 0
        self.rest = os.urandom(BLOCK_BYTES - 8)
        for _ in range(blocks):
            self.write()

    def write(self) -> None:
        """Overwrite the next block and log it."""
        self.data.seek(self.written % self.blocks * BLOCK_BYTES)
        self.data.write(struct.pack("<Q", self.written) + self.rest)
        self.log.write(struct.pack("<Q", self.written))
        self.written += 1

    def whole(self) -> bool:
        """Whether the last block and the last line of the log are what was written."""
        last = self.written - 1
        block = os.pread(self.data.fileno(), 8, last % self.blocks * BLOCK_BYTES)
        line = os.pread(self.log.fileno(), 8, last * 8)
        size = os.fstat(self.log.fileno()).st_size
        return block == line == struct.pack("<Q", last) and size == self.written * 8


def main(port: str, size_mb: str, rate_mb_s: str) -> None:
    """Write in one thread and answer in another, one of them at a time."""
    files = Files(max(int(float(size_mb) * 1_000_000) // BLOCK_BYTES, 1))
    lock = threading.Lock()

    def write() -> None:
        due = 0.0
        while True:
            time.sleep(TICK_S)
            due += TICK_S * float(rate_mb_s) * 1_000_000 / BLOCK_BYTES
            with lock:
                for _ in range(int(due)):
                    files.write()
            due -= int(due)

    def whole() -> bool:
        with lock:
            return files.whole()

    threading.Thread(target=write, daemon=True).start()
    serve(int(port), whole)


if __name__ == "__main__":
    main(*sys.argv[1:])
