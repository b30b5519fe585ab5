"""What the source's agent has said of a cutover: its events, with the source's clock, and what follows from them."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sealift.model import Step, StepRecord

if TYPE_CHECKING:
    from collections.abc import Callable

PHASES = {
    Step.FINAL_DUMP: ("go", "dumped"),
    Step.TRANSFER: ("dumped", "received"),
    Step.RESTORE: ("received", "restored"),
    Step.NETWORK_SWITCH: ("restored", "committed"),
}
"""Each step of the cutover with the events that begin and end it."""

COMMITTED = PHASES[Step.NETWORK_SWITCH][1]
SETTLED, ALIVE = "settled", "alive"


class Heard:
    """The events of one cutover, each kept once by its name. Threads may wait for one."""

    def __init__(self) -> None:
        self._events: dict[str, dict[str, Any]] = {}
        self._began = datetime.now(UTC)
        self._changed = threading.Condition()

    def __contains__(self, event: str) -> bool:
        return event in self._events

    def keep(self, event: dict[str, Any]) -> None:
        """An event has come."""
        with self._changed:
            if event["event"] == PHASES[Step.FINAL_DUMP][0]:
                self._began = datetime.now(UTC)
            self._events[event["event"]] = event
            self._changed.notify_all()

    def wake(self) -> None:
        """Something else has changed: whoever waits looks again."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, what: Callable[[], bool], timeout_s: float) -> None:
        """Until that is so, or so many seconds have passed."""
        with self._changed:
            self._changed.wait_for(what, timeout_s)

    def has_ended(self, step: Step) -> bool:
        """Whether the event that ends this step has come."""
        return PHASES[step][1] in self

    def word(self, event: str, name: str) -> str | None:
        """A text that came with an event."""
        said = self._events.get(event, {}).get(name)
        return None if said is None else str(said)

    def fact(self, event: str, name: str) -> int:
        """A number that came with an event, else 0."""
        return int(self._events.get(event, {}).get(name, 0))

    def between_ms(self, first: str, last: str) -> float:
        """Time between two events, in milliseconds; 0 where one is missing."""
        try:
            return float(self._events[last]["at_ns"] - self._events[first]["at_ns"]) / 1e6
        except KeyError:
            return 0.0

    def record(self, step: Step) -> StepRecord:
        """The record of a step that has ended."""
        begin, end = PHASES[step]
        return StepRecord(
            step=step,
            started=self._began + timedelta(milliseconds=self.between_ms("go", begin)),
            duration_ms=self.between_ms(begin, end),
            sent_bytes=self._sent_bytes(step),
        )

    def _sent_bytes(self, step: Step) -> int:
        if step == Step.FINAL_DUMP:
            return self.fact("dumped", "file_bytes") + self.fact("received", "page_bytes")
        return self.fact("sent", "metadata_bytes") if step == Step.TRANSFER else 0
