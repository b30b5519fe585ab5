"""What has to be done in another namespace: in a thread of its own, which alone enters it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Made = TypeVar("Made")


def apart(work: Callable[[], Made]) -> Made:
    """Do it in a new thread, which ends with it. What it raises is raised here."""
    made: list[Made] = []
    failures: list[Exception] = []

    def do() -> None:
        try:
            made.append(work())
        except Exception as failure:  # noqa: BLE001 - it is raised again, in the thread that waits
            failures.append(failure)

    thread = threading.Thread(target=do)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return made[0]
