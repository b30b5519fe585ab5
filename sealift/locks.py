"""Locks of files (flock(2)) between programs of one machine. The kernel takes them back when their holder dies."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def try_lock(handle: int) -> bool:
    """Lock an open file, unless somebody else has it. Returns whether it is locked now."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def alone(file: Path, on_wait: Callable[[], object] | None = None) -> Iterator[None]:
    """Hold the lock of a file, made if need be. Waits for whoever has it, and calls `on_wait` before that."""
    with file.open("w") as lock:
        if not try_lock(lock.fileno()):
            if on_wait is not None:
                on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
