"""Listeners of a running migration. They are told when a step begins and ends; the cutover never waits for them."""

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
    """Called from the thread that runs the step. A listener overrides the methods that it needs."""

    def began(self, container: str, step: Step) -> None:
        """A step of this container's migration begins."""

    def ended(self, container: str, record: StepRecord) -> None:
        """A step of this container's migration has ended well."""

    def heard(self, container: str, event: str) -> None:
        """The source has reported a phase of this container's cutover. Called from the thread that receives it."""

    def leaving(self, container: str) -> None:
        """A container's migration has ended, well or not. Everything is cleaned up now."""


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within a block, tell this listener of every step of this process's migrations."""
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
    """The source has reported a phase of this container's cutover."""
    for listener in _listeners:
        listener.heard(container, event)


def tell_leaving(container: str) -> None:
    """A container's migration has ended. Everything is cleaned up now."""
    for listener in _listeners:
        listener.leaving(container)
