"""Transfer of a container's output: Docker's log in its `json-file` format, every line once.

At the destination Docker opens the container's log when it starts the container, which is before the freeze. From then
on it reads only what it has written itself. So the lines up to a mark are copied before that. Later lines are printed
again at the destination (`printing`): most before the freeze, the rest in it.

Docker may rotate a log at any time (`max-size`, `max-file`, `compress`): it renames the files, removes the oldest, and
may compress others (moby, daemon/logger/loggerutils/logfile.go). So files are kept open and identified by inode, not by
name.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import zlib
from pathlib import Path
from typing import BinaryIO

TAIL = "log-tail"
"""The name of the last lines' file among the images."""

BLOCK_BYTES = 1 << 16
PIECE_BYTES = 1 << 20


class _Held:
    """One open file of a log. `ending` is the part of its name after the log's own name."""

    def __init__(self, path: Path, ending: str) -> None:
        self.file: BinaryIO = path.open("rb", buffering=0)
        self.ending = ending
        self._expanded: BinaryIO | None = None

    @property
    def lines(self) -> BinaryIO:
        """Its content, uncompressed."""
        if not self.ending.endswith(".gz"):
            return self.file
        if self._expanded is None:
            try:
                self._expanded = io.BytesIO(gzip.decompress(_all(self.file)))
            except (OSError, EOFError, zlib.error):  # dockerd was killed while it wrote the file
                self._expanded = io.BytesIO()
        return self._expanded

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        seen = os.fstat(self.file.fileno())
        return seen.st_dev, seen.st_ino

    def is_same(self, other: _Held) -> bool:
        """Whether the other is the same file, or its compressed copy."""
        if self.identity == other.identity:
            return True
        plain, packed = self.lines is self.file, other.lines is not other.file
        return plain and packed and _all(self.lines) == _all(other.lines)

    def close(self) -> None:
        self.file.close()


class Log:
    """The log at the source. `marked` bytes of its newest file were copied.

    The lines after them are taken in pieces.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.marked = 0
        self._marked: list[_Held] = []
        self._now: _Held | None = None
        self._at = 0

    def mark(self) -> int:
        """Set the mark after the last whole line. Returns its offset in the newest file."""
        self.close()
        self._marked = self._open()
        newest = self._marked[0] if self._marked and not self._marked[0].ending else None
        self._now, self._at = newest, _end_of_last_line(newest.file) if newest is not None else 0
        self.marked = self._at
        return self.marked

    def files(self) -> dict[Path, str]:
        """The log's files at the moment of the mark, with the rotated ones, and the endings of their names.

        Their paths are of this process's descriptors, since Docker may rename the files meanwhile.
        """
        return {
            Path(f"/proc/{os.getpid()}/fd/{held.file.fileno()}"): held.ending
            for held in sorted(self._marked, key=lambda held: held.ending)
        }

    def behind(self) -> int:
        """About how many bytes have been printed since the mark."""
        newest = self.path.stat().st_size if self.path.exists() else 0
        if self._now is None:
            return newest
        left = self._now.lines.seek(0, 2) - self._at
        return left if self._now.identity == _identity(self.path) else left + newest

    def take(self, most: int = PIECE_BYTES) -> bytes:
        """The next whole lines, of about `most` bytes. The mark moves behind them. Empty if there are no more."""
        while True:
            if self._now is not None:
                self._now.lines.seek(self._at)
                piece = self._now.lines.read(most)
                whole = piece[: piece.rfind(b"\n") + 1]
                if not whole and len(piece) == most:  # the line is longer
                    whole = piece + self._now.lines.readline()
                if whole.endswith(b"\n"):
                    self._at += len(whole)
                    return whole
            if not self._turn():
                return b""

    def _turn(self) -> bool:
        """Continue with the next younger file. False if there is none, since this one is still written to."""
        if self._now is not None and self._now.identity == _identity(self.path):
            return False
        younger, is_past = None, False
        for held in self._open():  # the newest first
            is_past = is_past or (self._now is not None and self._now.is_same(held))
            if not is_past:
                younger, held = held, younger  # noqa: PLW2901 - the one before is not wanted
            if held is not None:
                held.close()
        if younger is None:
            return False
        if self._now is not None and self._now not in self._marked:
            self._now.close()
        self._now, self._at = younger, 0
        return True

    def _open(self) -> list[_Held]:
        """Open all files of the log, the newest first, as they were at one moment."""
        while True:
            names = self._names()
            opened, complete = [], True
            for ending in names:
                try:
                    opened.append(_Held(self._named(ending), ending))
                except FileNotFoundError:
                    complete = False
            same = all(held.identity == _identity(self._named(held.ending)) for held in opened)
            if complete and same and names == self._names():
                return opened
            for held in opened:
                held.close()

    def _named(self, ending: str) -> Path:
        return self.path.with_name(self.path.name + ending)

    def _names(self) -> list[str]:
        """The endings of the log's file names. If a file is being compressed, only the uncompressed one counts."""
        found = {}
        for path in self.path.parent.glob(f"{self.path.name}*"):
            ending = path.name[len(self.path.name) :]
            if numbered := re.fullmatch(r"(?:\.(\d+))?(\.gz)?", ending):
                number = int(numbered[1] or 0)
                if number not in found or not numbered[2]:
                    found[number] = ending
        return [found[number] for number in sorted(found)]

    def close(self) -> None:
        """Close all files."""
        for held in [*self._marked, *([self._now] if self._now is not None else [])]:
            held.close()
        self._marked, self._now = [], None


def _all(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        seen = path.stat()
    except FileNotFoundError:
        return None
    return seen.st_dev, seen.st_ino


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
    """At the destination, before Docker opens the log: remove what is after the mark."""
    if path.exists():
        with path.open("r+b") as file:
            file.truncate(marked)
