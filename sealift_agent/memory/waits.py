"""How long restored processes wait for pages that follow.

A wait begins when the pager reads of a page fault, and ends when the page is there. What the fault waits in the kernel
before a busy pager reads it is not counted.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from .missing import Missing


class Waits:
    """From `resume` on: `begin` → `end`, for each page that a process lacks; `told` has the sums.

    While several threads of a process wait, its time counts once.
    """

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._pages: dict[Hashable, dict[int, int]] = {}
        self._since: dict[Hashable, int] = {}
        self._waited: dict[Hashable, int] = {}
        self._longest, self._faults = 0, 0
        self._resumed: int | None = None

    @property
    def resumed(self) -> bool:
        """Whether all processes were restored."""
        return self._resumed is not None

    def resume(self) -> None:
        """All processes are restored, and go on."""
        self._resumed = self._clock()

    def begin(self, memory: Hashable, address: int) -> None:
        """A process waits for a page. What CRIU waits for while it restores is part of the freeze."""
        if self._resumed is not None:
            now = self._clock()
            self._faults += 1
            self._since.setdefault(memory, now)
            self._pages.setdefault(memory, {}).setdefault(address, now)

    def settle(self, memory: Hashable, missing: Missing) -> None:
        """End the waits of a process for pages that it does not lack any more."""
        for address in list(self._pages.get(memory, ())):
            if missing.origin(address) is None:
                self.end(memory, address)

    def end(self, memory: Hashable, address: int) -> None:
        """The page is there."""
        pages = self._pages.get(memory, {})
        began = pages.pop(address, None)
        if began is None:
            return
        now = self._clock()
        self._longest = max(self._longest, now - began)
        if not pages:
            del self._pages[memory]
            self._waited[memory] = self._waited.get(memory, 0) + now - self._since.pop(memory)

    def told(self) -> dict[str, int]:
        """For the agent, when all memory is in: see `protocol.Waited`."""
        complete = 0 if self._resumed is None else self._clock() - self._resumed
        return {
            "most_ns": max(self._waited.values(), default=0),
            "longest_ns": self._longest,
            "faults": self._faults,
            "complete_ns": complete,
        }
