"""What a container has printed goes along: Docker's log in its `json-file` format, every line once.

Docker opens the log of the container at the destination when it starts it, which is before the freeze, and reads from
then on only what it has written itself. So the lines up to a mark are copied before that, and those that were printed
later are printed again at the destination, through the pipes that the restored processes are about to get.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

TAIL = "log-tail"
"""The name under which the later lines travel, among the images."""

BLOCK_BYTES = 1 << 16
STREAMS = {"stdout": 1, "stderr": 2}


class Log:
    """The log at the source. `marked` bytes of it are copied; the rest is the tail."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.marked = 0
        self._inode = 0

    def files(self) -> dict[Path, str]:
        """The log's files, the rotated ones too, with what their names end in after the log's own."""
        found = sorted(self.path.parent.glob(f"{self.path.name}*"))
        return {path: path.name[len(self.path.name) :] for path in found}

    def mark(self) -> int:
        """Put the mark behind the last whole line. Returns where that is."""
        try:
            with self.path.open("rb") as file:
                self._inode = self.path.stat().st_ino
                self.marked = _end_of_last_line(file)
        except FileNotFoundError:
            self.marked = 0
        return self.marked

    def tail(self) -> bytes:
        """What was printed since the mark. Lines that Docker has rotated away since are in the log's own files."""
        try:
            with self.path.open("rb") as file:
                if self.path.stat().st_ino == self._inode:
                    file.seek(self.marked)
                return file.read()
        except FileNotFoundError:
            return b""


def _end_of_last_line(file: BinaryIO) -> int:
    end = file.seek(0, 2)
    while end > 0:
        start = max(0, end - BLOCK_BYTES)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def cut(path: Path, marked: int) -> None:
    """At the destination, before Docker opens the log: nothing beyond the mark."""
    if path.exists():
        with path.open("r+b") as file:
            file.truncate(marked)


def print_again(tail: bytes, process: int) -> None:
    """Print the lines through the standard output and error of a process."""
    pipes = {}
    try:
        for line in tail.splitlines():
            try:
                entry = json.loads(line)
                number = STREAMS[entry["stream"]]
            except (ValueError, KeyError, TypeError):
                continue  # the last line of a daemon that was killed while it wrote
            if number not in pipes:
                pipes[number] = Path(f"/proc/{process}/fd/{number}").open("wb", buffering=0)  # noqa: SIM115
            pipes[number].write(entry["log"].encode())
    finally:
        for pipe in pipes.values():
            pipe.close()
