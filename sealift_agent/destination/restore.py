"""The restore of the container, from a start that is prepared to the last look before the decision."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from .. import docker_api
from ..images import restore_stats
from ..shim import Shim
from ..wire import AgentError
from .afterwards import FILL_TIMEOUT_S, started

if TYPE_CHECKING:
    import socket

    from ..files.printing import Printer
    from .start import Paused, Start

CREATED_S = 5


class Restore:
    """prepared (when it is made) → restored (`run`) → certain (`make_sure`) → reachable (`complete_memory`) → over.

    `start` is Docker's start of the container, `paused` where it waits, `printer` what prints what was printed at the
    source, if anything is.
    """

    def __init__(self, container: str, start: Start, paused: Paused, printer: Printer | None) -> None:
        self.container = container
        self._start, self._wrapper, self._printer = start, paused.wrapper, printer
        self._shim = Shim(container, paused.bundle)

    def print(self, lines: bytes) -> None:
        """Print lines of the source's log, before the container prints any."""
        if self._printer is not None:
            self._printer.print(lines)

    @property
    def is_lazy(self) -> bool:
        """Whether the container runs before its memory is in."""
        return self._start.pager is not None

    def read_ahead(self) -> None:
        """The images of all rounds but the last dump are there."""
        if self._start.pager is not None:
            self._start.pager.read_ahead()

    def begin_memory(self, source: socket.socket | None) -> None:
        """Have memory brought that the images leave out, by the connection to the source's pages if there is one."""
        if self._start.pager is not None:
            self._start.pager.begin(source)

    def run(self) -> dict[str, int]:
        """Restore. Returns CRIU's statistics."""
        self._start.restore(self._wrapper)
        return restore_stats(self._start.work)

    def make_sure(self) -> None:
        """The last look before the decision: memory can come in behind, and Docker still knows of its start.

        The shim has the container by now, so that a dockerd that dies from here on can't take it along.
        """
        if self._start.pager is not None:
            self._start.pager.guard()
        deadline = time.monotonic() + CREATED_S
        while self._start.failure is None and self._shim.is_busy(self._start.ends_as):
            if time.monotonic() > deadline:
                raise AgentError(f"containerd's shim does not have it after {CREATED_S} s", "restore")
            time.sleep(0.0005)
        if self._start.failure is not None:
            raise AgentError(self._start.failure, "restore")
        if self._printer is not None:
            self._printer.close()

    def watch_memory(self) -> None:
        """From the commit on: memory that can't be completed ends the container."""
        if self._start.pager is not None:
            self._start.pager.watch(self._end_incomplete)

    def complete_memory(self) -> None:
        """The container is reached: the rest of its memory may come."""
        if self._start.pager is not None:
            self._start.pager.run()

    def _end_incomplete(self) -> None:
        """Ended like a process that crashed, instead of going on with zeroes."""
        with contextlib.suppress(AgentError):
            docker_api.call("POST", f"/containers/{self.container}/kill", accept=(204, 404, 409))

    def wait_for_memory(self, timeout_s: float | None) -> None:
        """Wait until all of it is in. AgentError when that will never be, or was not in time."""
        if self._start.pager is not None:
            self._start.pager.wait(timeout_s)

    def finish(self) -> dict[str, Any]:
        """After the commit: wait for Docker to have noticed, and for all memory. Returns Docker's `State` of it."""
        self._start.wait()
        self.wait_for_memory(FILL_TIMEOUT_S)
        state = started(self.container, self._shim)
        if self._start.failure and not state["Running"]:
            raise AgentError(
                f"Docker reports the restored container as failed: {self._start.failure}", "finish"
            )
        return state

    def stay(self) -> None:
        """Its images are needed until its memory is complete or lost for good, and Docker's start of it has an end."""
        with contextlib.suppress(AgentError):  # said by `finish`
            self.wait_for_memory(None)
        if self._start.failure:
            with contextlib.suppress(AgentError):  # said by `finish`
                started(self.container, self._shim)
