"""What has to be done in another network namespace: in a thread of its own, which alone enters it."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, TypeVar

from .. import libc
from ..apart import apart

if TYPE_CHECKING:
    from collections.abc import Callable

CLONE_NEWNET = 0x40000000
"""linux/sched.h"""

Made = TypeVar("Made")


def run(namespace: str, work: Callable[[], Made]) -> Made:
    """Do it in the network namespace at that path. What it raises is raised here, and so is OSError of entering."""

    def entered() -> Made:
        handle = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            libc.call("setns", handle, CLONE_NEWNET)
        finally:
            os.close(handle)
        return work()

    return apart(entered)


def run_in_new(work: Callable[[], Made]) -> tuple[int, Made]:
    """Make a network namespace and do it there. Returns a descriptor of the namespace, and what the work returned."""

    def entered() -> tuple[int, Made]:
        libc.call("unshare", CLONE_NEWNET)
        descriptor = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
        try:
            return descriptor, work()
        except BaseException:
            os.close(descriptor)
            raise

    return apart(entered)
