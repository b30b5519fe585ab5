"""Write files to the destination's disk before the commit, as they were on the source's disk.

Files that arrive are in the page cache and would be lost with the power. After the commit no other copy exists of what
the source had on its disk (fsync(2)). So the file system of each tree is flushed once before the freeze. If more files
have come, it is flushed again in the freeze, at the same time as the restore.
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
    """A flush that begins when this is made. `wait` waits for its end."""

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
        """AgentError if something can't be written, or if it takes longer than `timeout_s` seconds."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise AgentError(f"the disk has not taken the files that came in {timeout_s:g} s", "transfer")
        if self._failure is not None:
            raise AgentError(f"files that came can't be written to the disk: {self._failure}", "transfer")


def _syncfs(place: str) -> None:
    """Call syncfs(2) for the file system of a place. Since Linux 5.8 it reports writes that have failed."""
    handle = os.open(place, os.O_RDONLY)
    try:
        libc.call("syncfs", handle, about=place)
    finally:
        os.close(handle)
