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

if TYPE_CHECKING:
    from pathlib import Path

    from ..network.sandbox import Sandbox

END_S = 5


class StandIn:
    """A process in a network namespace and in the container's control groups. It ends with the agent.

    In both (from the start) → out of the groups (`leave_groups`): runc takes no group with processes in it → ended
    (`end`): its id is free.
    """

    def __init__(self, sandbox: Sandbox, spec: dict[str, Any]) -> None:
        # The end of its input, which only the agent holds, ends it.
        self._process = subprocess.Popen(
            ["nsenter", f"--net={sandbox.path}", "cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._groups: list[Path] = []
        try:
            for group in cgroup.of_bundle(spec["linux"]["cgroupsPath"]):
                (group / cgroup.PROCESSES).write_text(str(self.pid))
                self._groups.append(group)
        except OSError:
            self.end()
            raise

    @property
    def pid(self) -> int:
        """Its id."""
        return self._process.pid

    def leave_groups(self) -> None:
        """Leave the container's control groups, which stay: the shim watches them."""
        for group in self._groups:
            (group.parent / cgroup.PROCESSES).write_text(str(self.pid))
        self._groups = []

    def end(self) -> None:
        """End it, and free its id. Nothing if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(END_S)
        if self._process.stdin is not None:
            self._process.stdin.close()
