"""What a container had on its disk it has on its disk at the destination, before it is the destination's.

Files that arrive are in the page cache, which a loss of power takes away; and of what was written through at the source
(fsync(2)) nothing else would be left after the commit. So each file system that a tree lies in is flushed: once before
the freeze, and once in it, beside the restore, if anything has come since.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from .. import libc
from ..wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterable


class Flush:
    """Under way from its making on. `wait` is for its end."""

    def __init__(self, places: Iterable[str]) -> None:
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._flush, args=(list(places),), daemon=True, name="flush")
        self._thread.start()

    def _flush(self, places: list[str]) -> None:
        try:
            for place in {Path(place).stat().st_dev: place for place in places}.values():
                _syncfs(place)
        except OSError as failure:
            self._failure = failure

    def wait(self, timeout_s: float | None = None) -> None:
        """AgentError if not all of it is on the disks, or not in time."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise AgentError(f"the disk has not taken the files that came in {timeout_s:g} s", "transfer")
        if self._failure is not None:
            raise AgentError(f"files that came can't be written to the disk: {self._failure}", "transfer")


def _syncfs(place: str) -> None:
    """syncfs(2) of the file system that a place is in. Since Linux 5.8 it tells of writes that have failed."""
    handle = os.open(place, os.O_RDONLY)
    try:
        libc.call("syncfs", handle, about=place)
    finally:
        os.close(handle)
