"""Locks of files and directories (flock(2)). The kernel takes them back when their holder dies: none is ever left."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MADE = os.O_RDWR | os.O_CREAT
"""For a file that is there for nothing but its lock, or need not be there yet."""


def take(file: Path) -> int | None:
    """Lock a file, made if need be, for as long as the descriptor is open. None if somebody else has it."""
    handle = os.open(file, MADE | os.O_CLOEXEC, 0o600)
    if try_lock(handle):
        return handle
    os.close(handle)
    return None


def try_lock(handle: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file or directory, unless somebody else has it. Returns whether it is locked now."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def alone(place: Path, flags: int = os.O_RDONLY, mode: int = 0o600) -> Iterator[None]:
    """Hold the lock of a file or directory, opened with these flags. Waits for whoever has it."""
    handle = os.open(place, flags | os.O_CLOEXEC, mode)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:  # what was done is done, and nobody else may wait for this one
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)
        with contextlib.suppress(OSError):
            os.close(handle)
