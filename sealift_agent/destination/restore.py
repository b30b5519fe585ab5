"""The restore of the container, from the prepared start to the last check before the decision."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from .. import criu, docker_api
from ..images import restore_stats
from ..shim import Shim
from ..wire import AgentError
from .afterwards import FILL_TIMEOUT_S, started

if TYPE_CHECKING:
    import socket

    from ..files.printing import Printer
    from ..network.lock import Unlocking
    from .start import Paused, Start

CREATED_S = 5


class Restore:
    """States: prepared → restored (`run`) → certain (`make_sure`) → reachable (`complete_memory`) → over.

    `start` is Docker's start of the container. `paused` is where it waits. `printer` prints the source's old output, if
    there is any. Its connections are under `lock` until they are all made again.
    """

    def __init__(
        self, container: str, start: Start, paused: Paused, printer: Printer | None, lock: Unlocking
    ) -> None:
        self.container = container
        self._start, self._wrapper, self._printer = start, paused.wrapper, printer
        self._shim = Shim(container, paused.bundle)
        self._lock = lock

    def print(self, lines: bytes) -> None:
        """Print lines of the source's log, before the container prints any."""
        if self._printer is not None:
            self._printer.print(lines)

    @property
    def is_lazy(self) -> bool:
        """Whether the container runs before all of its memory is in."""
        return self._start.pager is not None

    def read_ahead(self) -> None:
        """Read the images of all rounds, except the last dump's."""
        if self._start.pager is not None:
            self._start.pager.read_ahead()

    def begin_memory(self, source: socket.socket | None) -> None:
        """Bring memory that the images leave out, over the connection `source` if there is one."""
        if self._start.pager is not None:
            self._start.pager.begin(source)

    def run(self, processes: int) -> dict[str, int]:
        """Restore that many processes. Returns CRIU's statistics."""
        self._start.restore(self._wrapper, processes)
        self._lock.open()
        return restore_stats(self._start.work)

    def first_process(self) -> int:
        """The container's, once it is restored."""
        return criu.first_process(self.container)

    def make_sure(self) -> None:
        """The last check before the decision: the rest of memory can be brought, and Docker still knows of its start.

        The shim has the container by now, so it stays if dockerd dies later.
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
        """From the commit on: end the container if its memory can't be completed."""
        if self._start.pager is not None:
            self._start.pager.watch(self._end_incomplete)

    def complete_memory(self) -> None:
        """Let the rest of its memory come, since the container is reachable."""
        if self._start.pager is not None:
            self._start.pager.run()

    def _end_incomplete(self) -> None:
        """End it like a process that crashed, so that it does not run with zeroes in its memory."""
        with contextlib.suppress(AgentError):
            docker_api.call("POST", f"/containers/{self.container}/kill", accept=(204, 404, 409))

    def wait_for_memory(self, timeout_s: float | None) -> None:
        """Wait until all of it is in. AgentError if that is impossible, or not done within `timeout_s` seconds."""
        if self._start.pager is not None:
            self._start.pager.wait(timeout_s)

    def finish(self) -> dict[str, Any]:
        """After the commit, wait until Docker has noticed and all memory is in. Returns Docker's `State` of it."""
        self._start.wait()
        self.wait_for_memory(FILL_TIMEOUT_S)
        state = started(self.container, self._shim)
        if self._start.failure and not state["Running"]:
            raise AgentError(
                f"Docker reports the restored container as failed: {self._start.failure}", "finish"
            )
        return state

    @property
    def waited(self) -> dict[str, int] | None:
        """How long processes have waited for their memory, once it is complete. None if it was from the beginning."""
        return None if self._start.pager is None else self._start.pager.waited

    def stay(self) -> None:
        """Wait until its images are no longer needed (memory complete or lost) and Docker's start has ended."""
        with contextlib.suppress(AgentError):  # `finish` reports it
            self.wait_for_memory(None)
        if self._start.failure:
            with contextlib.suppress(AgentError):  # `finish` reports it
                started(self.container, self._shim)
