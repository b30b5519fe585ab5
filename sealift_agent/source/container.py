"""The source's copy of the container, from the freeze on."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .. import cgroup, criu, docker_api, held, processes, unread
from ..files import silent
from ..left_behind import Left
from ..network import bridge_port, repair
from ..network.lock import Lock
from ..wire import AgentError
from .afterwards import remove

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ..held import Held
    from ..network.bridge_port import BridgePort


class Container:
    """States: running → frozen and detached (`freeze`) → running (`go_on`), or gone (`remove`), which is final.

    `first` is its first process, `group` its freezer group. `freezer` is the group that CRIU uses instead, if any: see
    `cgroup.stand_in`. `left` is what `docker exec` sessions have left in it.
    """

    def __init__(
        self,
        container: str,
        address: str,
        first: int,
        group: Path,
        port: BridgePort,
        lock: Lock,
        freezer: Path | None,
    ) -> None:
        self.id, self.address = container, address
        self.first, self.group, self.freezer = first, group, freezer
        self._port, self._lock = port, lock
        self.left = Left()
        self._lent: silent.Lent | None = None
        self._frozen_at: int | None = None

    def look_for_sessions(self, dockers: Collection[str]) -> None:
        """Before the freeze: find what leads to a `docker exec` session. `dockers` are the pipes of Docker's own."""
        self.left = processes.left_behind(self.processes, self.first, dockers)
        if held.notifiers(held.descriptors(self.processes)):
            self._lent = silent.Lent(self.first)

    @classmethod
    def find(cls, container: str, address: str, bridge: str, directory: Path) -> Container:
        """The container as it runs now, with what its freeze needs. AgentError if it does not run."""
        state = docker_api.call("GET", f"/containers/{container}/json")["State"]
        if not state["Running"] or not state["Pid"]:
            raise AgentError("the container has stopped meanwhile", "final dump")
        first = int(state["Pid"])
        group = cgroup.of_process(first)
        port = bridge_port.find(f"/proc/{first}/ns/net", address, bridge)
        freezer = cgroup.stand_in(group, directory / "freezer") if cgroup.stopped(group) else None
        lock = Lock(f"/proc/{first}/ns/net")
        return cls(container, address, first, group, port, lock, freezer)

    @property
    def processes(self) -> list[int]:
        """All of its processes."""
        return cgroup.pids(self.group)

    @property
    def network(self) -> int:
        """The inode of its network namespace, by which CRIU knows it."""
        return Path(f"/proc/{self.first}/ns/net").stat().st_ino

    def freeze(self) -> list[int]:
        """Freeze it and detach its bridge port. Returns the processes that a signal had stopped, if that matters.

        It is frozen before it is detached. Otherwise an answer that is dropped at the detached port would have to wait
        for the restored socket's retransmission timer, a whole second. What arrives in between is part of the dump.
        """
        stopped = cgroup.stopped(self.group) if self.freezer is not None else []
        cgroup.freeze(self.group)
        self._frozen_at = time.monotonic_ns()
        if self._lent is not None:
            self._lent.begin()
        self._lock.shut()
        self._port.detach()
        return stopped

    @property
    def watches(self) -> bool:
        """Whether its programs watched any files when sessions were looked for."""
        return self._lent is not None

    def unread_events(self) -> dict[Held, str]:
        """What waits of inotify and fanotify, if its programs watch files. CRIU's dump may add events of its own."""
        return unread.events(held.descriptors(self.processes)) if self.watches else {}

    def set_aside(self, stopped: Sequence[int]) -> None:
        """Take these processes out of the freezer, since CRIU could not trace them in it: see `cgroup.set_aside`."""
        if self.freezer is not None:
            cgroup.set_aside(self.group, stopped, self.freezer)

    def go_on(self) -> int | None:
        """Let it run and attach its port. Returns the nanoseconds for which it was frozen; None if it was not."""
        with contextlib.suppress(
            AgentError
        ):  # `close` removes the lock; a container that stays frozen would be worse
            self._lock.open()
        self._port.attach()
        if self._frozen_at is None:
            return None
        repair.end(self.processes)
        self._see_all()
        cgroup.thaw(self.group)
        frozen_at, self._frozen_at = self._frozen_at, None
        criu.forget_checkpoint(self.id)
        return time.monotonic_ns() - frozen_at

    def _see_all(self) -> None:
        if self._lent is not None:
            self._lent.end()

    def close(self) -> None:
        """Leave nothing in its network namespace."""
        self._see_all()
        self._lock.close()

    def remove(self) -> None:
        """End this copy without letting it run, and remove it. The other copy has won."""
        self._see_all()
        remove(self.id)
        self._frozen_at = None
