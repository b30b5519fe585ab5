"""Docker's own start of the container. It begins before the source freezes.

It waits in the runtime wrapper, which reads a pipe: first for a ready bundle, then for the message that the images are
there. Up to Docker 26 it waits in the runtime's `create`. From Docker 27 on, `create` returns a process that stands for
the container's first one, and the runtime's `start` waits: see `stand_in`.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .. import cgroup, criu, docker_api, pidfd, points, proc
from ..points import Point
from ..shim import CREATED, RUNNING
from ..trigger import Trigger
from ..wire import AgentError

if TYPE_CHECKING:
    import contextlib

    from ..memory.lazy import LazyPagesDaemon
    from .console import Console
    from .stand_in import StandIn

RESTORES = Path("/run/sealift/restore")
RESTORE_TIMEOUT_S = 100
START_TIMEOUT_S = 24 * 3600
"""Seconds for Docker's API. A start waits for the source."""

GROUP_S = 20
"""Seconds that runc may take to put CRIU into the container's control group."""

NOTED_S = 60
"""Seconds that Docker may take to notice that the container runs."""


class Paused(NamedTuple):
    """A start that waits in the runtime wrapper: the wrapper's process, and the container's bundle."""

    wrapper: int
    bundle: Path


def _console_socket(wrapper: int) -> str:
    """Where the runtime's `create`, which this process stands for, is to send the terminal's master."""
    words = proc.read(wrapper, "cmdline").split("\0")
    if "--console-socket" not in words:
        raise AgentError(
            "Docker starts the container without a terminal, though its bundle has one", "restore"
        )
    return words[words.index("--console-socket") + 1]


class Start:
    """States: new → paused in the wrapper (`begin`) → prepared (`prepare`) → restored (`restore`) → over (`wait`).

    If Docker fills the network after `create`, the start is paused twice: `hand_over` lets `create` return.

    In each it may fail, by itself or because it is called off (`trigger`). `failure` is Docker's message then, and
    `complaint` the reason. `work` is the restore's directory. `pager` brings memory later, if there is one.
    """

    def __init__(self, container: str, work: Path, pager: LazyPagesDaemon | None) -> None:
        self.work, self.pager = work, pager
        self.trigger = Trigger(work, "restore")
        self.failure: str | None = None
        self._stand_in: StandIn | None = None
        self._group: Path | None = None
        self._container = container
        self._thread = threading.Thread(target=self._start, daemon=True, name="start")

    def _start(self) -> None:
        try:
            docker_api.call("POST", f"/containers/{self._container}/start", timeout=START_TIMEOUT_S)
        except AgentError as failure:
            self.failure = str(failure)

    def complaint(self) -> str | None:
        """The reason why the start can't succeed any more; None while it can."""
        if self.pager is not None and self.pager.has_died():
            why = criu.reason(self.work / "restore.log") if self.pager.outlived_restore() else ""
            return why or self.pager.reason()
        if self.failure is None:
            return None
        why = criu.reason(self.work / "restore.log")
        said = criu.reason(self.work / "complaints")
        return why or (f"{self.failure} ({said})" if said else self.failure)

    def begin(self) -> Paused:
        """Have Docker start the container, up to the wrapper."""
        self._thread.start()
        return self._paused()

    def _paused(self) -> Paused:
        self.trigger.wait("waiting", self.complaint)
        process, bundle = (self.work / "waiting").read_text().splitlines()
        return Paused(int(process), Path(bundle))

    def hand_over(
        self, created: Paused, stand_in: StandIn, console: Console | None, held: contextlib.ExitStack
    ) -> Paused:
        """Let `create` return the process `stand_in`, and wait for `start`. Docker fills the network in between.

        The restored container gets the standard descriptors of `create`, or the terminal `console` that is made now.
        They are open until `held` is closed.
        """
        self._stand_in = stand_in
        (self.work / "root-pid").write_text(f"{stand_in.pid}\n")
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            # With a terminal the runtime's own output goes there, to whose end containerd waits.
            place = os.devnull
            if console is None:
                descriptor = pidfd.borrow(created.wrapper, number)
                held.callback(os.close, descriptor)
                place = f"/proc/{os.getpid()}/fd/{descriptor}"
            (self.work / name).symlink_to(place)
        if console is not None:
            console.listen(self.work / "console")
            console.give(_console_socket(created.wrapper))
        (self.work / "waiting").unlink()
        self.trigger.say(f"created {stand_in.pid}")
        return self._paused()

    @property
    def ends_as(self) -> int:
        """The state of the container in containerd when the runtime has restored it."""
        return CREATED if self._stand_in is None else RUNNING

    def make_cgroup_namespace(self, group: Path) -> None:
        """Restore in a cgroup namespace of its own, whose root is `group`: see `armed/criu`."""
        self._group = group
        (self.work / "cgroup-namespace").touch()

    def prepare(self, images: Path) -> None:
        """Continue with the ready bundle, up to where only the images are missing."""
        if self._stand_in is not None:
            self._stand_in.leave_groups()
        self.trigger.say(str(images))
        self.trigger.wait("ready", self.complaint)
        until = time.monotonic() + GROUP_S
        # Runc puts CRIU there when it has started it. The namespace has to be made after that.
        while self._group is not None and not cgroup.pids(self._group):
            if time.monotonic() > until or self.complaint() is not None:
                raise AgentError(self.complaint() or f"runc has put nothing into {self._group}", "restore")
            time.sleep(0.001)

    def restore(self, wrapper: int, processes: int) -> None:
        """Let CRIU begin, and wait until all of them run. `processes` is how many there are.

        AgentError, also if it makes no progress, since clients wait.
        """
        helpers = [] if self.pager is None else [self.pager.pid]
        progress = criu.Progress(self.work / "restore.log", wrapper, *helpers)

        def complaint() -> str | None:
            still = f"CRIU has stood still for {criu.STANDSTILL_S} s while it restored the container"
            return self.complaint() or (still if progress.stands_still() else None)

        if self._stand_in is not None:
            self._stand_in.end()
        self.trigger.spare_log(processes)
        self.trigger.say("go")
        points.passed(Point.RESTORING)
        self.trigger.wait("restored", complaint, RESTORE_TIMEOUT_S)

    def wait(self) -> None:
        """Wait until Docker has noticed the start."""
        self._thread.join(NOTED_S)
