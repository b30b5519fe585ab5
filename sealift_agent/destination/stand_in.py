"""What stands for the container's first process between the runtime's `create` and its `start`, from Docker 27 on.

These daemons have no hook in the bundle. After the runtime's `create` they fill the network namespace of the process
that `create` has named, and then call `start`. The restore happens in `start`: only then the images are there. So
`create` names a process of ours, in the namespace that the agent has made.

Docker, containerd and the shim go on with this process id: they wait for its end, and look for its control groups. So
the restored first process gets the same id, as soon as this process has ended (`interposed`, `SEALIFT_ROOT_PID`). This
process is a child of the agent, so that the shim does not hear of its end.
"""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING, Any

from .. import cgroup
from ..wire import AgentError

if TYPE_CHECKING:
    from pathlib import Path

    from ..network.sandbox import Sandbox

END_S = 5
READY = b"\n"


class StandIn:
    """A process in a network namespace and in the container's control groups. It ends with the agent.

    In both (from the start) → out of the groups (`leave_groups`): runc takes no group with processes in it → ended
    (`end`): its id is free.
    """

    def __init__(self, sandbox: Sandbox, spec: dict[str, Any]) -> None:
        """AgentError, and nothing of it runs, if it can't be had."""
        # The end of its input, which only the agent holds, ends it.
        self._process = subprocess.Popen(
            ["nsenter", f"--net={sandbox.path}", "cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        self._own = cgroup.paths(self.pid)
        self._groups: list[Path] = []
        try:
            self._wait_until_inside()
            self._groups = cgroup.of_bundle(spec["linux"]["cgroupsPath"])
            for group in self._groups:
                cgroup.put(self.pid, group)
        except OSError as failure:
            self.end()
            raise AgentError(
                f"no process can stand for the container's first one: {failure}", "restore"
            ) from failure

    def _wait_until_inside(self) -> None:
        """Docker fills the namespace that this process is in. `cat` answers only once it is in the right one."""
        if self._process.stdin is None or self._process.stdout is None:  # never: they were asked for
            raise AssertionError
        with contextlib.suppress(BrokenPipeError):  # it has ended, and answers nothing
            self._process.stdin.write(READY)
        if self._process.stdout.read(len(READY)) != READY:
            raise OSError("it has not entered the network namespace")

    @property
    def pid(self) -> int:
        """Its id."""
        return self._process.pid

    def leave_groups(self) -> None:
        """Go back to the agent's control groups. The container's stay: the shim watches them.

        Not to the groups above: those of version 2 take no process while they hand controllers down.
        """
        for group in self._groups:
            cgroup.put(self.pid, cgroup.beside(group, self._own))
        self._groups = []

    def end(self) -> None:
        """End it, and free its id. Nothing if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(END_S)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
