"""Breakpoints of the processor, which CRIU sets in each process to find the end of its own code in it.

The first event that any process of a kernel has (a breakpoint is one) waits until every processor has noticed
(kernel/events/core.c, account_event: synchronize_rcu): 6 to 20 ms of a freeze, once in the dump and once in the
restore. Whoever has an event of his own by then has waited beforehand, for all.
"""

from __future__ import annotations

import contextlib
import os
import struct

from . import libc

PERF_EVENT_OPEN = 298
"""Its number on x86-64, the only architecture that has encrypted VMs of AMD's."""

SOFTWARE, DUMMY = 1, 9
DISABLED, EXCLUDE_KERNEL = 1 << 0, 1 << 5
"""perf_event_open(2): an event that nothing counts, and that every process may have."""

ATTRIBUTES = struct.Struct("=IIQQQQQ72x")
"""Type, size, config, period, what to sample, what to read, flags; the rest is zero (PERF_ATTR_SIZE_VER6)."""

CLOSE_ON_EXEC = 8


class Ready:
    """From now on until `close` a breakpoint is set at once, if the kernel lets this process have an event."""

    def __init__(self) -> None:
        flags = DISABLED | EXCLUDE_KERNEL
        attributes = ATTRIBUTES.pack(SOFTWARE, ATTRIBUTES.size, DUMMY, 0, 0, 0, flags)
        # Of this process, on whatever processor, in no group.
        self._event = -1
        with contextlib.suppress(OSError):
            self._event = libc.system_call(PERF_EVENT_OPEN, attributes, 0, -1, -1, CLOSE_ON_EXEC)

    def close(self) -> None:
        """It is needed no longer."""
        if self._event >= 0:
            os.close(self._event)
            self._event = -1
