"""What has to be done in the network namespace of another process."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, TypeVar

from .. import libc

if TYPE_CHECKING:
    from collections.abc import Callable

CLONE_NEWNET = 0x40000000
"""linux/sched.h"""

Made = TypeVar("Made")


def run(pid: int, work: Callable[[], Made]) -> Made:
    """Do it in a thread of its own, which alone enters the namespace of `pid`. Whatever it raises is raised here."""
    made: list[Made] = []
    failures: list[Exception] = []

    def enter() -> None:
        try:
            handle = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                libc.call("setns", handle, CLONE_NEWNET)
            finally:
                os.close(handle)
            made.append(work())
        except Exception as failure:  # noqa: BLE001 - it is raised again, in the thread that waits
            failures.append(failure)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return made[0]
