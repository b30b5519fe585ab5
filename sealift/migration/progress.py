"""Who wants to see a migration while it goes on: told when a step begins and ends, never waited for by the cutover."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.model import Step, StepRecord

_listeners: list[Listener] = []
_lock = threading.Lock()


class Listener:
    """Called from the thread that runs the step. What a listener does not care for, it leaves out."""

    def began(self, container: str, step: Step) -> None:
        """A step of this container's migration begins."""

    def ended(self, container: str, record: StepRecord) -> None:
        """A step of this container's migration has ended well."""

    def heard(self, container: str, event: str) -> None:
        """The source has said how far the cutover of this container is. From the thread that hears it."""

    def leaving(self, container: str) -> None:
        """A container's migration is over, well or not: everything is put away now."""


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell this listener of every step of this process's migrations for the length of a block."""
    with _lock:
        _listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(listener)


def tell_began(container: str, step: Step) -> None:
    """A step of this container's migration begins."""
    for listener in _listeners:
        listener.began(container, step)


def tell_ended(container: str, record: StepRecord) -> None:
    """A step of this container's migration has ended well."""
    for listener in _listeners:
        listener.ended(container, record)


def tell_heard(container: str, event: str) -> None:
    """The source has said how far the cutover of this container is."""
    for listener in _listeners:
        listener.heard(container, event)


def tell_leaving(container: str) -> None:
    """A container's migration is over: everything is put away now."""
    for listener in _listeners:
        listener.leaving(container)
