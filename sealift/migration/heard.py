"""The events of a cutover from the source's agent, with the source's clock, and what follows from them."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from sealift.model import Step, StepRecord
from sealift_agent.protocol import Began, Committed, Event, ImagesSent, LastDumped, Received, Restored

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift_agent.protocol import Happened

Kind = TypeVar("Kind", bound=Event)

PHASES: dict[Step, tuple[type[Event], type[Event]]] = {
    Step.FINAL_DUMP: (Began, LastDumped),
    Step.TRANSFER: (LastDumped, Received),
    Step.RESTORE: (Received, Restored),
    Step.NETWORK_SWITCH: (Restored, Committed),
}
"""Each step of the cutover with the events that begin and end it."""


class Heard:
    """The events of one cutover, the last one of each kind. Threads may wait for one."""

    def __init__(self) -> None:
        self._events: dict[type[Event], Happened] = {}
        self._began = datetime.now(UTC)
        self._changed = threading.Condition()

    def __contains__(self, kind: type[Event]) -> bool:
        return kind in self._events

    def keep(self, happened: Happened) -> None:
        """Store an event."""
        with self._changed:
            if isinstance(happened.event, Began):
                self._began = datetime.now(UTC)
            self._events[type(happened.event)] = happened
            self._changed.notify_all()

    def wake(self) -> None:
        """Something else has changed: waiting threads check again."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, what: Callable[[], bool], timeout_s: float) -> None:
        """Wait until `what` is true, or for so many seconds."""
        with self._changed:
            self._changed.wait_for(what, timeout_s)

    def has_ended(self, step: Step) -> bool:
        """Whether the event that ends this step has come."""
        return PHASES[step][1] in self

    def said(self, kind: type[Kind]) -> Kind | None:
        """The event of that kind, if it has come."""
        happened = self._events.get(kind)
        return happened.event if happened is not None and isinstance(happened.event, kind) else None

    @property
    def dumped(self) -> LastDumped:
        """The source's event about the last dump, with zeros if it has not come. The following are the same."""
        return self.said(LastDumped) or LastDumped(0)

    @property
    def sent(self) -> ImagesSent:
        """The source's event about sent images."""
        return self.said(ImagesSent) or ImagesSent(0)

    @property
    def received(self) -> Received:
        """The destination's event about received images."""
        return self.said(Received) or Received()

    @property
    def restored(self) -> Restored:
        """The destination's event about the restore."""
        return self.said(Restored) or Restored()

    def between_ms(self, first: type[Event], last: type[Event]) -> float:
        """Time between two events, in milliseconds; 0 if one is missing."""
        try:
            return float(self._events[last].at_ns - self._events[first].at_ns) / 1e6
        except KeyError:
            return 0.0

    def record(self, step: Step) -> StepRecord:
        """The record of a step that has ended."""
        begin, end = PHASES[step]
        return StepRecord(
            step=step,
            started=self._began + timedelta(milliseconds=self.between_ms(Began, begin)),
            duration_ms=self.between_ms(begin, end),
            sent_bytes=self._sent_bytes(step),
        )

    def _sent_bytes(self, step: Step) -> int:
        if step == Step.FINAL_DUMP:
            return self.dumped.file_bytes + self.received.page_bytes
        return self.sent.metadata_bytes if step == Step.TRANSFER else 0
