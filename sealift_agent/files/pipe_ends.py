"""Pipes of a container's processes whose other end is outside: what a `docker exec` session leaves behind has some.

The kernel tells whether a pipe's other end is open anywhere (poll(2)): an error for one that nobody reads, a hang-up
for one that nobody writes.
"""

from __future__ import annotations

import contextlib
import os
import select
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .. import pidfd, proc

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

READS, WRITES = "reads", "writes"


class End(NamedTuple):
    """What a process has of the pipe `pipe` (as /proc/PID/fd names it) at a descriptor."""

    pipe: str
    pid: int
    number: int
    ways: frozenset[str]


def leading_out(pids: Iterable[int], dockers: Collection[str]) -> set[str]:
    """The pipes of these processes whose other end is open, but in none of them. `dockers` are left out."""
    ends: dict[str, list[End]] = {}
    for pid in pids:
        for end in _ends(pid):
            if end.pipe not in dockers:
                ends.setdefault(end.pipe, []).append(end)
    return {pipe for pipe, held in ends.items() if len(_ways(held)) == 1 and any(map(_is_answered, held))}


def _ways(held: list[End]) -> set[str]:
    return {way for end in held for way in end.ways}


def _ends(pid: int) -> Iterator[End]:
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError, StopIteration, ValueError):
                target = str(Path(entry.path).readlink())
                if target.startswith("pipe:"):
                    yield End(target, pid, int(entry.name), _open_for(pid, entry.name))


def _open_for(pid: int, number: str) -> frozenset[str]:
    line = next(line for line in proc.lines(pid, f"fdinfo/{number}") if line.startswith("flags:"))
    access = int(line.split()[1], 8) & os.O_ACCMODE
    return frozenset(
        {READS} if access == os.O_RDONLY else {WRITES} if access == os.O_WRONLY else {READS, WRITES}
    )


def _is_answered(end: End) -> bool:
    """Whether the other end is open somewhere."""
    try:
        ours = pidfd.borrow(end.pid, end.number)
    except OSError:  # closed meanwhile
        return False
    try:
        poll = select.poll()
        poll.register(ours, 0)  # errors and hang-ups are always told
        return not poll.poll(0)
    finally:
        os.close(ours)
