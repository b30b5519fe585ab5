"""Pipes of a container's processes whose other end is outside: what a `docker exec` session leaves behind has some.

The kernel tells whether a pipe's other end is open anywhere (poll(2)): an error for one that nobody reads, a hang-up
for one that nobody writes.
"""

from __future__ import annotations

import contextlib
import os
import select
from typing import TYPE_CHECKING, NamedTuple

from .. import held, pidfd, proc

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

READS, WRITES = "reads", "writes"
WAYS = {
    os.O_RDONLY: frozenset({READS}),
    os.O_WRONLY: frozenset({WRITES}),
    os.O_RDWR: frozenset({READS, WRITES}),
}


class End(NamedTuple):
    """What a process has of the pipe `pipe` (as /proc/PID/fd names it) at a descriptor."""

    pipe: str
    pid: int
    number: int
    ways: frozenset[str]


def leading_out(pids: Iterable[int], dockers: Collection[str]) -> set[str]:
    """The pipes of these processes whose other end is open, but in none of them. `dockers` are left out."""
    ends: dict[str, list[End]] = {}
    for end in _ends(pids):
        if end.pipe not in dockers:
            ends.setdefault(end.pipe, []).append(end)
    return {pipe for pipe, its in ends.items() if len(_ways(its)) == 1 and any(map(_is_answered, its))}


def _ways(ends: list[End]) -> set[str]:
    return {way for end in ends for way in end.ways}


def _ends(pids: Iterable[int]) -> Iterator[End]:
    for one in held.descriptors(pids):
        if one.target.startswith("pipe:"):
            with contextlib.suppress(OSError, LookupError):
                access = proc.fdinfo(one.pid, one.number)["flags"] & os.O_ACCMODE
                yield End(one.target, one.pid, one.number, WAYS[access])


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
