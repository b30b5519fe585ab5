"""What a `docker exec` session has left behind, with its standard streams: it moves, and the session ends.

Its pipes have their other end outside of the container, in containerd's shim. When a client goes Docker reads on, and
nobody sees what was printed. So at the destination such a pipe is /dev/null. A pipe without another end would end the
program (SIGPIPE).

A session's terminal has its master in the shim. At the destination it is hung up, as after the end of a connection.
CRIU (4.2, criu/tty.c) would dump one such terminal at most, and look for its session at the restore. So it is told that
they are external, which it takes as they are, and the images are made those of terminals that are hung up.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from . import by_name, proc
from .images import spans
from .protobuf import fields, written
from .terminals import PLACE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from .terminals import Terminal

NOWHERE = "/dev/null"
PIPE_ID = 2  # images/pipe.proto, pipe_entry
INFO_ID, KIND, SESSION, GROUP, DEVICE, SETTINGS, PTY, FILE_SYSTEM = 1, 2, 6, 7, 8, (9, 10, 11), 12, 13
OF_PAIR, EXTERNAL = 1, 5  # images/tty.proto, tty_info_entry and TtyType
"""Numbers of CRIU's messages."""

NAME = re.compile(r"pipe:\[(\d+)\]")


class Left(NamedTuple):
    """Pipes, as /proc/PID/fd names them, and terminals whose other end is a session's."""

    pipes: Collection[str] = ()
    terminals: Collection[Terminal] = ()

    @property
    def settings(self) -> str:
        """The lines of CRIU's configuration for a dump."""
        return "".join(f"external tty[{one.rdev:x}:{one.device:x}]\n" for one in self.terminals)

    @property
    def options(self) -> list[str]:
        """Runc's options for a dump: with this one CRIU does not look for the processes that began the sessions."""
        return ["--shell-job"] if self.terminals else []


def hang_up(images: Path, first: int, terminals: Collection[Terminal]) -> None:
    """Change the images so that these terminals are hung up."""
    if not terminals:
        return
    known = {(one.rdev, one.device): one.number for one in terminals}
    infos, files = images / by_name.TERMINALS, images / by_name.FILES
    changed, numbers = hung_up(infos.read_bytes(), known)
    infos.write_bytes(changed)
    files.write_bytes(with_names(files.read_bytes(), numbers, proc.mount_of(first, PLACE)))


def hung_up(infos: bytes, known: Mapping[tuple[int, int], int]) -> tuple[bytes, dict[int, int]]:
    """An image of terminals without the settings of those in `known`, by their numbers of device and file system.

    Also their own numbers, by those that the image has for them.
    """
    changed, numbers = [], {}
    for begin, end in spans(infos):
        raw = infos[begin:end]
        entry = dict(fields(raw))
        place = by_name.integer(entry, DEVICE), by_name.integer(entry, FILE_SYSTEM)
        if entry.get(KIND) == EXTERNAL and place in known:
            number = numbers[by_name.integer(entry, INFO_ID)] = known[place]
            entry = {field: value for field, value in entry.items() if field not in SETTINGS}
            entry |= {KIND: OF_PAIR, SESSION: 0, GROUP: 0, PTY: written(1, number)}
            raw = by_name.body(entry)
        changed.append(raw)
    return by_name.image(infos, changed), numbers


def with_names(files: bytes, numbers: Mapping[int, int], mount: int) -> bytes:
    """An image of files in which CRIU finds the names of these terminals."""

    def named(entry: by_name.Entry, fresh: Iterator[int]) -> list[bytes] | None:
        number = numbers.get(by_name.integer(by_name.part(entry, by_name.TERMINAL), by_name.INFO))
        return None if number is None else by_name.with_name(entry, next(fresh), f"{PLACE}/{number}", mount)

    return by_name.rewritten(files, named)


def lead_nowhere(images: Path, first: int, pipes: Collection[str]) -> None:
    """Change the images so that these pipes, as /proc/PID/fd names them, are /dev/null."""
    numbers = {int(found[1]) & 0xFFFFFFFF for pipe in pipes if (found := NAME.fullmatch(pipe))}
    if not numbers:
        return
    plain: set[int] = set()
    mount = proc.mount_of(first, NOWHERE)

    def nowhere(entry: by_name.Entry, _: Iterator[int]) -> list[bytes] | None:
        pipe = by_name.part(entry, by_name.PIPE)
        if not pipe or by_name.integer(pipe, PIPE_ID) not in numbers:
            return None
        number = by_name.integer(entry, by_name.ID)
        plain.add(number)
        return [by_name.named(pipe, number, NOWHERE, mount)]

    files = images / by_name.FILES
    files.write_bytes(by_name.rewritten(files.read_bytes(), nowhere))
    by_name.change_descriptors(images, plain)
