"""Descriptors of /dev/tty, the name under which a process opens the terminal of its session.

CRIU (4.2, criu/tty.c, `tty_verify_ctty`) dumps one only while the session's first process is in the terminal's
foreground, and only of that process: others would not have the terminal when they open it at the restore. And it waits
forever where a process has opened /dev/tty twice. All processes of the container's own terminal have it from their
beginning (`interposed.c`). So CRIU is told that such a descriptor is external, which it takes as it is. In the images
it becomes a file like others, which CRIU opens by its name.

Those of terminals that were made inside, by `script` or `tmux`, become what CRIU would have made of them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import by_name, proc
from .images import spans
from .protobuf import places

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NAME = "/dev/tty"
DEVICE = os.makedev(5, 0)
OUTERMOST = 1
"""The session of the container's first process."""

INFO_ID, INFO_TYPE, INFO_SESSION, INFO_DEVICE = 1, 2, 6, 8  # images/tty.proto, tty_info_entry
EXTERNAL, OF_SESSION = 5, 4  # images/tty.proto, TtyType
"""Numbers of CRIU's messages."""


class Mended(NamedTuple):
    """An image with files, and the ids of those that are no terminals any more."""

    files: bytes
    plain: set[int]


def settings(first: int) -> str:
    """The line of CRIU's configuration for a dump of the container with this first process."""
    try:
        seen = Path(f"/proc/{first}/root{NAME}").lstat()
    except OSError:
        return ""
    return f"external tty[{DEVICE:x}:{seen.st_dev:x}]\n" if seen.st_rdev == DEVICE else ""


def mend(images: Path, first: int) -> None:
    """Put the images right after such a dump."""
    try:
        infos = bytearray((images / by_name.TERMINALS).read_bytes())
    except FileNotFoundError:
        return
    if sessions := dict(_change_types(infos)):
        (images / by_name.TERMINALS).write_bytes(infos)
        files = images / by_name.FILES
        mended = mend_files(files.read_bytes(), sessions, proc.mount_of(first, NAME))
        files.write_bytes(mended.files)
        by_name.change_descriptors(images, mended.plain)


def _change_types(infos: bytearray) -> Iterator[tuple[int, int]]:
    """Make the external terminals here those of a session. Their numbers, and the sessions."""
    for begin, end in spans(infos):
        found = {place.number: place for place in places(infos, begin, end)}
        if found[INFO_DEVICE].value == DEVICE and found[INFO_TYPE].value == EXTERNAL:
            infos[found[INFO_TYPE].at] = OF_SESSION
            yield found[INFO_ID].value, found[INFO_SESSION].value


def mend_files(files: bytes, sessions: Mapping[int, int], mount: int) -> Mended:
    """`sessions` has the session of each terminal to be mended, by the terminal's number."""
    plain: set[int] = set()

    def mended(entry: by_name.Entry, fresh: Iterator[int]) -> list[bytes] | None:
        terminal = by_name.part(entry, by_name.TERMINAL)
        session = sessions.get(by_name.integer(terminal, by_name.INFO))
        if session is None:
            return None
        if session != OUTERMOST:
            return by_name.with_name(entry, next(fresh), NAME, mount)
        number = by_name.integer(entry, by_name.ID)
        plain.add(number)
        return [by_name.named(terminal, number, NAME, mount)]

    return Mended(by_name.rewritten(files, mended), plain)
