"""Docker's own start of the container, which is under way before the source freezes.

It hangs in the runtime wrapper, which waits at a pipe: first for the bundle to be ready, then for the word that the
images are there. Up to Docker 26 that is the runtime's `create`. From Docker 27 on, `create` ends with a process that
stands in for the container's first one, and the runtime's `start` hangs: see `stand_in`.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import criu, docker_api, pidfd, points
from ..points import Point
from ..shim import CREATED, RUNNING
from ..trigger import Trigger
from ..wire import AgentError

if TYPE_CHECKING:
    import contextlib

    from ..memory.lazy import LazyPagesDaemon
    from .stand_in import StandIn

RESTORES = Path("/run/sealift/restore")
RESTORE_TIMEOUT_S = 100
START_TIMEOUT_S = 24 * 3600
"""Of Docker's API: a start takes as long as it is waited for the source."""

NOTED_S = 60
"""How long Docker may take to notice that the container runs."""


class Paused(NamedTuple):
    """A start that waits in the runtime wrapper: its process, and the bundle of the container."""

    wrapper: int
    bundle: Path


class Start:
    """not begun → paused in the wrapper (`begin`) → prepared (`prepare`) → restored (`restore`) → over (`wait`).

    Where Docker fills the network after `create`, it is paused twice: `hand_over` lets `create` end.

    In any of them it may fail, by itself or since it is called off (`trigger`): `failure` is what Docker says then,
    `complaint` why. `work` is the directory of the restore, `pager` what brings memory later, if something does.
    """

    def __init__(self, container: str, work: Path, pager: LazyPagesDaemon | None) -> None:
        self.work, self.pager = work, pager
        self.trigger = Trigger(work, "restore")
        self.failure: str | None = None
        self._stand_in: StandIn | None = None
        self._container = container
        self._thread = threading.Thread(target=self._start, daemon=True, name="start")

    def _start(self) -> None:
        try:
            docker_api.call("POST", f"/containers/{self._container}/start", timeout=START_TIMEOUT_S)
        except AgentError as failure:
            self.failure = str(failure)

    def complaint(self) -> str | None:
        """Why nothing will come of it; None as long as something may."""
        if self.pager is not None and self.pager.has_died():
            return self.pager.reason()
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

    def hand_over(self, created: Paused, stand_in: StandIn, held: contextlib.ExitStack) -> Paused:
        """Have `create` end with the process that stands in, and wait for `start`. Docker fills the network between.

        The restored container prints where `create` would have. `held` keeps that open.
        """
        self._stand_in = stand_in
        (self.work / "root-pid").write_text(f"{stand_in.pid}\n")
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            descriptor = pidfd.borrow(created.wrapper, number)
            held.callback(os.close, descriptor)
            (self.work / name).symlink_to(f"/proc/{os.getpid()}/fd/{descriptor}")
        (self.work / "waiting").unlink()
        self.trigger.say(f"created {stand_in.pid}")
        return self._paused()

    @property
    def ends_as(self) -> int:
        """What containerd says of the container when the runtime is through with the restore."""
        return CREATED if self._stand_in is None else RUNNING

    def prepare(self, images: Path) -> None:
        """The bundle is ready: on to where only the word is missing."""
        if self._stand_in is not None:
            self._stand_in.leave_groups()
        self.trigger.say(str(images))
        self.trigger.wait("ready", self.complaint)

    def restore(self, wrapper: int) -> None:
        """Have CRIU begin, and wait until all runs. AgentError also for one that stands still: a client waits."""
        helpers = [] if self.pager is None else [self.pager.pid]
        progress = criu.Progress(self.work / "restore.log", wrapper, *helpers)

        def complaint() -> str | None:
            still = f"CRIU has stood still for {criu.STANDSTILL_S} s while it restored the container"
            return self.complaint() or (still if progress.stands_still() else None)

        if self._stand_in is not None:
            self._stand_in.end()
        self.trigger.say("go")
        points.passed(Point.RESTORING)
        self.trigger.wait("restored", complaint, RESTORE_TIMEOUT_S)

    def wait(self) -> None:
        """Wait for Docker to have noticed."""
        self._thread.join(NOTED_S)


def follow_links(spec: dict[str, Any]) -> None:
    """Name the sources of a bundle's bind mounts by their real paths: runc follows links, but CRIU binds the link.

    Debian's /usr/bin/docker-init, which `docker run --init` mounts, is one.
    """
    for mount in spec["mounts"]:
        if mount["type"] == "bind":
            mount["source"] = os.path.realpath(mount["source"])
