"""The task runs that watch a cutover: none of them may cost the freeze anything.

Prefect notes the beginning and the end of each task run. That takes processor time from hosts that share the machine,
so the runs are under way before the hosts are armed, and end a moment after the commit.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sealift.migration.cutover import Cutover
    from sealift.model import Step, StepRecord

ATTEND_TIMEOUT_S = 10
QUIET_BEFORE_S, QUIET_AFTER_S = 0.5, 0.5
"""How long there is silence before the hosts are armed and after the commit, when the container asks for its first
pages."""


class Watchers:
    """So many task runs that `attend` before the one that begins the cutover goes on."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._present = 0
        self._changed = threading.Condition()

    def attend(self) -> None:
        """A task run has begun."""
        with self._changed:
            self._present += 1
            self._changed.notify_all()

    def wait_for_all(self) -> None:
        """Until all have begun, or not much longer: none is needed."""
        with self._changed:
            self._changed.wait_for(lambda: self._present >= self._expected, ATTEND_TIMEOUT_S)
        time.sleep(QUIET_BEFORE_S)

    @staticmethod
    def record(cutover: Cutover, step: Step) -> StepRecord:
        """Wait for the end of the cutover; the record of a step of it. Raises what ended it before that step."""
        cutover.wait(step)
        if cutover.has_reached(step):
            time.sleep(QUIET_AFTER_S)
        return cutover.record(step)
