"""Other processes' descriptors, had as descriptors of this one (pidfd_getfd(2)): what they are open on is the same."""

from __future__ import annotations

import os

from . import libc

PIDFD_GETFD = 438
"""Its number on every architecture (since Linux 5.6)."""


def borrow(pid: int, descriptor: int) -> int:
    """A descriptor for what `descriptor` of a process is open on. OSError where that may not be had."""
    process = os.pidfd_open(pid)
    try:
        return libc.system_call(PIDFD_GETFD, process, descriptor, 0, about=f"/proc/{pid}/fd/{descriptor}")
    finally:
        os.close(process)
