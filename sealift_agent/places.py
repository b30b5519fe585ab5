"""How many migrations may be under way at once at a host, and on the link between two: places at the gateway.

A place is a file that its holder has locked. The kernel takes the lock back when he dies, so no place is ever lost.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from . import locks

PLACES = Path("/run/sealift/places")


class Places:
    """Those of one controller. They go with the process."""

    def __init__(self, folder: Path = PLACES) -> None:
        self.folder = folder
        self._held: list[int] = []

    def enter(self, limits: dict[str, int]) -> list[str]:
        """Take one place of each name, of as many as its limit says, or none. Returns the names that are full."""
        taken: list[int] = []
        full = []
        for name, limit in sorted(limits.items()):
            place = self._take(name, limit)
            if place is None:
                full.append(name)
            else:
                taken.append(place)
        if full:
            while taken:
                os.close(taken.pop())
        self._held += taken
        return full

    def _take(self, name: str, limit: int) -> int | None:
        folder = self.folder / quote(name, safe="")
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(limit):
            if (handle := locks.take(folder / str(number))) is not None:
                return handle
        return None
