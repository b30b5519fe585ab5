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
ONE = (frozenset({READS}), frozenset({WRITES}))
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
    """The pipes of these processes whose other end another process has open. `dockers` are left out.

    An end that no process has may be on its way in a Unix socket of theirs (unix(7), SCM_RIGHTS): CRIU takes it along.
    """
    inside = set(pids)
    ends: dict[str, list[End]] = {}
    for end in _ends(inside):
        if end.pipe not in dockers:
            ends.setdefault(end.pipe, []).append(end)
    alone = {
        pipe: ways
        for pipe, its in ends.items()
        if (ways := _ways(its)) in ONE and any(map(_is_answered, its))
    }
    if not alone:  # as nearly always: then no other process is looked at
        return set()
    return {end.pipe for end in _ends(set(proc.pids()) - inside) if end.ways - alone.get(end.pipe, end.ways)}


def _ways(ends: list[End]) -> frozenset[str]:
    return frozenset(way for end in ends for way in end.ways)


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
