"""Other processes' descriptors, had as descriptors of this one (pidfd_getfd(2)): what they are open on is the same."""

from __future__ import annotations

import ctypes
import os

PIDFD_GETFD = 438
"""Its number on every architecture (since Linux 5.6)."""

_libc = ctypes.CDLL(None, use_errno=True)


def borrow(pid: int, descriptor: int) -> int:
    """A descriptor for what `descriptor` of a process is open on. OSError where that may not be had."""
    process = os.pidfd_open(pid)
    try:
        number = int(_libc.syscall(PIDFD_GETFD, process, descriptor, 0))
    finally:
        os.close(process)
    if number < 0:
        raise OSError(ctypes.get_errno(), f"descriptor {descriptor} of process {pid}")
    return number
