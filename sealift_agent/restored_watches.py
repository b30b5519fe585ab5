"""Queues of restored inotify and fanotify instances, emptied before their programs run.

CRIU opens files of the container after it has made the watches again, and the programs would read of it. What they had
not read at the source does not move (`unread`), so all that waits then is of the restore.
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import TYPE_CHECKING

from . import held, pidfd, unread

if TYPE_CHECKING:
    from collections.abc import Iterable

READ_BYTES = 1 << 16
FILE_EVENT = struct.Struct("=IBBHQii")
"""fanotify_event_metadata (linux/fanotify.h); the sixth is a descriptor for the file, or negative."""


def empty(pids: Iterable[int]) -> None:
    """Read away what waits at these processes, which do not run. What can't be read stays."""
    for one in held.notifiers(held.descriptors(pids)):
        with contextlib.suppress(OSError):
            ours = pidfd.borrow(one.pid, one.number)
            try:
                while unread.size(ours):
                    told = os.read(ours, READ_BYTES)
                    if "fanotify" in one.target:
                        _close_files(told)
            finally:
                os.close(ours)


def _close_files(told: bytes) -> None:
    """With an event of fanotify its reader gets the file opened."""
    while told:
        length, _, _, _, _, opened, _ = FILE_EVENT.unpack_from(told)
        if opened >= 0:
            os.close(opened)
        told = told[length:]
