"""Which open descriptors processes have, and what each is open on, by the names of /proc (proc(5))."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


NOTIFIERS = {"anon_inode:inotify", "anon_inode:[fanotify]"}
"""What events about watched files are read from."""


class Held(NamedTuple):
    """The descriptor `number` of the process `pid`, and what /proc says that it is open on: `socket:[7]`."""

    pid: int
    number: int
    target: str


def descriptors(pids: Iterable[int]) -> Iterator[Held]:
    """All of these processes. What is closed meanwhile, and who ends, is passed over."""
    for pid in pids:
        with contextlib.suppress(OSError):
            place = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY)
            try:
                for name in os.listdir(place):  # noqa: PTH208 - of an open directory: paths cost
                    with contextlib.suppress(OSError):
                        yield Held(pid, int(name), os.readlink(name, dir_fd=place))
            finally:
                os.close(place)


def sockets(found: Iterable[Held]) -> dict[str, Held]:
    """One descriptor for each socket of these, by the socket's own name."""
    return {one.target: one for one in reversed(list(found)) if one.target.startswith("socket:[")}


def notifiers(found: Iterable[Held]) -> list[Held]:
    """Those by which files are watched."""
    return [one for one in found if one.target in NOTIFIERS]
